"""A batch job of bench_lost: counts steps, saves from time to time and when it is asked. Runs inside of Slurm jobs.

    lost_job.py FOLDER --interval SECONDS --save SECONDS [--asked USR1|TERM] [--care]

A step is 0.1 s of work; a save takes `--save` seconds, in which no step is done, and counts only when it is whole. `--asked`:
the signal at which it saves besides; after USR1 it waits for its end, after TERM it ends. Without, TERM ends it where it is.
`--care`: it tells coloc of its saves, as `coloc checkpointed` does. FOLDER holds `starts` (restart, step it goes on from, Unix
seconds), `journal` (restart, step, Unix seconds, a line a step) and `checkpoint`. Standard library only.
"""

import argparse
import os
import signal
import subprocess
import sys
import time

STEP = 0.1
PATIENCE = 60.0
"""Nobody took the GPUs for so long after it gave way: it goes on."""


class Job:
    """One run; `step` is the last one done."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.interval, self.cost, self.care = args.interval, args.save, args.care
        self.run = os.environ.get("SLURM_RESTART_COUNT", "0")
        self.step = 0
        self.asked = self.ended = False
        os.makedirs(args.folder, exist_ok=True)
        os.chdir(args.folder)
        if os.path.exists("checkpoint"):
            with open("checkpoint") as file:
                self.step = int(file.read())
        if args.asked == "USR1":
            signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "asked", True))
        if args.asked is not None:
            signal.signal(signal.SIGTERM, lambda *_: setattr(self, "ended", True))
        with open("starts", "a") as file:
            file.write(f"{self.run} {self.step} {time.time():.3f}\n")

    def save(self) -> None:
        """Whole or not at all: only after all of its time it counts."""
        until = time.monotonic() + self.cost
        while (left := until - time.monotonic()) > 0:
            time.sleep(left)
        with open("checkpoint.new", "w") as file:
            file.write(f"{self.step}\n")
        os.replace("checkpoint.new", "checkpoint")

    def tell(self, *also: str) -> None:
        """What `coloc checkpointed` writes into the job's comment, without the start of a second Python."""
        if not self.care:
            return
        ref = os.environ["SLURM_JOB_ID"]
        old = subprocess.run(
            ["squeue", "-h", "-j", ref, "-o", "%k"], capture_output=True, text=True, check=False
        ).stdout
        words = [w for w in old.strip().rstrip("]").split() if not w.startswith(("saved=", "yielded="))]
        if words:
            now = f"{time.time():.0f}"
            mark = " ".join([*words, f"saved={now}", *(f"{word}={now}" for word in also)]) + "]"
            subprocess.run(["scontrol", "update", f"jobid={ref}", f"comment={mark}"], check=False)

    def give_way(self) -> None:
        """Save, say so, and wait for the end."""
        self.asked = False
        self.save()
        self.tell("yielded")
        until = time.monotonic() + PATIENCE
        while not self.ended and time.monotonic() < until:
            time.sleep(0.05)

    def work(self) -> None:
        """Steps for ever."""
        saved = time.monotonic()
        with open("journal", "a", buffering=1) as journal:
            while not self.ended:
                time.sleep(STEP)
                self.step += 1
                journal.write(f"{self.run} {self.step} {time.time():.3f}\n")
                if self.asked:
                    self.give_way()
                    saved = time.monotonic()
                elif self.ended:
                    self.save()
                elif time.monotonic() - saved >= self.interval:
                    self.save()
                    self.tell()
                    saved = time.monotonic()


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--interval", type=float, required=True)
    parser.add_argument("--save", type=float, required=True)
    parser.add_argument("--asked", choices=("USR1", "TERM"))
    parser.add_argument("--care", action="store_true")
    Job(parser.parse_args()).work()
    return 143


if __name__ == "__main__":
    sys.exit(main())
