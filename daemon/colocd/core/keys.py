"""The least keys of all nodes for each request, worked out when they are needed and no closer than needed.

On a large cluster most nodes are too dear to matter: they get a bound from below and are not searched.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from colocd.core.arrays import Bools, Floats, Ints, popcount
from colocd.core.index import PlannerIndex
from colocd.core.search import NEVER, Found, NodeSearch, Request, node_search

FEW = 64
"""Nodes for which it is quicker to look closely at once than to look for bounds first."""
_NOBODY: Ints = np.zeros(0, dtype=np.int64)


class NodeKeys:
    """The keys over the nodes of an index.

    `_masks` and `_costs`: GPUs and keys of the evictable jobs, a row a node; `_cost`: keys by job row.
    """

    index: PlannerIndex
    free_masks: Ints
    open: Bools
    _masks: Ints
    _cost: Ints
    _costs: Ints
    _found: dict[Request, Found]

    def search(self, i: int, request: Request) -> NodeSearch | None:
        """The search for a node's shape; None: its topology is unknown."""
        shape = int(self.index.shape[i])
        return None if shape < 0 else self.search_on(shape, request)

    def search_on(self, shape: int, request: Request) -> NodeSearch:
        """The search for a shape, by its number."""
        return node_search(self.index.tables[shape], request.gpus, request.level, request.strict)

    def searches(self, request: Request) -> list[NodeSearch]:
        """The searches for all shapes that there are."""
        return [self.search_on(shape, request) for shape in range(len(self.index.tables))]

    def found(self, request: Request) -> Found:
        """The best candidates of all nodes for a request, open or not."""
        found = self.begun(request)
        rows = np.flatnonzero(self.open & ~found.exact)
        if len(rows):
            self._look(request, found, rows)
        return found

    def keys(self, request: Request, members: Bools, enough: int, below: int = NEVER) -> Ints:
        """Least keys of the nodes in `members`, `NEVER` for others. Exact for at least the `enough` cheapest and their equals.

        The keys of the others are bounds from below: on a large cluster most nodes are too dear to be looked at closely.
        `below`: keys from here on need not be exact.
        """
        found = self.begun(request)
        keys: Ints = np.where(members, found.key, NEVER)
        stale: Bools = members & ~found.exact
        rows = self._undecided(keys, stale, enough, below)
        first = enough + enough // 8 + FEW
        if len(rows) > first:
            # What the nodes with the least bounds turn out to cost is a limit for all others.
            rows = rows[np.argpartition(keys[rows], first)[:first]]
            self._look(request, found, rows)
            keys[rows], stale[rows] = found.key[rows], False
            rows = self._undecided(keys, stale, enough, below)
        if len(rows):
            self._look(request, found, rows)
            keys[rows] = found.key[rows]
        return keys

    @staticmethod
    def _undecided(keys: Ints, stale: Bools, enough: int, below: int) -> Ints:
        """Stale rows that may be among the `enough` cheapest: bounded by what so many others cost at most."""
        if not stale.any():
            return _NOBODY
        sure = np.where(stale, NEVER, keys)
        if enough == 1:
            limit = int(sure.min(initial=NEVER))
        else:
            limit = int(np.partition(sure, enough - 1)[enough - 1]) if enough <= len(sure) else NEVER
        return np.flatnonzero(stale & (keys <= limit) & (keys < below))

    def begun(self, request: Request) -> Found:
        """What is known for a request so far: at least a bound for each node."""
        found = self._found.get(request)
        if found is None:
            size = len(self.index.nodes)
            blank = np.zeros(size, dtype=np.int64)
            key: Ints = np.full(size, NEVER, dtype=np.int64)
            known: Bools = np.zeros(size, dtype=np.bool_)
            found = Found(key, self.index.shape < 0, blank, blank.copy(), blank.copy(), known)
            self._found[request] = found
            near = np.flatnonzero(self.open)
            if len(near) <= FEW:
                self._look(request, found, near)
                return found
            for search, rows in self.by_shape(request, near):
                least, unit = self._prices
                found.key[rows], found.exact[rows] = search.floor(self.free_masks[rows], least[rows], unit[rows])
        return found

    @cached_property
    def _prices(self) -> tuple[Ints, Ints]:
        """Per node the least key of an evictable job there, and the least key for each GPU that a job there gives up."""
        return self._prices_at(self._cost)

    def _prices_at(self, cost: Ints) -> tuple[Ints, Ints]:
        """The prices with these keys of jobs, by job row."""
        least: Ints = np.full(len(self.free_masks), NEVER, dtype=np.int64)
        unit: Floats = np.full(len(least), float(NEVER))
        # One column after the other: arrays of all columns are so large that each would be fresh memory.
        for held, jobs in zip(self._masks.T, self.index.holder_job.T, strict=True):
            size = popcount(held & ~self.free_masks)
            rows = np.flatnonzero(size)
            if len(rows):
                keys = cost[jobs[rows]]
                least[rows] = np.minimum(least[rows], keys)
                # Keys of one job have at most 46 bits: the quotients are near enough for their whole parts to be right.
                unit[rows] = np.minimum(unit[rows], keys / size[rows])
        return least, unit.astype(np.int64)

    def split_prices(self, most: int) -> tuple[Ints, Ints]:
        """The prices of all nodes if a job on several nodes is split evenly over them, but over `most` at most."""
        spans = np.minimum(self.index.span[: len(self.index.jobs)], most)
        return self._prices if spans.max(initial=1) <= 1 else self._prices_at(self._cost // np.maximum(spans, 1))

    def reach(self) -> Ints:
        """Per node the GPUs that evictable jobs hold."""
        held: Ints = np.zeros(len(self.free_masks), dtype=np.int64)
        for masks in self._masks.T:
            held |= masks
        return held

    def sharing(self) -> Bools:
        """Nodes with evictable jobs that are on further nodes."""
        found: Bools = np.zeros(len(self.free_masks), dtype=np.bool_)
        spans = self.index.span[: len(self.index.jobs)]
        if spans.max(initial=0) > 1:
            for masks, jobs in zip(self._masks.T, self.index.holder_job.T, strict=True):
                found |= (masks != 0) & (spans[jobs] > 1)
        return found

    def contents(self, rows: Ints) -> tuple[Ints, Ints, Ints]:
        """Free GPUs of these nodes, and GPUs and job rows of the evictable jobs there."""
        return self.free_masks[rows], self._masks[rows], self.index.holder_job[rows]

    def costs_of(self, rows: Ints) -> Ints:
        """Keys of the evictable jobs of these nodes, as `contents` lists them."""
        return self._costs[rows]

    def shapes_of(self, rows: Ints) -> Iterator[tuple[int, Ints]]:
        """Numbers of the shapes of these rows, and where in `rows` each is; those without a topology are left out."""
        if self.index.uniform:
            if len(rows):
                yield 0, np.arange(len(rows))
            return
        shapes = self.index.shape[rows]
        for shape in np.unique(shapes).tolist():
            if shape >= 0:
                yield shape, np.flatnonzero(shapes == shape)

    def by_shape(self, request: Request, rows: Ints) -> Iterator[tuple[NodeSearch, Ints]]:
        """These rows by their shapes, with the search for each; rows without a topology are left out."""
        if self.index.uniform:
            if len(rows):
                yield self.search_on(0, request), rows
            return
        for table in np.unique(self.index.shape[rows]).tolist():
            if table >= 0:
                yield self.search_on(table, request), rows[self.index.shape[rows] == table]

    def _look(self, request: Request, found: Found, rows: Ints) -> None:
        """Work the keys of these rows out (again)."""
        for search, some in self.by_shape(request, rows):
            found.key[some] = search.least(self.free_masks[some], self._masks[some], self._costs[some])
            found.exact[some] = True
            found.known[some] = False

    def refine(self, request: Request, rows: Ints) -> Found:
        """The best candidates with all their facts for these rows, which must have one."""
        found = self.begun(request)
        self._look(request, found, rows[~found.exact[rows]])
        for search, some in self.by_shape(request, rows[~found.known[rows]]):
            fine = search.fine(self.free_masks[some], self._masks[some], self._costs[some])
            found.gpus[some], found.damage[some], found.strength[some] = fine
            found.known[some] = True
        return found

    def bounds(self, request: Request, rows: Ints, depth: int) -> Ints:
        """For rows of one shape, bounds from below of the keys for 1 … `depth` replicas on that node; a column each."""
        search = self.search(int(rows[0]), request)
        assert search is not None, "rows without a topology are left out before"
        return search.bounds(self.free_masks[rows], self._masks[rows], self._costs[rows], depth)

    def floors(self, request: Request, rows: Ints, depth: int) -> Ints:
        """Bounds from below of `bounds`, found quicker: the cheapest job, the cheapest price of missing GPUs."""
        least, unit = (price[rows] for price in self._prices)
        short = np.arange(1, depth + 1) * request.gpus - popcount(self.free_masks[rows])[:, None]
        price = np.maximum(least[:, None], np.minimum(unit, NEVER >> 6)[:, None] * np.maximum(short, 0))
        return np.where(short > 0, price, 0) + np.arange(depth)

    def with_rooms(self, request: Request, rows: Ints) -> dict[int, tuple[Ints, Ints]]:
        """For each of these rows the keys of all candidates, and the GPUs free or freed with each."""
        found: dict[int, tuple[Ints, Ints]] = {}
        for search, some in self.by_shape(request, rows):
            known = search.with_rooms(self.free_masks[some], self._masks[some], self._costs[some])
            found.update((row, (keys, rooms)) for row, keys, rooms in zip(some.tolist(), *known, strict=True))
        return found

    def bundles(self, request: Request, rows: Sequence[int]) -> list[list[tuple[int, int]]]:
        """For each of these rows, for 1, 2, … replicas there as far as they fit: key of all, GPUs of the one that starts now."""
        found: dict[int, list[tuple[int, int]]] = {}
        for search, some in self.by_shape(request, np.array(rows, dtype=np.int64)):
            options = search.bundles(self.free_masks[some], self._masks[some], self._costs[some])
            for row, keys, gpus in zip(some.tolist(), *(o.tolist() for o in options), strict=True):
                found[row] = [pair for pair in zip(keys, gpus, strict=True) if pair[0] < NEVER]
        return [found[row] for row in rows]
