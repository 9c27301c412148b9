"""Fit tables: the best subset of free GPUs of a shape, by look-up."""

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from coloc_topology.shape import Level, Shape, bits, mask_of


class Fit(NamedTuple):
    """A subset of free GPUs: its mask, the level that joins it, and the sum of its pair strengths (comparison only)."""

    gpus: int
    level: Level
    strength: int


class FitTable:
    """Answers for one shape; use `fit_table(shape)`, which caches."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def level_of(self, gpus: int) -> Level:
        """Level that joins the set; a single GPU (or none) counts as `NVLINK`."""
        members = bits(gpus)
        shape = self.shape
        pairs = [(i, j) for i, j in combinations(members, 2)]
        worst = min((shape.pair_level(i, j) for i, j in pairs), default=Level.NVLINK)
        if worst < Level.NVLINK and self._nvlink_connected(members):
            return Level.NVLINK_PARTIAL
        return worst

    def _nvlink_connected(self, members: tuple[int, ...]) -> bool:
        seen, todo = {members[0]}, [members[0]]
        while todo:
            i = todo.pop()
            for j in members:
                if j not in seen and self.shape.pair_nvlinks(i, j):
                    seen.add(j)
                    todo.append(j)
        return len(seen) == len(members)

    def _strength(self, gpus: int) -> int:
        shape = self.shape
        return sum(100 * shape.pair_nvlinks(i, j) + int(shape.pair_level(i, j)) for i, j in combinations(bits(gpus), 2))

    def fit(self, gpus: int) -> Fit:
        """The `Fit` record of exactly this set."""
        return Fit(gpus, self.level_of(gpus), self._strength(gpus))

    def best(self, free: int, count: int) -> Fit | None:
        """Best `count` GPUs among `free`: level, then strength, then lowest mask; None: too few."""
        found = [self.fit(mask_of(list(c))) for c in combinations(bits(free), count)]
        return max(found, key=lambda f: (f.level, f.strength, -f.gpus), default=None)

    def worst_level(self, free: int, count: int) -> Level | None:
        """Level of the worst `count` GPUs among `free`; None: too few. If it is good enough, any choice of Slurm's is."""
        return min((self.level_of(mask_of(list(c))) for c in combinations(bits(free), count)), default=None)

    def islands(self, level: Level) -> tuple[int, ...]:
        """Largest disjoint GPU sets joined at `level` or better, by lowest index."""
        left, found = self.shape.all, []
        while left:
            for count in range(left.bit_count(), 0, -1):
                fit = self.best(left, count)
                if fit is not None and fit.level >= level:
                    found.append(fit.gpus)
                    left &= ~fit.gpus
                    break
        return tuple(sorted(found, key=lambda m: m & -m))


@lru_cache(maxsize=64)
def fit_table(shape: Shape) -> FitTable:
    """The fit table of a shape, analysed once per process."""
    return FitTable(shape)
