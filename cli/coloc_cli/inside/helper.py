"""Runs a batch script inside of its Slurm job, asks it to save when coloc wants the GPUs, and tells coloc when it has.

helper.py [OPTIONS] -- SCRIPT ARGUMENT...      run the script
helper.py checkpointed [--yield]               what `coloc checkpointed` does, where coloc is not installed
"""

import argparse
import contextlib
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time

from coloc_cli.inside.mark import OwnJob, checkpointed, say, script_environment
from coloc_cli.inside.processes import Watch, adopt, below, die_of, kill, name_of, programs, reap

REMINDERS = (2.0, 8.0, 25.0)
"""Seconds after which it is looked whether the job's word still stands."""
PACE = 30.0
"""Seconds between two reports of checkpoints that nobody asked for, at least: slurmctld serves others, too."""
TIDY = 5.0
FORWARDED = ["HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "WINCH", "XCPU", "TSTP", "URG"]


class Runner:
    """One run of the script. Signal handlers set flags only; all else happens in `run`."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.job = OwnJob(args.bin)
        self.watch = Watch(args.files) if args.files else None
        self.asked = self.yielded = self.unsent = None  # type: float | None
        self.stamp = 0
        self.ended = False
        self.told: set[object] = set()
        self.child: subprocess.Popen[bytes] | None = None
        self.saver: subprocess.Popen[bytes] | None = None
        self.due = self.reported = time.monotonic()
        self.reminders: list[float] = []
        self.wake, self.bell = os.pipe()
        os.set_blocking(self.bell, False)
        os.set_blocking(self.wake, False)

    def run(self) -> int:
        """Run the script to its end; the exit code, or minus the signal it died of."""
        self.listen()
        self.child = subprocess.Popen(self.words(), env=script_environment(os.path.abspath(__file__), self.args.bin))
        self.top = self.child.pid
        while True:
            self.sleep(self.pause())
            reap({self.child.pid} | ({self.saver.pid} if self.saver else set()))
            code = self.child.poll()
            if code is not None:
                return self.over(code)
            if not self.ended:
                self.look()

    def listen(self) -> None:
        """Take the signals that ask, and TERM; hand the others on to the script."""
        signal.set_wakeup_fd(self.bell)
        for name in (*FORWARDED, "TERM"):
            number = getattr(signal, "SIG" + name)
            if name in self.args.ask:
                signal.signal(number, self.on_ask)
            elif name == "TERM":  # Slurm itself sends it to every process of the job
                signal.signal(number, self.on_term)
            else:
                signal.signal(number, self.on_other)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def sleep(self, seconds: "float | None") -> None:
        """Wait for a signal, at most this long."""
        select.select([self.wake], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self.wake, 4096)

    def on_ask(self, *_: object) -> None:
        """Coloc (or Slurm, before the time limit) asks for a checkpoint."""
        now = time.monotonic()
        if self.asked is None or now - self.asked > self.args.patience:
            self.asked = now
            self.told.clear()

    def on_other(self, number: int, _: object) -> None:
        """Somebody signals the batch shell, which is the script for them."""
        if self.child is not None:
            kill(self.child.pid, number)

    def on_term(self, *_: object) -> None:
        """Slurm ends this run of the job."""
        self.ended = True

    def words(self) -> "list[str]":
        """The command line: the script with its own interpreter, so that it may lie where nothing can be executed."""
        script: str = self.args.script[0]
        rest: list[str] = self.args.script[1:]
        again = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
        if again and self.args.resume and "saved" in (self.job.facts() or {}):
            os.environ["COLOC_SCRIPT"] = script
            return ["/bin/sh", "-c", self.args.resume, "resume", *rest]
        with open(script, "rb") as file:
            interpreter = os.fsdecode(file.readline())[2:].strip().split(None, 1)
        more = shlex.split(self.args.resume_arg) if again and self.args.resume_arg else []
        return [*interpreter, script, *rest, *more]

    def pause(self) -> "float | None":
        """Seconds until something is to be looked at; None: until a signal comes."""
        if self.ended:
            return 1.0
        if self.asked is not None:
            return 0.25
        return 5.0 if self.watch or (self.args.checkpoint and self.args.interval) else None

    # -- while the script runs ---------------------------------------------------------------------------------------

    def look(self) -> None:
        """What there is to do now."""
        now = time.monotonic()
        if self.yielded is not None:
            self.remind(now)
            if now - self.yielded > self.args.patience:
                say("nobody took the GPUs: going on")
                self.asked = self.yielded = None
                self.told.clear()
            return
        self.save_by_command(now)
        saved = self.watch.complete() if self.watch else None
        if saved is not None:
            self.unsent = saved
            if self.args.ack == "file" and self.asked is not None and saved >= self.asked_at():
                self.give_way(saved)
                return
        if self.unsent is not None and now - self.reported >= PACE:
            self.job.record(saved=int(self.unsent))
            self.unsent, self.reported = None, now
        if self.asked is not None and self.args.send:
            self.deliver()

    def asked_at(self) -> float:
        """Unix seconds of the ask, and a second less: file times are coarse."""
        return time.time() - (time.monotonic() - (self.asked or 0.0)) - 1.0

    def save_by_command(self, now: float) -> None:
        """Run the checkpoint command when asked, or when its time has come; hear how it ended."""
        if not self.args.checkpoint:
            return
        if self.saver is not None:
            code = self.saver.poll()
            if code is None:
                return
            self.saver = None
            say(f"the checkpoint command ended with {code}")
            if code == 0 and self.asked is not None and self.args.ack == "command" and "command" in self.told:
                self.give_way(time.time())
            elif code == 0:
                self.unsent = time.time()
        periodic = self.args.interval and now - self.due >= self.args.interval
        if (self.asked is not None and "command" not in self.told) or (periodic and self.asked is None):
            self.due = now
            if self.asked is not None:
                self.told.add("command")
            env = dict(os.environ, COLOC_PID=str(self.top), COLOC_ASKED=str(int(self.asked is not None)))
            env["COLOC_PROGRAMS"] = " ".join(map(str, programs(self.top)[0]))
            self.saver = subprocess.Popen(["/bin/sh", "-c", self.args.checkpoint], env=env)

    def deliver(self) -> None:
        """Send the checkpoint signal to those that did not get it yet."""
        to, steps = self.args.to, False
        pids: list[int] = []
        if to == "program":
            pids, steps = programs(self.top)
        elif to in ("batch", "all"):
            pids = [self.top] + (below(self.top) if to == "all" else [])
        if steps or to in ("steps", "all") or to.startswith("step:"):
            step = os.environ["SLURM_JOB_ID"] + "." + to[5:] if to.startswith("step:") else self.job.ref
            if step not in self.told and self.job.run("scancel", "--signal=" + self.args.send, step) is not None:
                self.told.add(step)
                say(
                    "asked to save: {} to {}".format(
                        self.args.send, to if to.startswith("step:") else "the job's steps"
                    )
                )
        for pid in pids:
            if pid not in self.told:
                self.told.add(pid)
                say(f"asked to save: {self.args.send} to {name_of(pid)} (process {pid})")
                kill(pid, getattr(signal, "SIG" + self.args.send))

    def give_way(self, saved: "float | None") -> None:
        """Tell coloc that it may take the GPUs; `saved`: when the work was saved, None: nobody knows whether it was."""
        self.stamp = int(time.time())
        facts = {"yielded": self.stamp} if saved is None else {"yielded": self.stamp, "saved": int(saved)}
        say(
            "saved; coloc may take the GPUs"
            if saved is not None
            else "ended when asked to save; coloc may take the GPUs"
        )
        self.job.record(**facts)
        self.yielded = time.monotonic()
        self.unsent, self.reminders = None, list(REMINDERS)

    def remind(self, now: float) -> None:
        """Look whether the job's word still stands."""
        if self.reminders and self.yielded is not None and now - self.yielded > self.reminders[0]:
            self.reminders.pop(0)
            facts = self.job.facts()
            if facts is not None and facts.get("yielded") != str(self.stamp):
                self.job.record(yielded=self.stamp)

    # -- after its end -----------------------------------------------------------------------------------------------

    def over(self, code: int) -> int:
        """The script has ended: give way if that was the answer, else end as it did."""
        if self.asked is not None and not self.ended:
            if self.yielded is None and self.agreed(code):
                self.tidy()
                good = code == 0 or code in self.codes() or (self.watch and self.watch.look()[0] >= self.asked_at())
                good = good if self.saver is None else self.saver.wait() == 0  # saving from outside ended it
                self.give_way(time.time() if good else None)
            elif self.yielded is None and self.args.ack == "report":
                word = (self.job.facts() or {}).get("yielded", "")
                if word.isdigit() and int(word) >= int(self.asked_at()):
                    self.stamp, self.yielded = int(word), time.monotonic()
            if self.yielded is not None:
                return self.linger()
        return code

    def codes(self) -> "list[int]":
        """Exit codes that say "saved"; none: any."""
        return [int(word) for word in self.args.exits.split(",") if word]

    def agreed(self, code: int) -> bool:
        """Whether an end with this code, after the ask, means that the job gives way."""
        if self.codes():
            return code in self.codes()
        return self.args.ack == "exit" or (self.args.ack in ("file", "command") and code != 0)

    def tidy(self) -> None:
        """End what the script left running, as Slurm would: the next run must not meet it."""
        for number, wait in ((signal.SIGTERM, TIDY), (signal.SIGKILL, TIDY)):
            until = time.monotonic() + wait
            while below(os.getpid()) and time.monotonic() < until:
                for pid in below(os.getpid()):
                    kill(pid, number)
                time.sleep(0.2)
                reap(set())

    def linger(self) -> int:
        """Keep the job alive until Slurm requeues it: if it ended, Slurm would call it done."""
        while not self.ended:
            now = time.monotonic()
            self.remind(now)
            if now - (self.yielded or now) > self.args.patience:
                say("nobody took the GPUs: requeueing the job")
                self.job.run("scontrol", "requeue", self.job.ref)
                self.yielded = now
            self.sleep(0.5)
        return 0


def main(argv: "list[str]") -> int:
    """See the module."""
    if argv[:1] == ["checkpointed"]:
        return checkpointed(argv, os.environ.get("COLOC_SLURM_BIN", "/usr/bin"))
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default="/usr/bin", help="folder of Slurm's commands")
    parser.add_argument("--ask", default="USR1", type=lambda text: text.split(","), help="signals that ask the job")
    parser.add_argument("--send", default="", help="signal that asks the program; none: it is not signalled")
    parser.add_argument("--to", default="program", help="program, batch, steps, step:N or all")
    parser.add_argument("--ack", default="exit", choices=("exit", "report", "file", "requeue", "command"))
    parser.add_argument("--exits", default="", help="exit codes that mean `saved`; none: any")
    parser.add_argument("--files", default="", help="pattern of checkpoint files")
    parser.add_argument("--checkpoint", default="", help="command that saves")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds between two runs of that command")
    parser.add_argument("--resume", default="", help="command instead of the script after a requeue")
    parser.add_argument("--resume-arg", default="", help="arguments added to the script's after a requeue")
    parser.add_argument(
        "--patience",
        type=float,
        default=150.0,
        help="seconds after which a job that gave way and was not requeued requeues itself; if its program runs, it goes on",
    )
    args = parser.parse_args(argv[: argv.index("--")])
    args.script = argv[argv.index("--") + 1 :]
    adopt()
    folder = os.path.dirname(os.path.abspath(__file__))
    code = Runner(args).run()
    if os.path.basename(folder).startswith("coloc-job-"):
        shutil.rmtree(folder, ignore_errors=True)
    if code < 0:
        die_of(-code)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
