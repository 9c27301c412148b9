"""Rows of the store as plain values. Times are Unix seconds (UTC); None is unknown or not yet."""

from enum import StrEnum
from typing import Any

import msgspec


class Outcome(StrEnum):
    """How an intended call to Slurm ended. OPEN: not settled yet (a crash may have come between)."""

    OPEN = "open"
    DONE = "done"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """One call to Slurm: written before the call under a unique key, settled after it."""

    key: str
    kind: str
    subject: str
    at: float
    payload: dict[str, Any] = msgspec.field(default_factory=dict)
    handover: int | None = None
    outcome: Outcome = Outcome.OPEN
    settled_at: float | None = None
    detail: str | None = None


class HandoverState(StrEnum):
    """States of a handover; order and events in docs/handover.md."""

    PLANNED = "planned"
    FENCED = "fenced"
    SIGNALLED = "signalled"
    CHECKPOINTED = "checkpointed"
    GRACE_EXPIRED = "grace-expired"
    REQUEUED = "requeued"
    FREED = "freed"
    PLACED = "placed"
    VERIFIED = "verified"
    RELEASED = "released"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"


OPEN_STATES = tuple(
    s for s in HandoverState if s not in (HandoverState.RELEASED, HandoverState.FAILED, HandoverState.ROLLED_BACK)
)


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """One handover. `places`: the GPU mask planned on each node; `got`: what Slurm gave. `id` 0: not stored yet.

    `data` is the state machine's own notebook (deadlines, plugs, marks of the victims), JSON only.
    """

    id: int = 0
    service: str
    slot: int
    places: dict[str, int]
    level: str
    victims: tuple[str, ...] = ()
    gpu_type: str | None = None
    state: HandoverState = HandoverState.PLANNED
    job: str | None = None
    got: dict[str, int] | None = None
    created_at: float
    updated_at: float
    why: str = ""
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class ReplicaRow(msgspec.Struct, frozen=True, kw_only=True):
    """One replica from placement to end. `state` as `colocd.core.view.ReplicaState`. Key: (service, slot).

    `places`: its GPUs by node. `node`: the one of them on which its script runs and serves.
    """

    service: str
    slot: int
    state: str
    job: str | None = None
    node: str | None = None
    places: dict[str, int] = msgspec.field(default_factory=dict)
    level: str | None = None
    since: float = 0.0
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class BatchJob(msgspec.Struct, frozen=True, kw_only=True):
    """What coloc remembers of a batch job; the planner sees it as `JobFacts`."""

    ref: str
    user: str
    name: str
    first_seen: float
    last_seen: float
    evictions: int = 0
    evicted_at: float | None = None
    released_at: float | None = None
    ever_released: bool = False
    retry_at: float | None = None
    ours: bool = False
    pinned: bool = False
    saved: float | None = None
    ended: str | None = None
    """Final Slurm state as the view names it; None: not ended."""
    tag: float | None = None
    """Least tag it can have in the fair queue: the clock's floor when it was first seen."""
    deaths: int = 0
    parked: str | None = None
    parked_at: float | None = None
    deadline: float | None = None
    answered: int = 0
    """How often it saved in time when it was told, and how often it was silent; `took`: see `JobFacts`."""
    silent: int = 0
    took: float | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One stay of a batch job on GPUs: from a start to its end or requeue. Key: (ref, started).

    `saved`: last checkpoint of this run, None: none was told of. `end` None: it goes on; else `done`, `failed`, `evicted` (by
    coloc), `requeued` (by itself or somebody else) or `gone` (Slurm forgot the job before its end was seen).
    """

    ref: str
    started: float
    user: str
    name: str
    gpus: int
    saved: float | None = None
    ended: float | None = None
    end: str | None = None


class LoadSample(msgspec.Struct, frozen=True, kw_only=True):
    """Load of a service at a time. `value` None is a hole, kept as a hole."""

    service: str
    at: float
    value: float | None


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What coloc has learned of a service on a topic (`capacity`, `lead`, `rises`); `data` is the topic's own, JSON only."""

    service: str
    topic: str
    at: float
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class ServiceRow(msgspec.Struct, frozen=True, kw_only=True):
    """An applied service file. `spec` is the JSON of `ServiceSpec`."""

    name: str
    spec: str
    applied_at: float
    removed: bool = False
    data: dict[str, Any] = msgspec.field(default_factory=dict)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One explained decision. `subject`: `job:17`, `service:chat`, `handover:3`, `node:n1`, `coloc`."""

    at: float
    subject: str
    kind: str
    text: str
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    id: int = 0
