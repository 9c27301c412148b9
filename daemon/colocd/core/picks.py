"""Which GPUs of a node Slurm would give to a job, and what that would leave.

Slurm's habit, as measured: a socket near the job's cores that has enough free GPUs, lowest indices first; without enough on one
socket, lowest indices of all. Which cores it takes is not known here: the socket with most free GPUs is assumed. It is a guess:
it ranks nodes and promises nothing.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from coloc_topology.fit import FitTable, fit_table
from coloc_topology.shape import Level, Shape, mask_of
from colocd.core.arrays import Ints
from colocd.core.index import PlannerIndex

MOST_SPOILS = 1 << 16
"""Answers about kept GPUs that stay in memory for each number of GPUs on a shape."""


class Pick(NamedTuple):
    """What Slurm gives: GPUs, link levels worse than needed, whole islands broken, islands touched, GPUs left free in them."""

    gpus: int
    missed: int
    broken: int
    islands: int
    beside: int


class Ranks(NamedTuple):
    """Per row: what the pick takes of what is kept, straddles and breaks (small is good); GPUs left beside it; its islands."""

    harm: Ints
    beside: Ints
    islands: Ints


class ShapePicks:
    """Slurm's picks of one size on one shape, each worked out once. `table` None: the topology is not known."""

    def __init__(self, table: FitTable | None, count: int) -> None:
        self.table, self.count = table, count
        self._picks: dict[int, Pick] = {}
        self._spoils: dict[tuple[int, int], bool] = {}
        self._sockets: tuple[int, ...] = ()
        self._islands: tuple[tuple[int, ...], ...] = ()
        if table is not None:
            self._sockets = sockets(table.shape)
            kinds = {table.islands(level) for level in Level}
            self._islands = tuple(sorted(tuple(i for i in kind if i.bit_count() > 1) for kind in kinds))
            best = table.best(table.shape.all, count)
            self._level = Level.SYS if best is None else best.level
            inner = max(Level, key=lambda level: (any(i.bit_count() > 1 for i in table.islands(level)), level))
            self._inner = table.islands(inner)

    def pick(self, free: int) -> Pick:
        """Slurm's pick out of these free GPUs (fewer when there are not enough), and what it leaves."""
        found = self._picks.get(free)
        if found is None:
            found = self._picks[free] = self._work_out(free)
        return found

    def _work_out(self, free: int) -> Pick:
        able = [s & free for s in self._sockets if (s & free).bit_count() >= self.count]
        room = max(able, key=int.bit_count) if able else free
        gpus = lowest(room, self.count)
        if self.table is None:
            return Pick(gpus, 0, 0, 0, 0)
        missed = max(0, self._level - self.table.level_of(gpus))
        islands = {i for kind in self._islands for i in kind}
        broken = sum(1 for i in islands if i & ~free == 0 and 0 != i & gpus != i)
        touched = sum(i for i in self._inner if i & gpus)
        return Pick(gpus, missed, broken, touched, (touched & free & ~gpus).bit_count())

    def spoils(self, free: int, kept: int) -> bool:
        """Whether after the pick some island has less left than what is kept needs, whichever islands it is moved to."""
        found = self._spoils.get((free, kept))
        if found is None:
            if len(self._spoils) >= MOST_SPOILS:
                self._spoils.clear()
            left = free & ~self.pick(free).gpus
            found = self._spoils[free, kept] = any(
                has < asked
                for kind in self._islands
                for has, asked in zip(_sizes(kind, left), _sizes(kind, kept), strict=True)
            )
        return found


def _sizes(islands: tuple[int, ...], gpus: int) -> list[int]:
    return sorted(((i & gpus).bit_count() for i in islands), reverse=True)


def sockets(shape: Shape) -> tuple[int, ...]:
    """GPU masks of the sockets, by lowest index; empty: the shape does not tell."""
    near = shape.cores or shape.numa
    if len(near) != shape.gpus or any(fact is None for fact in near):
        return ()
    return tuple(mask_of(i for i, fact in enumerate(near) if fact == one) for one in dict.fromkeys(near))


def lowest(gpus: int, count: int) -> int:
    """The `count` lowest GPUs of a mask, or all when there are fewer."""
    taken = 0
    for _ in range(count):
        rest = gpus & ~taken
        taken |= rest & -rest
    return taken


@lru_cache(maxsize=256)
def shape_picks(shape: Shape | None, count: int) -> ShapePicks:
    """The picks of a shape, kept for the process; None: a node of which nothing is known."""
    return ShapePicks(None if shape is None else fit_table(shape), count)


class Picks:
    """Slurm's picks on the nodes of an index, by its numbers of shapes."""

    def __init__(self, index: PlannerIndex) -> None:
        self._index = index
        self._by_shape: dict[tuple[int, int], ShapePicks] = {}

    def _on(self, shape: int, count: int) -> ShapePicks:
        found = self._by_shape.get((shape, count))
        if found is None:
            known = None if shape < 0 else self._index.tables[shape].shape
            found = self._by_shape[shape, count] = shape_picks(known, count)
        return found

    def of(self, shape: int, free: int, count: int) -> Pick:
        """Slurm's pick on a node of this shape with these free GPUs."""
        return self._on(shape, count).pick(free)

    def ranks(self, rows: Ints, free: Ints, kept: Ints, count: int) -> Ranks:
        """What Slurm's pick of so many GPUs does on each of these rows; all 0 where the topology is not known."""
        shapes = self._index.shape[rows]
        # Shapes have at most 16 GPUs.
        keys = np.where(shapes < 0, -1, shapes << 32 | free << 16 | kept)
        kinds, which = np.unique(keys, return_inverse=True)
        found = [self._rank(key, count) for key in kinds.tolist()]
        table: Ints = np.array(found, dtype=np.int64).reshape(-1, 3).T
        return Ranks(*table[:, which])

    def _rank(self, key: int, count: int) -> tuple[int, int, int]:
        if key < 0 or not count:
            return (0, 0, 0)
        free, kept = key >> 16 & 0xFFFF, key & 0xFFFF
        picks = self._on(key >> 32, count)
        pick = picks.pick(free)
        harm = (kept != 0 and picks.spoils(free, kept)) << 3 | min(pick.missed, 7)
        return harm << 6 | min(pick.broken, 63), min(pick.beside, 15), pick.islands
