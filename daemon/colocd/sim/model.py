"""Mutable records of the virtual cluster and how they look through the port."""

import re
from dataclasses import dataclass, field
from typing import Any

from coloc_topology.shape import Shape
from colocd.core.comment import parse_comment, parse_request
from colocd.core.view import Held, Job, JobState, Node
from colocd.sim.gpus import Socket
from colocd.sim.program import Program, Work
from colocd.slurm.port import Reservation, Submission

ENDED = frozenset({JobState.DONE, JobState.FAILED})


@dataclass(slots=True, eq=False)
class VJob:
    """One job or array task. Times are Unix seconds; `eligible` is monotonic."""

    ref: str
    number: int
    order: int
    sub: Submission
    user: str
    uid: int
    program: Program
    submitted: float
    nodes_wanted: int
    comment: str
    requeue: bool
    required: tuple[str, ...]
    reservation: str | None
    nice: int = 0
    excluded: tuple[str, ...] = ()
    state: JobState = JobState.PENDING
    held: Held = Held.NO
    reason: str | None = None
    eligible: float = 0.0
    started: float | None = None
    ended: float | None = None
    restarts: int = 0
    gpus: dict[str, int] = field(default_factory=dict)
    cores: dict[str, int] = field(default_factory=dict)
    nodes: tuple[str, ...] = ()
    """Where it runs, or still dies."""
    run: int = 0
    """Counts state changes; an event made for an older run is void."""
    saving: bool = False
    yielded: bool = False
    """It has saved and waits for its GPUs to be taken."""
    after: str = ""
    """What follows COMPLETING: `requeue`, or the reason of a final end."""
    exit_code: int = 0
    work: Work = field(default_factory=Work)
    queued: tuple[object, ...] | None = None
    """The scheduler's class it waits in; None: not waiting."""
    shown: Job | None = None
    wanted: tuple[Any, ...] = ()
    """What it still waits for (`sim.depends.Wanted`); with `either` one of them is enough."""
    either: bool = False
    dependency: str | None = None
    """The same in Slurm's words."""
    hopeless: bool = False
    """What it waits for cannot come true any more."""
    begins: float | None = None
    """Its user's begin time."""

    def show(self) -> Job:
        """The job as the port tells it."""
        if self.shown is None:
            self.shown = self._show()
        return self.shown

    def record(self) -> str:
        """What else it asks, in scontrol's words, as far as sbatch's options tell it."""
        options = self.sub.options
        alone = "NO" if "--exclusive" in options else "OK"
        told = {
            "ExcNodeList": option(options, "exclude"),
            "Features": option(options, "constraint"),
            "OverSubscribe": alone,
        }
        return " ".join([f"JobId={self.ref}", *(f"{key}={value or '(null)'}" for key, value in told.items())])

    def _show(self) -> Job:
        sub = self.sub
        ends = self.ended
        limit = None if sub.time_limit is None else minutes(sub.time_limit) * 60.0
        if self.state is JobState.RUNNING and self.started is not None and limit is not None:
            ends = self.started + limit
        return Job(
            ref=self.ref,
            user=self.user,
            name=sub.name,
            partition=sub.partition,
            state=self.state,
            reason=self.reason,
            # Slurm 22.05 blanks the indices as soon as a job completes, before its processes have gone.
            gpus=None if self.state is JobState.COMPLETING and sub.gpus else dict(self.gpus),
            gpus_requested=sub.gpus * self.nodes_wanted,
            gpus_per_node=sub.gpus if sub.gpus or self.nodes_wanted == 1 else None,
            nodes_requested=self.nodes_wanted,
            cpus_requested=sub.cpus * self.nodes_wanted,
            submitted=self.submitted,
            started=self.started,
            ends=ends,
            time_limit=limit,
            restarts=self.restarts,
            held=self.held if self.state is JobState.PENDING else Held.NO,
            required_nodes=self.required,
            reservation=self.reservation,
            comment=self.comment,
            checkpoint=parse_comment(self.comment),
            request=parse_request(self.comment),
            uid=self.uid,
            dependency=self.dependency if self.state is JobState.PENDING else None,
            begins=self.begins if self.state is JobState.PENDING and self.held is not Held.NO else None,
        )


@dataclass(slots=True, eq=False)
class VNode:
    """One node: what it has and what is given out."""

    name: str
    shape: Shape
    cpus: int
    types: tuple[str, ...]
    partitions: tuple[str, ...]
    sockets: tuple[Socket, ...]
    used: int = 0
    cores_used: int = 0
    dying: int = 0
    """Jobs that are completing here. Slurm counts their GPUs as free, and starts nothing on the node until they are gone."""
    down: bool = False
    drained: bool = False
    reservation: Reservation | None = None

    @property
    def cpus_used(self) -> int:
        """Cores given out."""
        return self.cores_used.bit_count()

    @property
    def up(self) -> bool:
        """Whether jobs can start here."""
        return not (self.down or self.drained)

    def free(self, gpu_type: str | None) -> int:
        """Mask of the free GPUs of a type (None: of any)."""
        mask = self.shape.all & ~self.used
        if gpu_type is None:
            return mask
        return sum(1 << i for i, name in enumerate(self.types) if name == gpu_type and mask >> i & 1)

    def show(self) -> Node:
        """The node as the port tells it."""
        resv = self.reservation
        state = "allocated" if self.cpus_used >= self.cpus else "mixed" if self.cpus_used else "idle"
        flags = ("+drain" if self.drained else "") + ("+completing" if self.dying else "")
        ours = resv is not None and resv.name.startswith("coloc-")
        return Node(
            name=self.name,
            address=self.name,
            up=self.up,
            gpus=self.shape.gpus,
            used=self.used,
            shape=self.shape.name,
            types=self.types,
            state="down" if self.down else state + flags,
            partitions=self.partitions,
            cpus=self.cpus,
            cpus_used=self.cpus_used,
            fence=resv.name if resv is not None and ours else None,
            reserved=resv is not None and not ours,
        )


def minutes(seconds: float) -> int:
    """Slurm's time limits are whole minutes, rounded up."""
    return max(1, int(-(-seconds // 60)))


def array_tasks(options: tuple[str, ...]) -> tuple[int, ...] | None:
    """Task numbers of `--array=`; None: no array. Raises `ValueError` when it cannot be read."""
    text = option(options, "array")
    if text is None:
        return None
    tasks: set[int] = set()
    for part in text.partition("%")[0].split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if found is None:
            raise ValueError(text)
        first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
        tasks.update(range(first, last + 1, step))
    return tuple(sorted(tasks))


def option(options: tuple[str, ...], name: str) -> str | None:
    """Value of the last `--name=value` among sbatch options; None: not given."""
    found = [word.partition("=")[2] for word in options if word.startswith(f"--{name}=")]
    return found[-1] if found else None
