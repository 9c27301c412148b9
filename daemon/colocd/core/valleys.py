"""Valleys: what the services may need, and so must stay free; what is left over is the batch jobs' to use."""

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush

import numpy as np

from colocd.core.arrays import Bools, Ints, popcount
from colocd.core.ground import Ground
from colocd.core.need import counted, need, reserve
from colocd.core.service import Mode, ServiceSpec
from colocd.core.view import View

Rank = tuple[int, int, int]


def kept_back(view: View, ground: Ground, until: float, placed: Mapping[str, int]) -> Ints:
    """GPU masks, one a node of the index, that the services may need within `until` seconds, placed as replicas would be.

    `placed`: replicas per service that this plan starts already; their GPUs are struck from `ground`.
    """
    free: Ints = np.where(ground.open & (ground.index.shape >= 0), ground.free_masks, 0)
    kept: Ints = np.zeros_like(free)
    for service in sorted(view.services, key=lambda s: (-s.spec.priority, s.spec.name)):
        spec = service.spec
        members = ground.index.partitions.get(spec.partition)
        if members is None:
            continue
        short = need(service, view.policy, view.at).now - len(counted(service)) - placed.get(spec.name, 0)
        left = reserve(service, view.policy, view.at, until) - placed.get(spec.name, 0)
        nth = 0
        # A replica that is short now and fits nowhere keeps the largest part of an island that is free: it grows.
        for size in range(spec.gpus_per_replica, 0, -1):
            for row, gpus in best_free(spec, size, ground, free, members) if nth < left else ():
                free[row] &= ~gpus
                kept[row] |= gpus
                nth += 1
                if nth >= (left if size == spec.gpus_per_replica else min(left, short)):
                    break
            if nth >= min(left, short):
                break
    return kept


def best_free(spec: ServiceSpec, count: int, ground: Ground, free: Ints, members: Bools) -> Iterator[tuple[int, int]]:
    """Node rows and masks of the best `count` free GPUs for one replica after the other, fullest nodes first.

    Nodes with equal free GPUs are ranked once for all. The caller strikes what it takes from `free` before it goes on.
    """
    index = ground.index
    rows: Ints = np.flatnonzero(members & (popcount(free) >= count))
    rows = rows[np.argsort(index.name_rank[rows])]
    _, which = np.unique(index.shape[rows] << 32 | free[rows], return_inverse=True)
    rows = rows[np.argsort(which, kind="stable")]
    agenda: list[tuple[Rank, int, int, list[int]]] = []
    for same in np.split(rows, np.cumsum(np.bincount(which))[:-1]) if len(rows) else ():
        _queue(agenda, spec, count, ground, int(free[same[0]]), same[::-1].tolist())
    while agenda:
        rank, _, gpus, group = heappop(agenda)
        row = group.pop()
        if group:
            heappush(agenda, (rank, int(index.name_rank[group[-1]]), gpus, group))
        yield row, gpus
        _queue(agenda, spec, count, ground, int(free[row]), [row])


def _queue(
    agenda: list[tuple[Rank, int, int, list[int]]],
    spec: ServiceSpec,
    count: int,
    ground: Ground,
    free: int,
    rows: list[int],
) -> None:
    """Put nodes with equal free GPUs on the agenda, last name first; not if no replica fits there."""
    fit = ground.index.tables[int(ground.index.shape[rows[0]])].best(free, count)
    if fit is None or (spec.mode is Mode.GUARANTEED and fit.level < spec.level):
        return
    rank = (-min(fit.level, spec.level), free.bit_count(), -fit.strength)
    heappush(agenda, (rank, int(ground.index.name_rank[rows[-1]]), fit.gpus, rows))
