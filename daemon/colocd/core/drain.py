"""Which replica goes when there are too many: the one whose loss costs least.

Its loss costs the work in flight (requests that have to end or move) and the warm cache that would have to be built again
(probability that it is used again, times how much of it there is); it is worth something where its GPUs complete an island.
"""

from coloc_topology.shape import Level
from colocd.core.actions import Action, Drain, Need, Note
from colocd.core.ground import Ground
from colocd.core.need import carried, counted, lead_time, needed
from colocd.core.view import Replica, ReplicaState, ServiceView, View

UNKNOWN_WARMTH = 0.5
"""Of a cache of which nothing is told: neither warm nor cold."""
ISLAND = 0.5
"""Worth of a whole node that is freed, in loads that one replica carries."""


def drains(service: ServiceView, wanted: Need, view: View, land: Ground) -> tuple[list[Action], list[Note]]:
    """Drains of the replicas that are not needed now nor soon, once the load has been low for long enough."""
    spec, policy = service.spec, view.policy
    subject = f"service:{spec.name}"
    over = wanted.have - wanted.now
    if over <= 0:
        return [], []
    if not service.removed:
        # What a planned reclaim would fetch again soon is not drained before.
        beyond = max(policy.scale_down_after, policy.plan_ahead)
        soon = needed(service, policy, view.at, lead_time(service) + beyond, policy.peak_quantile)
        if soon is None:
            return [], []
        over = wanted.have - soon
        low_for = None if service.low_since is None else view.at - service.low_since
        if over > 0 and (low_for is None or low_for < policy.scale_down_after):
            left = policy.scale_down_after - (low_for or 0.0)
            text = f"has {over} replicas more than it needs; waits another {left:.0f} s before it drains them"
            return [], [Note(subject=subject, text=text)]
    able = [r for r in counted(service) if r.state is not ReplicaState.PLACING]
    young = [] if service.removed else [r for r in able if stays(r, view) > 0]
    old = [r for r in able if r not in young]
    candidates = sorted(old, key=lambda r: _order(r, service, view, land))[: max(0, over)]
    notes = []
    if len(candidates) < over and young:
        left = min(stays(r, view) for r in young)
        text = f"has {over} replicas more than it needs; {len(young)} are too new to drain, the first for another {left:.0f} s"
        notes.append(Note(subject=subject, text=text))
    why = wanted.why if service.removed else f"{wanted.why}; needs {wanted.now}, has {wanted.have}"
    told = "" if len(able) < 2 or service.removed else "; it costs least to lose"
    return [
        Drain(service=spec.name, slot=r.slot, why=f"{why}{told and f'{told}: {_words(r, service, view, land)}'}")
        for r in candidates
    ], notes


def stays(replica: Replica, view: View) -> float:
    """Seconds for which the replica is too new to be drained; 0: it may be, or its age is not known."""
    return 0.0 if replica.since is None else max(0.0, replica.since + view.policy.min_stay - view.at)


def _order(replica: Replica, service: ServiceView, view: View, land: Ground) -> tuple[object, ...]:
    """Replicas that do not serve yet first, then the cheapest to lose (of unknown load last), then the highest slot."""
    cost = in_flight(replica, service) + warmth(replica) - ISLAND * frees(replica, land) / max(1, _gpus(replica, land))
    return (replica.state is ReplicaState.READY, replica.load is None, round(cost, 6), -replica.slot)


def in_flight(replica: Replica, service: ServiceView) -> float:
    """The replica's load as a share of what one carries; an unknown one counts as full."""
    return 1.0 if replica.load is None else replica.load / carried(service)


def warmth(replica: Replica) -> float:
    """What its cache is worth, 0 to 1: share of prompt tokens that are found there, times how much of it is in use."""
    if replica.hits is None:
        return UNKNOWN_WARMTH
    return replica.hits * (1.0 if replica.kv_use is None else replica.kv_use)


def frees(replica: Replica, land: Ground) -> int:
    """GPUs of the largest island of each of its nodes that would be wholly free without it; 0: none, or nothing is known."""
    total = 0
    for name, gpus in replica.places.items():
        row = land.index.row.get(name)
        if row is None or int(land.index.shape[row]) < 0:
            continue
        table = land.index.tables[int(land.index.shape[row])]
        free = int(land.free_masks[row]) | gpus
        whole = (i.bit_count() for level in Level for i in table.islands(level) if i & gpus and i & ~free == 0)
        total += max(whole, default=0)
    return total


def _gpus(replica: Replica, land: Ground) -> int:
    rows = (land.index.row[name] for name in replica.places if name in land.index.row)
    return sum(land.index.nodes[row].gpus for row in rows)


def _words(replica: Replica, service: ServiceView, view: View, land: Ground) -> str:
    load = "an unknown load" if replica.load is None else f"a load of {replica.load:.4g}"
    cache = "" if replica.hits is None else f", {replica.hits:.0%} of its prompts come from its cache"
    island = frees(replica, land)
    mine = sum(gpus.bit_count() for gpus in replica.places.values())
    return f"{load}{cache}{f', its end frees an island of {island} GPUs' if island > mine else ''}"
