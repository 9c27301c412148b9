"""The processes of one cluster: found by pid file and by what /proc says of them, never by name alone."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from colocd.clock import Clock


class Process(msgspec.Struct, frozen=True):
    """A live process as /proc shows it; `environ` and `folder` (where it is) are empty when it belongs to somebody else."""

    pid: int
    parent: int
    argv: tuple[str, ...]
    environ: frozenset[str]
    folder: str = ""


def _words(path: Path) -> tuple[str, ...]:
    try:
        return tuple(word.decode("utf-8", "replace") for word in path.read_bytes().split(b"\0") if word)
    except OSError:
        return ()


def _folder(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def look(pid: int) -> Process | None:
    """The process; None: there is none, or it has ended and only waits for its parent."""
    folder = Path("/proc") / str(pid)
    try:
        state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    if state in "ZX":
        return None
    return Process(pid, int(parent), _words(folder / "cmdline"), frozenset(_words(folder / "environ")), _folder(pid))


def every() -> Iterator[Process]:
    """All live processes."""
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := look(int(entry))) is not None:
            yield found


def of_pid_file(path: Path, mention: str) -> int | None:
    """The pid in the file, if that process lives and its command line mentions `mention` (a pid may be used again)."""
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return None
    found = look(pid)
    return pid if found is not None and any(mention in word for word in found.argv) else None


def of_cluster(base: str, node: str | None = None) -> dict[int, Process]:
    """Daemons, steps and job processes of the cluster whose files lie in `base`; with `node`, only that node's.

    A process is the cluster's when it is a Slurm or munge daemon started with the cluster's files, a step daemon, a
    process in a job, or a descendant of one of those. A shell that merely has SLURM_CONF set is not.
    """
    table = {process.pid: process for process in every()}
    conf = f"SLURM_CONF={base}/slurm.conf"

    def member(process: Process) -> bool:
        words = " ".join(process.argv)
        name = os.path.basename(process.argv[0]) if process.argv else ""
        if name in ("slurmctld", "slurmd", "munged", "mariadbd"):
            mine = f"{base}/" in words
            return mine and (node is None or process.argv[-2:] == ("-N", node))
        if name == "slurmdbd":  # it takes no file, only the environment
            return node is None and conf in process.environ
        step = words.startswith("slurmstepd: ")
        # 26.05 starts step daemons without an environment; they stay in the folder of slurmd's log
        if conf not in process.environ and not (step and f"{base}/log" in process.folder):
            return False
        if step:
            return node is None or any(
                f"SLURMD_NODENAME={node}" in child.environ for child in table.values() if child.parent == process.pid
            )
        job = any(word.startswith("SLURM_JOB_ID=") for word in process.environ)
        place = f"SLURMD_NODENAME={node}" if node is not None else ""
        return job and (node is None or place in process.environ)

    found = {pid: process for pid, process in table.items() if member(process)}
    grown = True
    while grown:
        more = {pid: p for pid, p in table.items() if pid not in found and p.parent in found}
        found.update(more)
        grown = bool(more)
    for pid in _ancestors(os.getpid(), table):
        found.pop(pid, None)
    return found


def _ancestors(pid: int, table: dict[int, Process]) -> Iterator[int]:
    """The process itself and those above it: a cluster taken down from inside its own job must not end its caller."""
    while pid in table:
        yield pid
        pid = table[pid].parent


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal; processes that have gone are no error."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_for(done: Callable[[], bool], seconds: float, clock: Clock, step: float = 0.02) -> bool:
    """Poll until `done()` or the time is over; False: it is over."""
    end = clock.monotonic() + seconds
    while not done():
        if clock.monotonic() >= end:
            return False
        clock.sleep(step)
    return True


def end(pids: Iterable[int], seconds: float, clock: Clock) -> None:
    """End processes: TERM (and CONT, should they be stopped), then KILL for those that are still there."""
    left = list(pids)
    send(left, signal.SIGTERM)
    send(left, signal.SIGCONT)
    if not wait_for(lambda: not any(look(pid) for pid in left), seconds, clock):
        send([pid for pid in left if look(pid)], signal.SIGKILL)
        wait_for(lambda: not any(look(pid) for pid in left), 5.0, clock)
