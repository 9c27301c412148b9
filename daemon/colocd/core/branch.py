"""The cheapest group in one domain: branch and bound over the jobs that are on several of its nodes.

A victim is paid once, however many nodes of the group it frees GPUs on. While nothing is decided of such a job, each of its nodes
pays an even share of it, so the sum of the least keys is a bound from below. Two cases are then looked at: it is evicted, and
costs no node anything more; or at most one node of the group evicts it, and that node pays all of it. Exact as far as it goes.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.ground import Ground
from colocd.core.openings import allowed
from colocd.core.pair_search import pair_search
from colocd.core.search import NEVER, NodeSearch, Request
from colocd.core.service import ServiceSpec

MOST_STEPS = 400
"""Cases looked at for one group, in all domains."""

Pick = tuple[int, int]
"""Column of `Asked`, and row within the domain."""


class Asked:
    """What a node of a group may hold, column by column: one part, or (the last column) both parts of a pair.

    `wants`: on how many nodes each part is. `takes`: nodes of each part that a column stands for.
    """

    def __init__(self, land: Ground, parts: Sequence[tuple[ServiceSpec, int]]) -> None:
        self.land = land
        self.wants = tuple(nodes for _, nodes in parts)
        self.requests: list[tuple[Request, ...]] = [(Request.of(spec),) for spec, _ in parts]
        self.takes: list[tuple[int, ...]] = [tuple(int(i == k) for i in range(len(parts))) for k in range(len(parts))]
        self.members: list[Bools] = [land.open & allowed(land, spec) for spec, _ in parts]
        if len(parts) == 2:
            self.requests.append((self.requests[0][0], self.requests[1][0]))
            self.takes.append((1, 1))
            self.members.append(self.members[0] & self.members[1])
        self.able: Bools = np.logical_or.reduce(self.members)

    def search(self, column: int, shape: int) -> NodeSearch:
        """The search for a column on a shape."""
        request = self.requests[column]
        if len(request) == 2:
            return pair_search(self.land.index.tables[shape], *request)
        return self.land.search_on(shape, request[0])

    def least(self, rows: Ints, costs: Ints) -> Ints:
        """The least key of each node when its jobs cost this: a row a column of this, a column a node; `NEVER`: not there."""
        free, masks, _ = self.land.contents(rows)
        keys: Ints = np.full((len(self.members), len(rows)), NEVER, dtype=np.int64)
        for shape, some in self.land.shapes_of(rows):
            for column, members in enumerate(self.members):
                here = some[members[rows[some]]]
                if len(here):
                    keys[column, here] = self.search(column, shape).least(free[here], masks[here], costs[here])
        return keys

    def assign(self, keys: Ints) -> tuple[int, tuple[Pick, ...]]:
        """The least sum of keys that gives every part its nodes, and who sits where; `NEVER`: there is no way."""
        if len(self.wants) == 1:
            many = self.wants[0]
            order = np.argsort(keys[0], kind="stable")[:many]
            values = keys[0, order].tolist()
            if len(values) < many or values[-1] >= NEVER:
                return NEVER, ()
            return sum(values), tuple((0, row) for row in order.tolist())
        # No more nodes are used than all parts have, so for each column only as many of its cheapest matter.
        most = sum(self.wants)
        near = {row for column in keys for row in np.argsort(column, kind="stable")[:most].tolist()}
        best: dict[tuple[int, ...], tuple[int, tuple[Pick, ...]]] = {(0,) * len(self.wants): (0, ())}
        for row in sorted(near):
            grown = dict(best)
            for column, takes in enumerate(self.takes):
                key = int(keys[column, row])
                for have, (value, picks) in best.items() if key < NEVER else ():
                    now = tuple(a + b for a, b in zip(have, takes, strict=True))
                    known = grown.get(now)
                    if all(a <= b for a, b in zip(now, self.wants, strict=True)) and (
                        known is None or value + key < known[0]
                    ):
                        grown[now] = (value + key, (*picks, (column, row)))
            best = grown
        return best.get(self.wants, (NEVER, ()))


class Budget:
    """Steps that are left for a search, and whether they were too few."""

    def __init__(self, steps: int) -> None:
        self.left, self.met = steps, False

    def step(self) -> bool:
        """Take a step; False: there is none left."""
        self.left -= 1
        self.met |= self.left < 0
        return self.left >= 0


class Way(NamedTuple):
    """Key of a group, its columns and node rows, and the rows of the jobs that free GPUs for several of its nodes."""

    key: int
    picks: tuple[Pick, ...]
    shared: tuple[int, ...]
    victims: tuple[int, ...]


class _Case(NamedTuple):
    """What is decided of some jobs: bound, number of the case, what evicted jobs cost, and what follows for each node."""

    bound: int
    number: int
    paid: int
    decided: frozenset[int]
    costs: Ints
    keys: Ints
    picks: tuple[Pick, ...]


class Branches:
    """The search in one domain. `rows`: its nodes; `costs`: of their jobs, those on several of these nodes at their share."""

    def __init__(self, asked: Asked, rows: Ints, costs: Ints, keys: Ints) -> None:
        self.asked, self.rows = asked, rows
        self.free, self.masks, self.jobs = asked.land.contents(rows)
        self._root = costs, keys
        self._numbers = 0

    def best(self, below: int, budget: Budget) -> Way | None:
        """The cheapest group that costs less than `below`; None: none does, or none was found within the budget."""
        costs, keys = self._root
        heap: list[_Case] = []
        self._push(heap, below, 0, frozenset(), costs, keys)
        best: Way | None = None
        while heap:
            case = heappop(heap)
            if case.bound >= below or not budget.step():
                break
            way, open_job = self._look(case)
            if way.key < below:
                best, below = way, way.key
            if open_job is None:
                continue
            here = self.jobs == open_job
            whole = int(self.asked.land.job_keys(np.array([open_job]))[0])
            rows = np.flatnonzero(here.any(axis=1))
            for price in (0, whole):
                costs = np.where(here, price, case.costs)
                keys = case.keys.copy()
                keys[:, rows] = self.asked.least(self.rows[rows], costs[rows])
                paid = case.paid + whole - price
                self._push(heap, below, paid, case.decided | {open_job}, costs, keys)
        return best

    def _push(self, heap: list[_Case], below: int, paid: int, decided: frozenset[int], costs: Ints, keys: Ints) -> None:
        value, picks = self.asked.assign(keys)
        if value < NEVER and paid + value < below:
            self._numbers += 1
            heappush(heap, _Case(paid + value, self._numbers, paid, decided, costs, keys, picks))

    def _look(self, case: _Case) -> tuple[Way, int | None]:
        """What the group of a case really costs, and the job of which most is not paid in its bound; None: all are."""
        shares: dict[int, int] = {}
        times: dict[int, int] = {}
        for job, share in self._victims(case):
            shares[job] = shares.get(job, 0) + share
            times[job] = times.get(job, 0) + 1
        jobs = sorted(shares)
        whole = dict(zip(jobs, self.asked.land.job_keys(np.array(jobs, dtype=np.int64)).tolist(), strict=True))
        key = case.bound - case.paid - sum(shares.values()) + sum(whole.values())
        way = Way(key, case.picks, tuple(job for job in jobs if times[job] > 1), tuple(jobs))
        gaps = [(shares[job] - whole[job], job) for job in jobs if job not in case.decided]
        # Shares are rounded down, so a job on all whose nodes it is used may seem to lack a few thousandths.
        gap, job = min(gaps, default=(0, 0))
        return way, job if -gap > times.get(job, 0) else None

    def _victims(self, case: _Case) -> list[tuple[int, int]]:
        """The victims on each node of the case's group, and what they cost there."""
        found: list[tuple[int, int]] = []
        for column in range(len(self.asked.takes)):
            mine = np.array([row for k, row in case.picks if k == column], dtype=np.int64)
            for shape, some in self.asked.land.shapes_of(self.rows[mine]) if len(mine) else ():
                here = mine[some]
                search = self.asked.search(column, shape)
                free, masks, costs = self.free[here], self.masks[here], case.costs[here]
                gpus = search.subs[search.candidates(free, masks, costs).argmin(axis=1)]
                hit = (masks & ~free[:, None] & gpus[:, None]) != 0
                found += zip(self.jobs[here][hit].tolist(), costs[hit].tolist(), strict=True)
        return found
