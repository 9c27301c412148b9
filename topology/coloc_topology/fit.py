"""Fit tables: the best subset of free GPUs of a shape, by look-up.

Order of subsets, best first: level; strength (the weakest pair first, then the sum over the pairs, NVLinks counting most);
fewest *broken islands*, that is islands that are wholly free now and would be partly taken; lowest mask. Each answer is
exact and found once: a cold look-up searches the subsets of that size with numpy, a warm one reads an array.
"""

from array import array
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from coloc_topology.shape import Level, Shape, mask_of
from coloc_topology.subsets import LEVEL_SHIFT, Ints, analyse, minimum_over_subsets

_LEVELS = tuple(Level)
_NO_LEVEL = len(_LEVELS)
_UNKNOWN = -1
_KEPT_LISTS = 4096
"""Answers of `subsets` kept per table."""


class Fit(NamedTuple):
    """A subset of free GPUs: its mask, the level that joins it, and its strength (for comparison only, `Subsets`)."""

    gpus: int
    level: Level
    strength: int


class FitTable:
    """Answers for one shape; use `fit_table(shape)`, which caches. Bits of `free` beyond the shape are ignored."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self._all = shape.all
        self._sets = analyse(shape)
        self._level = self._sets.level.astype(np.uint8).tobytes()
        self._fits: dict[int, Fit] = {}
        self._sized: dict[int, tuple[Ints, Ints]] = {}
        self._best: dict[int, array[int]] = {}
        self._worst: dict[int, bytes] = {}
        self._lists: dict[tuple[int, int, Level], tuple[Fit, ...]] = {}
        self._islands: dict[Level, tuple[int, ...]] = {}

    def level_of(self, gpus: int) -> Level:
        """Level that joins the set; a single GPU (or none) counts as `NVLINK`."""
        return _LEVELS[self._level[gpus]]

    def fit(self, gpus: int) -> Fit:
        """The `Fit` record of exactly this set."""
        fit = self._fits.get(gpus)
        if fit is None:
            fit = self._fits[gpus] = Fit(gpus, self.level_of(gpus), int(self._sets.strength[gpus]))
        return fit

    def best(self, free: int, count: int) -> Fit | None:
        """Best `count` GPUs among `free`, in the order told at the top of this module; None: too few."""
        free &= self._all
        if not 0 <= count <= free.bit_count():
            return None
        row = self._best.get(count)
        if row is None:
            row = self._best[count] = array("i", [_UNKNOWN]) * (self._all + 1)
        gpus = row[free]
        if gpus == _UNKNOWN:
            gpus = row[free] = self._find(free, count)
        return self.fit(gpus)

    def best_at(self, free: int, count: int, level: Level) -> Fit | None:
        """Best `count` GPUs among `free` if they reach `level`; None: no choice of them does, or too few."""
        fit = self.best(free, count)
        return fit if fit is not None and fit.level >= level else None

    def subsets(self, free: int, count: int, level: Level) -> tuple[Fit, ...]:
        """Every choice of `count` GPUs among `free` that reaches `level`, best first; empty: none does, or too few."""
        free &= self._all
        if not 0 <= count <= free.bit_count():
            return ()
        key = (free, count, level)
        found = self._lists.get(key)
        if found is None:
            masks, ranks = self._within(free, count)
            reached = ranks >= int(level) << LEVEL_SHIFT
            masks, ranks = masks[reached], ranks[reached]
            order = np.lexsort((masks, self._broken(masks, free), -ranks))
            found = tuple(self.fit(gpus) for gpus in masks[order].tolist())
            if len(self._lists) >= _KEPT_LISTS:
                self._lists.clear()
            self._lists[key] = found
        return found

    def worst_level(self, free: int, count: int) -> Level | None:
        """Level of the worst `count` GPUs among `free`; None: too few. If it is good enough, any choice of Slurm's is."""
        free &= self._all
        if not 0 <= count <= free.bit_count():
            return None
        row = self._worst.get(count)
        if row is None:
            own = np.where(self._sets.size == count, self._sets.level, _NO_LEVEL)
            row = self._worst[count] = minimum_over_subsets(own, self.shape.gpus).astype(np.uint8).tobytes()
        return _LEVELS[row[free]]

    def islands(self, level: Level) -> tuple[int, ...]:
        """Largest disjoint GPU sets joined at `level` or better (then best level and strength), by lowest index.

        Single GPUs that no island takes are islands of their own.
        """
        found = self._islands.get(level)
        if found is None:
            left, taken = self._all, []
            while left:
                gpus = self._largest(left, level)
                taken.append(gpus)
                left &= ~gpus
            found = self._islands[level] = tuple(sorted(taken, key=lambda m: m & -m))
        return found

    def _largest(self, left: int, level: Level) -> int:
        for count in range(left.bit_count(), 1, -1):
            masks, ranks = self._within(left, count)
            top = int(np.argmax(ranks))
            if ranks[top] >= int(level) << LEVEL_SHIFT:
                return int(masks[top])
        return left & -left

    @cached_property
    def _neighbourhoods(self) -> tuple[int, ...]:
        """Sets worth keeping whole: the islands of every level, and the GPUs near one NUMA node or CPU list."""
        found = {gpus for level in _LEVELS for gpus in self.islands(level)}
        for facts in (self.shape.numa, self.shape.cores):
            known = {fact for fact in facts if fact is not None}
            found |= {mask_of(i for i, fact in enumerate(facts) if fact == one) for one in known}
        return tuple(sorted(gpus for gpus in found if gpus.bit_count() > 1))

    def _within(self, free: int, count: int) -> tuple[Ints, Ints]:
        """The masks of `count` GPUs among `free`, ascending, and their ranks."""
        sized = self._sized.get(count)
        if sized is None:
            masks: Ints = np.flatnonzero(self._sets.size == count)
            sized = self._sized[count] = (masks, self._sets.rank[masks])
        inside = (sized[0] & ~free) == 0
        return sized[0][inside], sized[1][inside]

    def _broken(self, masks: Ints, free: int) -> Ints:
        broken: Ints = np.zeros(len(masks), dtype=np.int64)
        for island in self._neighbourhoods:
            if island & ~free == 0:
                part = masks & island
                broken += (part != 0) & (part != island)
        return broken

    def _find(self, free: int, count: int) -> int:
        masks, ranks = self._within(free, count)
        masks = masks[ranks == ranks.max()]
        return int(masks[np.argmin(self._broken(masks, free))])


@lru_cache(maxsize=64)
def fit_table(shape: Shape) -> FitTable:
    """The fit table of a shape, analysed once per process; raises `TopologyError` for more than 16 GPUs.

    Keep the table in loops: finding it again hashes the link matrix.
    """
    return FitTable(shape)
