"""Calls pyslurm for colocd. Stand-alone: the standard library and pyslurm only, any Python that has pyslurm.

pyslurm is GPL-2.0, holds the GIL for as long as slurmctld hangs, and some of its calls end the process: so it lives here, and
colocd keeps going (docs/adr on pyslurm). Frames go over standard input and output: four bytes of length, most significant
first, then JSON. A request is `{"call": NAME, …}`, an answer `{"ok": VALUE}` or `{"error": [[ERRNO, TEXT], …], "done": COUNT}`.
Calls on several jobs go on after a refusal, and stop when Slurm cannot be reached. Whatever the libraries print goes to
standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import operator
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

JOB = (
    *(
        "id",
        "array_id",
        "array_task_id",
        "array_tasks_waiting",
        "name",
        "user_name",
        "user_id",
        "state",
        "state_reason",
    ),
    *("partition", "requeue_count", "submit_time", "start_time", "end_time", "time_limit", "num_nodes"),
    *("cpus", "ntasks", "allocated_nodes", "required_nodes", "reservation", "comment", "qos", "eligible_time"),
)
_UID, _USER = JOB.index("user_id"), JOB.index("user_name")
# user_id in the place of user_name, too
_FIELDS = operator.attrgetter(*("user_id" if field == "user_name" else field for field in JOB))
NODE = ("name", "address", "state", "configured_gres", "partitions", "effective_cpus", "allocated_cpus")
PARTITION = ("name", "state", "priority_tier", "nodes", "preempt_mode", "oversubscribe", "allow_root_jobs")
RESERVATION = ("name", "nodes", "users", "start_time", "end_time", "is_active")
UNREACHABLE = (*range(1000, 2000), *range(5000, 7000))
"""Slurm's error numbers for connections, sockets and authentication."""


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next request; None: colocd has gone."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    size = struct.unpack(">I", head)[0]
    found: dict[str, Any] = json.loads(stream.read(size))
    return found


def write_frame(stream: BinaryIO, value: object) -> None:
    """Send an answer."""
    data = json.dumps(value).encode()
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def value_of(thing: Any, field: str) -> Any:
    """A property; text that is not UTF-8 is told as a question mark."""
    try:
        value = getattr(thing, field)
    except UnicodeDecodeError:
        return "?"
    return value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)


def gpus_per_node(job: Any) -> int:
    """GPUs that a job asks for on each node; 0: none, or asked for in another way, which pyslurm does not tell."""
    total = 0
    for name, count in job.gres_per_node.items():
        words = name.replace("/", ":").split(":")
        if "gpu" in words:
            total += int(count)
    return total


def dependency(job: Any) -> str:
    """What a job depends on, as squeue tells it; empty: nothing. `singleton` pyslurm reads as no condition at all."""
    try:
        found = job.dependencies
    except Exception:  # a kind that this pyslurm does not know: as if nothing were known of it
        return ""
    if not found:
        return ""
    items = [f"{kind}:{item}" for kind, told in found.items() if isinstance(told, list) for item in told]
    return ("?" if found.get("satisfy") == "any" else ",").join(items) or "singleton(unfulfilled)"


