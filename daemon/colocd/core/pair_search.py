"""The search on one node for replicas of two services side by side: both at their levels, with one set of victims."""

from functools import lru_cache

import numpy as np

from coloc_topology.fit import FitTable
from colocd.core.arrays import Ints
from colocd.core.search import MISSED_SHIFT, NEVER, NodeSearch, Request, node_search


class PairSearch(NodeSearch):
    """Candidates are the sets of GPUs that hold a replica of each; missed levels of both are summed.

    Only `candidates`, `least`, `floor` and `split` are of use: keys of a node, and who sits where.
    """

    def __init__(self, one: NodeSearch, two: NodeSearch) -> None:
        self.table, self.count, self.all = one.table, one.count + two.count, one.all
        self.one, self.two = one, two
        missed: Ints = np.full(self.all + 1, NEVER, dtype=np.int64)
        for gpus, key in zip(one.subs.tolist(), one.base.tolist(), strict=True):
            able = (two.subs & gpus) == 0
            both = two.subs[able] | gpus
            missed[both] = np.minimum(missed[both], two.base[able] + key)
        self.subs = np.flatnonzero(missed < NEVER)
        self.base = missed[self.subs]
        self._narrow = self.subs.astype(np.uint16)

    def split(self, room: int) -> tuple[int, int] | None:
        """GPUs within `room` for each of the two, with as few missed levels as can be; None: they do not fit."""
        best: tuple[int, int, int] | None = None
        inside = (self.one.subs & ~room) == 0
        for gpus, key in zip(self.one.subs[inside].tolist(), self.one.base[inside].tolist(), strict=True):
            others = (self.two.subs & ~(room & ~gpus)) == 0
            if others.any():
                at = int(others.argmax())  # They are in order of missed levels, then strength.
                total = key + int(self.two.base[at])
                if best is None or total < best[0]:
                    best = (total, gpus, int(self.two.subs[at]))
        return None if best is None else best[1:]


@lru_cache(maxsize=64)
def pair_search(table: FitTable, one: Request, two: Request) -> PairSearch:
    """The search for a shape's table, built once per process."""
    return PairSearch(*(node_search(table, r.gpus, r.level, r.strict) for r in (one, two)))


def missed_levels(key: int) -> int:
    """The part of a key that is missed levels."""
    return key >> MISSED_SHIFT << MISSED_SHIFT
