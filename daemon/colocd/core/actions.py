"""What a plan consists of. Adding an action type must break every place that forgot it (`assert_never`)."""

import msgspec


class Place(msgspec.Struct, frozen=True, kw_only=True, tag="place"):
    """Start a replica on these GPUs (by node); `victims` give theirs up first (none: the GPUs are free).

    `level`: what joins its GPUs on each node, the worst of them. `gpu_type`: gres type that names exactly these islands, where
    the site has one. `cost`: GPU-seconds lost.
    """

    service: str
    slot: int
    places: dict[str, int]
    level: str
    victims: tuple[str, ...] = ()
    gpu_type: str | None = None
    cost: float = 0.0
    closeness: str | None = None
    """What joins the nodes (`nvlink`, `leaf`, `block`, `any`), with those of the replica beside it; null: one node, alone."""
    beside: tuple[str, ...] = ()
    """Nodes of the replica of another service beside which it sits."""
    follows: str | None = None
    """`service/slot` of the replica of this plan beside which it starts: it has no victims of its own, the other's make room."""
    why: str = ""
    override: bool = False
    """An operator let this reclaim ignore the budgets."""
    emergency: bool = False
    """The load is there already and was not foreseen: its victims get the short grace."""
    moments: dict[str, float] = {}
    """Victims that are not told at once, but at a moment of their own: seconds after the plan's `at` (planned reclaims)."""
    latest: float | None = None
    """With `moments`: seconds after the plan's `at` at which all are told, whatever is waited for."""


class Hasten(msgspec.Struct, frozen=True, kw_only=True, tag="hasten"):
    """Tell the victims of a handover that waits for their moments now: its GPUs are needed."""

    service: str
    slot: int
    why: str = ""
    emergency: bool = False
    """As in Place."""


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain"):
    """End a replica gently."""

    service: str
    slot: int
    why: str = ""


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """Let Slurm start a held batch job; `nodes` pins it there (empty: anywhere)."""

    job: str
    nodes: tuple[str, ...] = ()
    why: str = ""


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag="hold"):
    """Take back a released batch job that has not started."""

    job: str
    why: str = ""


Action = Place | Hasten | Drain | Release | Hold


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was considered and not done, and why. `subject`: `job:17`, `service:chat`, `node:n1`."""

    subject: str
    text: str


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas a service needs, and why. `now`: to be running one lead time from now. `have`: those that serve or will."""

    service: str
    now: int
    have: int
    why: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Actions in the order in which they are to be carried out, notes on what is not done, and one sentence."""

    at: float
    actions: tuple[Action, ...] = ()
    needs: tuple[Need, ...] = ()
    notes: tuple[Note, ...] = ()
    summary: str = ""


def encode_plan(plan: Plan) -> bytes:
    """The plan as canonical JSON: same plan, same bytes."""
    return msgspec.json.format(msgspec.json.encode(plan, order="deterministic"), indent=2) + b"\n"