class Calls:
    """The calls, by name. `slurm` is the module pyslurm."""

    def __init__(self, slurm: Any) -> None:
        self.slurm = slurm
        self._users: dict[Any, Any] = {}
        self._errno: Any = getattr(ctypes.CDLL(None), "__errno_location", None)  # the GNU C library has it
        if self._errno is not None:
            self._errno.restype = ctypes.POINTER(ctypes.c_int)

    def clear(self) -> None:
        """Forget an old error number: pyslurm takes the one that is there for the outcome of kill and signal."""
        if self._errno is not None:
            self._errno()[0] = 0

    def hello(self) -> dict[str, Any]:
        """What is here."""
        return {"pyslurm": self.slurm.__version__, "pid": os.getpid()}

    def all_jobs(self) -> list[Any]:
        """All jobs; the waiting tasks of an array are one."""
        return [self._job(job) for job in self.slurm.Jobs.load().values()]

    def jobs(self, ids: list[int]) -> list[Any]:
        """Jobs by id; those that Slurm does not know are left out."""
        found = []
        for ref in ids:
            try:
                found.append(self._job(self.slurm.Job.load(ref)))
            except self.slurm.RPCError as error:
                if "Invalid job id" not in str(error):
                    raise
        return found

    def _job(self, job: Any) -> list[Any]:
        try:
            values = list(_FIELDS(job))
        except UnicodeDecodeError:
            values = [value_of(job, field) for field in JOB]
        # the user's name is looked up once and not for each job
        uid = values[_UID]
        if uid not in self._users:
            self._users[uid] = value_of(job, "user_name")
        values[_USER] = self._users[uid]
        # of the priority, which Slurm raises all the time, only whether it is 0: then the job is held
        return [*values, job.priority == 0, gpus_per_node(job), dependency(job)]

    def nodes(self) -> list[Any]:
        """All nodes."""
        return [[value_of(n, field) for field in NODE] for n in self.slurm.Nodes.load().values()]

    def partitions(self) -> list[Any]:
        """All partitions."""
        return [[value_of(p, field) for field in PARTITION] for p in self.slurm.Partitions.load().values()]

    def reservations(self) -> list[Any]:
        """All reservations."""
        return [[value_of(r, field) for field in RESERVATION] for r in self.slurm.Reservations.load().values()]

    def submit(self, job: dict[str, Any], environment: dict[str, str]) -> int:
        """Submit a job; its id."""
        # pyslurm adds all SLURM_* of this process to the job's environment
        mine = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("SLURM_")}
        try:
            return int(self.slurm.JobSubmitDescription(**job, environment=environment).submit())
        finally:
            os.environ.update(mine)

    def hold(self, ids: list[int]) -> None:
        """Hold as an operator."""
        self._each(ids, lambda ref: self.slurm.Job(ref).hold())

    def release(self, ids: list[int]) -> None:
        """Release."""
        self._each(ids, lambda ref: self.slurm.Job(ref).release())

    def requeue(self, ids: list[int], hold: bool) -> None:
        """Requeue, and hold in the same call."""
        self._each(ids, lambda ref: self.slurm.Job(ref).requeue(hold=hold))

    def cancel(self, ids: list[int]) -> None:
        """Cancel; ended jobs are no error."""
        self._each(ids, lambda ref: self.slurm.Job(ref).cancel())

    def signal(self, ids: list[int], name: str, steps: str) -> None:
        """Signal running jobs."""
        self._each(ids, lambda ref: self._signal(ref, name, steps))

    def _signal(self, ref: int, name: str, steps: str) -> None:
        """To running jobs; those that wait get none."""
        job = self.slurm.Job.load(ref)
        if job.state in ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING"):
            self.clear()
            job.send_signal(name, steps=steps)
        elif job.state not in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT"):
            raise ValueError(f"job {ref} has ended")

    def update(self, ref: int, changes: dict[str, Any]) -> None:
        """Change a job."""
        self.slurm.Job(ref).modify(self.slurm.JobSubmitDescription(**changes))

    def _each(self, ids: list[int], act: Callable[[int], object]) -> None:
        errors = []
        done = 0
        for ref in ids:
            self.clear()
            try:
                act(ref)
                done += 1
            except Exception as error:
                errors.append(told(error))
                if errors[-1][0] in UNREACHABLE:
                    break
        if errors:
            raise Several(errors, done)


class Several(Exception):
    """Errors of a call on several jobs."""

    def __init__(self, errors: list[Any], done: int) -> None:
        super().__init__(errors)
        self.errors, self.done = errors, done


def told(error: Exception) -> list[Any]:
    """An error as [number, text]; 0: none of Slurm's."""
    number = getattr(error, "errno", None)
    return [number if isinstance(number, int) else 0, str(error) or type(error).__name__]


def serve(calls: Calls, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until colocd has gone."""
    while (request := read_frame(requests)) is not None:
        name = request.pop("call")
        try:
            calls.clear()
            answer: dict[str, Any] = {"ok": getattr(calls, name)(**request)}
        except Several as error:
            answer = {"error": error.errors, "done": error.done}
        except Exception as error:
            answer = {"error": [told(error)], "done": 0}
        write_frame(answers, answer)


def main() -> None:
    """Keep the pipe to colocd for answers alone, load pyslurm, serve."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import pyslurm
    except ImportError as error:
        write_frame(answers, {"error": [[0, f"pyslurm cannot be imported: {error}"]], "done": 0})
        return
    with contextlib.suppress(BrokenPipeError):
        serve(Calls(pyslurm), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
