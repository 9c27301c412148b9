"""The tide: which GPUs no service will need, by node, island and time, at the quantile that valleys are filled by. Pure."""

from collections.abc import Sequence

import msgspec
import numpy as np

from coloc_topology.shape import Level
from colocd.core.arrays import Bools, Ints, popcount
from colocd.core.forecast import peak
from colocd.core.free_spots import best_free
from colocd.core.ground import Ground
from colocd.core.need import counted, fresh, needed, replicas_for
from colocd.core.reclaim import ground as ground_of
from colocd.core.valley_groups import Domains, groups_of, rooms
from colocd.core.view import JobState, ServiceView, View
from colocd.core.wishes import is_wish

_HOLDS = (JobState.RUNNING, JobState.SUSPENDED, JobState.CONFIGURING, JobState.COMPLETING)


class Slot(msgspec.Struct, frozen=True):
    """A stretch of time from `at` (Unix seconds): replicas each service may need in it, and GPUs that none does."""

    at: float
    needs: dict[str, int]
    free: int


class Valley(msgspec.Struct, frozen=True):
    """GPUs (mask) of one island (mask) of a node that no service needs from `start` until `end` (Unix seconds)."""

    node: str
    island: int
    gpus: int
    start: float
    end: float


class Tide(msgspec.Struct, frozen=True, kw_only=True):
    """The next hours in stretches of `step` seconds. `gpus`: those that services and coloc's batch jobs may use at all.

    `blind`: services of which too little is known; they may need their maximum.
    """

    at: float
    step: float
    quantile: float
    gpus: int
    slots: tuple[Slot, ...]
    valleys: tuple[Valley, ...]
    blind: tuple[str, ...] = ()


def tide(view: View, horizon: float = 86400.0, step: float = 1800.0) -> Tide:
    """GPUs by island and time that no service needs within the next `horizon` seconds."""
    land = ground_of(view)
    usable = _usable(view, land)
    services = sorted(view.services, key=lambda s: (-s.spec.priority, s.spec.name))
    count = max(1, round(horizon / step))
    blind: set[str] = set()
    domains: Domains = {}
    found: dict[tuple[int, ...], Ints] = {}
    slots: list[Slot] = []
    left: list[Ints] = []
    for i in range(count):
        needs = tuple(_need(s, view, i * step, step, blind) for s in services)
        if needs not in found:
            found[needs] = usable & ~_kept(services, needs, land, usable, domains)
        free = found[needs]
        left.append(free)
        told = {s.spec.name: n for s, n in zip(services, needs, strict=True)}
        slots.append(Slot(view.at + i * step, told, int(popcount(free).sum())))
    return Tide(
        at=view.at,
        step=step,
        quantile=view.policy.valley_quantile,
        gpus=int(popcount(usable).sum()),
        slots=tuple(slots),
        valleys=tuple(_valleys(land, usable, left, view.at, step)),
        blind=tuple(sorted(blind)),
    )


def _usable(view: View, land: Ground) -> Ints:
    """GPUs that are free or held by replicas and coloc's own batch jobs, on nodes that are up and nobody else's."""
    index = land.index
    mine: Ints = np.zeros(len(index.nodes), dtype=np.int64)
    ours = {r.job for s in view.services for r in s.replicas if r.job is not None}
    for job in view.jobs:
        if job.gpus and job.state in _HOLDS and (job.ref in ours or job.checkpoint is not None):
            for name, gpus in job.gpus.items():
                if name in index.row:
                    mine[index.row[name]] |= gpus
    for i, node in enumerate(index.nodes):
        if not node.up or node.reserved or node.used is None:
            mine[i] = 0
        else:
            mine[i] = (mine[i] | node.free) & ((1 << node.gpus) - 1)
    return mine


def _need(service: ServiceView, view: View, start: float, step: float, blind: set[str]) -> int:
    """Replicas that the service may need at some time in [start, start + step); its maximum when nobody knows."""
    policy = view.policy
    if service.removed:
        return 0
    if is_wish(service.spec.name):
        return 1
    foreseen = None
    if service.forecast is not None:
        foreseen = peak(service.forecast, policy.valley_quantile, start, start + step)
    if fresh(service.load, view.at, policy) is None or foreseen is None:
        blind.add(service.spec.name)
        return service.spec.max_replicas
    if start > 0:
        return replicas_for(foreseen, service, policy)
    now = needed(service, policy, view.at, step, policy.valley_quantile) or 0
    return max(now, replicas_for(service.recent or 0.0, service, policy))


def _kept(services: Sequence[ServiceView], needs: Sequence[int], land: Ground, usable: Ints, domains: Domains) -> Ints:
    """GPUs of the replicas needed: those that are there first, then the best places, as replicas would be placed."""
    free = usable.copy()
    kept: Ints = np.zeros_like(free)

    def take(row: int, gpus: int) -> None:
        free[row] &= ~gpus
        kept[row] |= gpus

    lacking: dict[str, int] = {}
    for service, wanted in zip(services, needs, strict=True):
        there = sorted((r for r in counted(service)), key=lambda r: (not r.places, r.slot))[:wanted]
        for replica in there:
            for name, gpus in replica.places.items():
                if name in land.index.row:
                    take(land.index.row[name], gpus)
        lacking[service.spec.name] = wanted - sum(bool(r.places) for r in there)
    groups = groups_of(services)
    for service in services:
        for group in groups:
            if service.spec.name in group.names:
                for _, spots in rooms(group, lacking, land, free, domains):
                    for row, gpus in spots:
                        take(row, gpus)
        members: Bools | None = land.index.partitions.get(service.spec.partition)
        left = lacking[service.spec.name] * service.spec.nodes
        if members is None or left <= 0:
            continue
        # As in `kept_back`, one that fits nowhere keeps the largest part of an island: it grows when others end.
        for size in range(service.spec.gpus_per_replica, 0, -1):
            for row, gpus in best_free(service.spec, size, land, free, members) if left > 0 else ():
                take(row, gpus)
                left -= 1
                if left <= 0:
                    break
    return kept


def _valleys(land: Ground, usable: Ints, left: Sequence[Ints], at: float, step: float) -> list[Valley]:
    """Stretches in which the free GPUs of an island stay the same, node by node."""
    index = land.index
    grid = np.stack(left)
    order = np.argsort(index.name_rank)
    made: list[Valley] = []
    for row in order[usable[order] != 0].tolist():
        masks = grid[:, row].tolist()
        for island in _islands(land, row):
            begin = 0
            for i in range(1, len(masks) + 1):
                if i < len(masks) and masks[i] & island == masks[begin] & island:
                    continue
                if masks[begin] & island:
                    start, end = at + begin * step, at + i * step
                    made.append(Valley(index.nodes[row].name, island, masks[begin] & island, start, end))
                begin = i
    return made


def _islands(land: Ground, row: int) -> tuple[int, ...]:
    """The NVLink islands of a node that hold more than one GPU, and the rest as one; the whole node when none is known."""
    everything = (1 << land.index.nodes[row].gpus) - 1
    shape = int(land.index.shape[row])
    if shape < 0:
        return (everything,)
    islands = tuple(i for i in land.index.tables[shape].islands(Level.NVLINK) if i.bit_count() > 1)
    rest = everything & ~sum(islands)
    return (*islands, rest) if rest else islands
