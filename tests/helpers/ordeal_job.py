"""A batch job of the evictions test: counts steps, saves, misbehaves as told. Standard library only; runs inside of Slurm jobs.

    ordeal_job.py FOLDER STEPS MODE      MODE: see `MODES`

FOLDER holds `journal` (a line a step: run, step), `starts` (run, step it goes on from), `checkpoint`, `finished`, `violations`
(another one that works on the same folder was alive) and `lock` (who works: job, host, process).
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time

PAUSE = 0.05
SAVES_EVERY = 10
"""Steps between two saves of those that nobody need ask, or that do not listen."""
MODES = ("report", "exit", "exit85", "file", "requeue", "command", "deaf", "dies", "forks", "liar", "huge")


class Job:
    """One run. `asked` is set by the signals the mode listens to."""

    def __init__(self, folder: str, steps: int, mode: str) -> None:
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
        self.steps, self.mode, self.asked = steps, mode, False
        self.run = os.environ.get("SLURM_RESTART_COUNT", "0")
        self.lock = open("lock", "a+")  # noqa: SIM115 -- held to the end
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.seek(0)
            with open("violations", "a") as file:
                file.write(f"run {self.run} met {self.lock.read()!r}\n")
        self.lock.truncate(0)
        self.lock.write(f"{os.environ.get('SLURM_JOB_ID')} {socket.gethostname()} {os.getpid()}\n")
        self.lock.flush()
        self.step = 0
        if os.path.exists("checkpoint"):
            with open("checkpoint") as file:
                self.step = int(file.read())
        with open("starts", "a") as file:
            file.write(f"{self.run} {self.step}\n")

    def save(self) -> None:
        """Whole or not at all."""
        with open("checkpoint.new", "w") as file:
            file.write(str(self.step))
        os.replace("checkpoint.new", "checkpoint")

    def listen(self) -> None:
        """Signals by mode; handlers set a flag."""
        ask = {"exit": "TERM", "exit85": "TERM", "huge": "TERM", "dies": None, "forks": "TERM", "command": "USR2"}
        name = ask.get(self.mode, "USR1")
        if name is not None:
            handler = signal.SIG_IGN if self.mode == "deaf" else lambda *_: setattr(self, "asked", True)
            signal.signal(getattr(signal, "SIG" + name), handler)

    def answer(self) -> None:
        """What the mode does when it is asked; most end or wait here."""
        self.asked = False
        if self.mode == "liar":
            tell(f"yielded={int(time.time())} saved={int(time.time()) * 3} interval=1e300 cost=-7 grace=x")
            return  # and works on without having saved
        self.save()
        if self.mode in ("exit", "huge", "forks"):
            os._exit(0)
        if self.mode == "exit85":
            os._exit(85)
        if self.mode == "report":
            subprocess.run(["coloc", "checkpointed", "--yield"], check=False)
        elif self.mode == "requeue":
            subprocess.run(["scontrol", "requeue", ref()], check=False)
        if self.mode in ("report", "requeue"):
            time.sleep(600)

    def work(self) -> None:
        """All steps that are left."""
        with open("journal", "a", buffering=1) as journal:
            while self.step < self.steps:
                time.sleep(PAUSE)
                self.step += 1
                journal.write(f"{self.run} {self.step}\n")
                if self.asked:
                    self.answer()
                elif self.mode in ("deaf", "dies", "liar") and self.step % SAVES_EVERY == 0:
                    self.save()
        with open("finished", "w") as file:
            file.write(str(self.step))


def ref() -> str:
    """This job as Slurm's commands take it."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def tell(words: str) -> None:
    """A mark full of nonsense."""
    subprocess.run(["scontrol", "update", f"jobid={ref()}", f"comment=[coloc v=1 signal=USR1 {words}]"], check=False)


def fork_away(folder: str, steps: int) -> None:
    """The work is done by a process of a session of its own that listens to nothing; the parent ends when it is asked."""
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        job = Job(folder, steps, "deaf")
        job.work()
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while not os.path.exists(os.path.join(folder, "finished")):
        time.sleep(0.1)


def main() -> None:
    """See the module."""
    folder, steps, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if "SLURM_ARRAY_TASK_ID" in os.environ:
        folder += "-" + os.environ["SLURM_ARRAY_TASK_ID"]
    if os.environ.get("SLURM_STEP_ID") and os.environ.get("SLURM_PROCID", "0") != "0":
        folder += "-rank" + os.environ["SLURM_PROCID"]
    if os.path.exists(os.path.join(folder, "finished")):
        return
    if mode == "forks":
        fork_away(folder, steps)
        return
    job = Job(folder, steps, mode)
    job.listen()
    job.work()


if __name__ == "__main__":
    main()
