#!/usr/bin/env python3
"""A training job: counts steps, checkpoints, yields when asked, resumes where it was. Standard library only.

    train_job.py FOLDER STEPS [--rate 5] [--every 8] [--deaf] [--stubborn]

FOLDER belongs to this job alone: `journal` (a line per step done: start number, step, Unix seconds), `checkpoint` (the
last step saved), `done` (JSON, when all steps are done). On USR1 a flag is set; the checkpoint is written after the step
that is running, then `coloc checkpointed --yield` tells coloc to take the GPUs, and the job waits for its end.
COLOC_COMMAND is the command line of `coloc` (as a shell would split it; default `coloc`, `none`: tell nobody).
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 60.0
"""Nobody took the GPUs for this long after the yield: go on."""


class Training:
    """One start of the job; `step` is the last step done."""

    def __init__(self, folder: Path, steps: int, rate: float, every: float) -> None:
        self.folder, self.steps, self.pause, self.every = folder, steps, 1 / rate, every
        self.start = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        self.step = self._resume()
        self.saved_at = time.monotonic()
        # plain flags: a signal handler that sets a threading.Event may wait for a lock its own thread holds
        self.asked = self.ended = False

    def _resume(self) -> int:
        try:
            return int((self.folder / "checkpoint").read_text())
        except FileNotFoundError:
            return 0

    def save(self) -> None:
        """Write the checkpoint: whole or not at all, also if the machine stops now."""
        fresh = self.folder / "checkpoint.new"
        with fresh.open("w") as file:
            file.write(f"{self.step}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.folder / "checkpoint")
        self.saved_at = time.monotonic()

    def tell(self, *words: str) -> None:
        """Run `coloc checkpointed`. When it fails the job goes on: its checkpoint is what counts."""
        command = shlex.split(os.environ.get("COLOC_COMMAND", "coloc"))
        if command == ["none"]:
            return
        done = subprocess.run([*command, "checkpointed", *words], check=False, stdin=subprocess.DEVNULL)
        print(f"step {self.step}: told coloc {' '.join(words)} (exit {done.returncode})", flush=True)

    def give_way(self) -> None:
        """Save, say so, and wait to be ended."""
        self.asked = False
        self.save()
        self.tell("--yield")
        until = time.monotonic() + PATIENCE
        while not self.ended and time.monotonic() < until:
            time.sleep(0.1)
        if not self.ended:
            print("nobody took the GPUs: going on", flush=True)

    def run(self) -> bool:
        """Do the steps that are left; False when the job was ended before the last one."""
        with (self.folder / "journal").open("a", buffering=1) as journal:
            while self.step < self.steps:
                time.sleep(self.pause)
                if self.ended:
                    break
                self.step += 1
                journal.write(f"{self.start} {self.step} {time.time():.3f}\n")
                if self.asked:
                    self.give_way()
                elif time.monotonic() - self.saved_at >= self.every:
                    self.save()
                    self.tell()
        return self.step >= self.steps

    def finish(self) -> None:
        """Write the done file: the exact number of steps."""
        fresh = self.folder / "done.new"
        fresh.write_text(json.dumps({"steps": self.step, "starts": self.start + 1}) + "\n")
        fresh.replace(self.folder / "done")


def main() -> int:
    """Run one start of the job."""
    parser = argparse.ArgumentParser(description="a batch job that counts steps")
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--rate", type=float, default=5.0, help="steps a second")
    parser.add_argument("--every", type=float, default=8.0, help="seconds between checkpoints")
    parser.add_argument("--deaf", action="store_true", help="misbehave: ignore the signal")
    parser.add_argument("--stubborn", action="store_true", help="misbehave: ignore TERM")
    args = parser.parse_args()
    with contextlib.suppress(FileExistsError):
        args.folder.mkdir(parents=True)
    job = Training(args.folder, args.steps, args.rate, args.every)
    # Only flags are set in handlers: saving inside of one could meet a half-done step.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN if args.deaf else lambda *_: setattr(job, "asked", True))
    signal.signal(signal.SIGTERM, signal.SIG_IGN if args.stubborn else lambda *_: setattr(job, "ended", True))
    print(f"start {job.start}: from step {job.step} of {job.steps}", flush=True)
    if not job.run():
        return 143
    job.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
