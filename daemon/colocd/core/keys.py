"""The least keys of all nodes for each request, worked out when they are needed and no closer than needed.

On a large cluster most nodes are too dear to matter: they get a bound from below and are not searched.
"""

from collections.abc import Iterator
from functools import cached_property

import numpy as np

from colocd.core.index import Bools, Ints, PlannerIndex, popcount
from colocd.core.search import NEVER, Found, NodeSearch, Request, node_search

FEW = 1024
"""Nodes that are looked at closely before it is quicker to look at all of them."""


class NodeKeys:
    """The keys over the nodes of an index. `_masks` and `_costs`: GPUs and keys of the evictable jobs, a row a node."""

    index: PlannerIndex
    free_masks: Ints
    open: Bools
    _masks: Ints
    _costs: Ints
    _found: dict[Request, Found]

    def search(self, i: int, request: Request) -> NodeSearch | None:
        """The search for a node's shape; None: its topology is unknown."""
        shape = int(self.index.shape[i])
        if shape < 0:
            return None
        return node_search(self.index.tables[shape], request.gpus, request.level, request.strict)

    def found(self, request: Request) -> Found:
        """The best candidates of all nodes for a request, open or not."""
        found = self._begun(request)
        rows = np.flatnonzero(self.open & ~found.exact)
        if len(rows):
            self._look(request, found, rows)
        return found

    def keys(self, request: Request, members: Bools, enough: int) -> Ints:
        """Least keys of the nodes in `members`, `NEVER` for others. Exact for at least the `enough` cheapest and their equals.

        The keys of the others are bounds from below: on a large cluster most nodes are too dear to be looked at closely.
        """
        found = self._begun(request)
        looked = 0
        while True:
            keys: Ints = np.where(members, found.key, NEVER)
            stale = members & ~found.exact
            # Where the bounds are far below the keys, it is quicker to look at all nodes at once than at a few again and again.
            if enough < len(keys) and looked <= max(2 * enough, FEW):
                last = keys.min() if enough == 1 else np.partition(keys, enough - 1)[enough - 1]
                stale &= keys <= last
            rows = np.flatnonzero(stale)
            if not len(rows):
                return keys
            looked += len(rows)
            self._look(request, found, rows)

    def _begun(self, request: Request) -> Found:
        """What is known for a request so far: at least bounds."""
        found = self._found.get(request)
        if found is None:
            size = len(self.index.nodes)
            blank = np.zeros(size, dtype=np.int64)
            key: Ints = np.full(size, NEVER, dtype=np.int64)
            known: Bools = np.zeros(size, dtype=np.bool_)
            found = Found(key, self.index.shape < 0, blank, blank.copy(), blank.copy(), known)
            self._found[request] = found
            for search, rows in self._by_shape(request, np.flatnonzero(self.open)):
                least, unit = self._prices
                found.key[rows], found.exact[rows] = search.floor(self.free_masks[rows], least[rows], unit[rows])
        return found

    @cached_property
    def _prices(self) -> tuple[Ints, Ints]:
        """Per node the least key of an evictable job there, and the least key for each GPU that a job there gives up."""
        held = self._masks & ~self.free_masks[:, None]
        size = popcount(held)
        least = np.where(size > 0, self._costs, NEVER)
        unit = np.where(size > 0, self._costs // np.maximum(size, 1), NEVER)
        return least.min(axis=1, initial=NEVER), unit.min(axis=1, initial=NEVER)

    def _by_shape(self, request: Request, rows: Ints) -> Iterator[tuple[NodeSearch, Ints]]:
        for table in np.unique(self.index.shape[rows]).tolist():
            if table >= 0:
                search = node_search(self.index.tables[table], request.gpus, request.level, request.strict)
                yield search, rows[self.index.shape[rows] == table]

    def _look(self, request: Request, found: Found, rows: Ints) -> None:
        """Work the keys of these rows out (again)."""
        for search, some in self._by_shape(request, rows):
            found.key[some] = search.least(self.free_masks[some], self._masks[some], self._costs[some])
            found.exact[some] = True
            found.known[some] = False

    def refine(self, request: Request, rows: Ints) -> Found:
        """The best candidates with all their facts for these rows, which must have one."""
        found = self._begun(request)
        self._look(request, found, rows[~found.exact[rows]])
        for search, some in self._by_shape(request, rows[~found.known[rows]]):
            fine = search.fine(self.free_masks[some], self._masks[some], self._costs[some])
            found.gpus[some], found.damage[some], found.strength[some] = fine
            found.known[some] = True
        return found

    def bounds(self, request: Request, rows: Ints, depth: int) -> Ints:
        """For rows of one shape, bounds from below of the keys for 1 … `depth` replicas on that node; a column each."""
        search = self.search(int(rows[0]), request)
        assert search is not None, "rows without a topology are left out before"
        return search.bounds(self.free_masks[rows], self._masks[rows], self._costs[rows], depth)
