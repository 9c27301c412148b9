"""The best free GPUs for one replica after the other."""

from collections.abc import Collection, Iterator
from heapq import heappop, heappush

import numpy as np

from colocd.core.arrays import Bools, Ints, popcount
from colocd.core.ground import Ground
from colocd.core.service import Mode, ServiceSpec

Rank = tuple[int, int, int]


def best_free(spec: ServiceSpec, count: int, ground: Ground, free: Ints, members: Bools) -> Iterator[tuple[int, int]]:
    """Node rows and masks of the best `count` free GPUs for one replica after the other, fullest nodes first.

    Replicas of a service that spreads get one node each, none that has one already. Nodes with equal free GPUs are ranked
    once for all. The caller strikes what it takes from `free` before it goes on.
    """
    index = ground.index
    if spec.spread:
        members = without(members, ground.hosts.get(spec.name, ()))
    rows: Ints = np.flatnonzero(members & (index.shape >= 0) & (popcount(free) >= count))
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
        if not spec.spread:
            _queue(agenda, spec, count, ground, int(free[row]), [row])


def without(members: Bools, rows: Collection[int]) -> Bools:
    """The nodes but these rows."""
    if not rows:
        return members
    rest = members.copy()
    rest[list(rows)] = False
    return rest


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
