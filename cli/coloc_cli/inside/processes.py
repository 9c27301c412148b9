"""What the embedded program knows of processes and checkpoint files."""

import contextlib
import ctypes
import glob
import os
import signal
import time

STABLE = 1.5
"""Seconds for which a checkpoint must not change to count as complete."""
MOST_FILES = 20000
"""Files looked at in one look."""
SHELLS = frozenset(
    "sh bash dash zsh ksh mksh tcsh csh fish busybox env nice nohup time timeout stdbuf setsid numactl taskset".split()
)
"""Programs that only start others: what they started is asked, not they."""
PLAIN = frozenset("tee cat sleep tail head grep sed awk gawk mawk ts logger scontrol scancel squeue coloc".split())
"""Programs with nothing to save; ending `tee` would break the pipe of the one that saves."""


def families() -> "dict[int, list[int]]":
    """Children of every process."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", errors="replace") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                found.setdefault(int(fields[1]), []).append(int(name))
    return found


def name_of(pid: int) -> str:
    """Name of a process's program file, else what the process calls itself; empty when it is gone."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        pass
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def programs(top: int) -> "tuple[list[int], bool]":
    """The programs that a script runs now: the first below it that are no shells. And whether one of them is srun."""
    family, steps = families(), False
    found: list[int] = []
    waiting = [top]
    while waiting:
        pid = waiting.pop()
        name = name_of(pid)
        if name == "srun":
            steps = True
        elif name in SHELLS:
            waiting += family.get(pid, [])
        elif name and name not in PLAIN:
            found.append(pid)
    return sorted(found), steps


def below(top: int) -> "list[int]":
    """All processes below one."""
    family = families()
    found: list[int] = []
    waiting = [top]
    while waiting:
        children = family.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def kill(pid: int, number: int) -> None:
    """Send a signal; a process that is gone is no error."""
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def die_of(number: int) -> None:
    """End as the script did, so that Slurm tells the same."""
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    kill(os.getpid(), number)
    time.sleep(1)


def adopt() -> None:
    """Have processes that the script leaves behind become ours instead of init's, so that they can be ended."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def reap(keep: "set[int]") -> None:
    """Collect ended processes that became ours, but not those somebody waits for."""
    try:
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid in keep:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
    except OSError:
        pass


class Watch:
    """Looks for checkpoints that match a pattern; whole folders count as one. What is there at first is not new."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.known = self.look()
        self.fresh: tuple[float, tuple[float, int, int]] | None = None

    def look(self) -> "tuple[float, int, int]":
        """Newest change (Unix seconds), bytes and number of all files that match; zeros when there are none."""
        newest, size, count = 0.0, 0, 0
        for path in glob.iglob(self.pattern, recursive=True):
            for entry in [path, *(os.path.join(top, name) for top, _, names in os.walk(path) for name in names)]:
                try:
                    facts = os.stat(entry)
                except OSError:
                    continue
                newest, size, count = max(newest, facts.st_mtime), size + facts.st_size, count + 1
                if count >= MOST_FILES:
                    return newest, size, count
        return newest, size, count

    def complete(self) -> "float | None":
        """When a checkpoint was complete (Unix seconds) that was not told yet: it has not changed for a while. None: none."""
        seen, now = self.look(), time.monotonic()
        if seen == self.known or seen[2] == 0 or seen[0] <= self.known[0]:  # older ones were only removed
            self.known, self.fresh = seen, None
            return None
        if self.fresh is None or self.fresh[1] != seen:
            self.fresh = (now, seen)
            return None
        if now - self.fresh[0] < STABLE:
            return None
        self.known, self.fresh = seen, None
        return min(time.time(), seen[0])
