"""What pyslurm tells of jobs, nodes, partitions, reservations, turned into coloc's own. Pure; fields: `helper/__main__.py`."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from colocd.core.comment import parse_comment, parse_request
from colocd.core.view import Held, Job, JobState, Node
from colocd.slurm import values
from colocd.slurm.nodes import is_up
from colocd.slurm.port import Partition, Reservation
from colocd.slurm.rows import HOLDING, STATES, Row

_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
MOST_TASKS = 1_000_000


class RawJob(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A job as pyslurm has it. Times are Unix seconds, the limit minutes.

    `zero`: its priority is 0. `gpus`: on each node; 0: none, or not asked for like that. `dependency`: as squeue tells it.
    """

    id: int
    array_id: int | None
    task: int | None
    waiting: str | None
    name: str | None
    user: str | None
    uid: int | None
    state: str | None
    reason: str | None
    partition: str | None
    restarts: int | None
    submitted: int | None
    started: int | None
    ends: int | None
    time_limit: int | None
    nodes: int | None
    cpus: int | None
    tasks: int | None
    allocated: str | None
    required: str | None
    reservation: str | None
    comment: str | None
    qos: str | None
    eligible: int | None
    zero: bool
    gpus: int
    dependency: str


class RawNode(msgspec.Struct, array_like=True, frozen=True):
    """A node as pyslurm has it; `gres` in the order of slurm.conf."""

    name: str
    address: str | None
    state: str | None
    gres: dict[str, Any]
    partitions: list[str]
    cpus: int | None
    cpus_used: int | None


class RawPartition(msgspec.Struct, array_like=True, frozen=True):
    """A partition as pyslurm has it."""

    name: str
    state: str | None
    tier: int | None
    nodes: str | None
    preempt: str | None
    sharing: str | None
    no_root_jobs: bool
    """What pyslurm 25.11 calls `allow_root_jobs` is the flag that forbids them."""


class RawReservation(msgspec.Struct, array_like=True, frozen=True):
    """A reservation as pyslurm has it."""

    name: str
    nodes: str | None
    users: list[str]
    starts: int | None
    ends: int | None
    active: bool


class Request(NamedTuple):
    """GPUs asked for in all, and on each node (None: Slurm decides)."""

    total: int
    per_node: int | None


def refs_of(raw: RawJob) -> tuple[str, ...]:
    """The job's id, or those of its array tasks: of one that has a record of its own, or of all that wait in one record."""
    if raw.array_id is None:
        return (str(raw.id),)
    if raw.waiting is None:  # pyslurm tells task 0 as None
        return (f"{raw.array_id}_{raw.task or 0}",)
    return tuple(f"{raw.array_id}_{task}" for task in tasks_in(raw.waiting))


def tasks_in(text: str) -> tuple[int, ...]:
    """The tasks of `1-3,7,10-20:5%2`; what makes no sense is left out."""
    found: list[int] = []
    for part in text.partition("%")[0].split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            continue
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last - first < MOST_TASKS and step > 0:
            found += range(first, last + 1, step)
    return tuple(found)


def rows_of(raw: RawJob, request: Request) -> tuple[Row, ...]:
    """The job as rows, one for each array task, without GPU indices."""
    state = STATES.get(raw.state or "", JobState.OTHER)
    waits, ended = state is JobState.PENDING, state in (JobState.DONE, JobState.FAILED)
    limit = None if raw.time_limit is None or raw.time_limit * 60.0 >= values.YEAR else raw.time_limit * 60.0
    comment = raw.comment or ""
    held = Held.NO
    if waits and raw.zero:
        held = Held.USER if raw.reason == "JobHeldUser" else Held.ADMIN
    nodes = values.names(raw.allocated or "") if state in HOLDING else ()
    job = Job(
        ref="",
        user=raw.user or "",
        uid=raw.uid,
        name=raw.name or "",
        partition=raw.partition or "",
        state=state,
        reason=values.word(raw.reason or ""),
        gpus_requested=request.total,
        gpus_per_node=request.per_node,
        nodes_requested=max(1, raw.nodes or 1),
        cpus_requested=raw.cpus or 1,
        submitted=_float(raw.submitted),
        started=None if waits else _float(raw.started),
        ends=_float(raw.ends) if ended or (not waits and limit is not None) else None,
        time_limit=limit,
        restarts=raw.restarts or 0,
        held=held,
        required_nodes=values.names(raw.required or ""),
        reservation=values.word(raw.reservation or ""),
        comment=comment,
        qos=values.word(raw.qos or ""),
        checkpoint=parse_comment(comment),
        request=parse_request(comment),
        dependency=values.dependency(raw.dependency) if waits else None,
        begins=None if held is Held.NO else _float(raw.eligible),
    )
    return tuple(Row(str(raw.id), nodes, msgspec.structs.replace(job, ref=ref)) for ref in refs_of(raw))


def node_of(raw: RawNode, used: int | None, fences: Mapping[str, str], taken: Collection[str]) -> Node:
    """The node; `used` is what it says of its GPUs (scontrol tells it, pyslurm does not)."""
    types: list[str] = []
    for name, count in raw.gres.items():
        kind, _, rest = name.partition(":")
        if kind == "gpu" and isinstance(count, int):
            types += [rest] * count
    mask = used if types else 0
    return Node(
        name=raw.name,
        address=raw.address or raw.name,
        up=is_up(raw.state or ""),
        gpus=len(types),
        used=None if mask is None or mask >> len(types) else mask,
        types=tuple(types),
        state=raw.state or "",
        partitions=tuple(raw.partitions),
        cpus=raw.cpus,
        cpus_used=raw.cpus_used,
        fence=fences.get(raw.name),
        reserved=raw.name in taken,
    )


def partitions_of(found: Sequence[RawPartition]) -> tuple[Partition, ...]:
    """The partitions; `preempt` is None where preemption is off."""
    return tuple(
        Partition(
            name=p.name,
            up=p.state == "UP",
            tier=p.tier or 0,
            nodes=values.names(p.nodes or ""),
            exclusive=p.sharing == "EXCLUSIVE",
            root_jobs=not p.no_root_jobs,
            preempt=None if p.preempt in (None, "OFF") else p.preempt,
        )
        for p in found
    )


def reservations_of(found: Sequence[RawReservation]) -> tuple[tuple[Reservation, bool], ...]:
    """The reservations, each with whether it is active now."""
    return tuple(
        (
            Reservation(
                name=r.name,
                nodes=values.names(r.nodes or ""),
                users=tuple(r.users),
                starts=_float(r.starts),
                ends=_float(r.ends),
            ),
            r.active,
        )
        for r in found
    )


def _float(moment: int | None) -> float | None:
    return None if moment is None else float(moment)
