"""What nodes offer for several replicas at given prices: all starts on all nodes, each with what fits beside it, as arrays.

An *offer* of a node is a vector of replicas and what it costs: one replica that starts and evicts jobs, others that wait for
what these leave. Services that ask for the same are one axis of the vectors. Nodes with jobs on
further nodes have several standings (`standings`).
"""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Bools, Ints, begins
from colocd.core.mixes import Mixes
from colocd.core.search import MISSED_SHIFT, NEVER, NodeSearch
from colocd.core.standings import MOST_SHARED, Standings

_DEAR = NEVER >> 1
"""Cost of an offer that there is not: more than any, and sums with prices stay in range."""


class Table(NamedTuple):
    """Offers that cost little more than the best of their node, a row an offer, sorted by node and by cost.

    `node`: row of the index; `vectors`: replicas; `gap`: how much more it costs than the node's best offer at the prices, 0 for
    that one; `key`: what it costs; `starts`, `gpus`: axis and GPUs of the replica that starts now, -1 where none does.
    """

    node: Ints
    vectors: Ints
    gap: Ints
    key: Ints
    starts: Ints
    gpus: Ints


class Offers:
    """The offers of nodes of one shape on which the same services may run. `rows`: the nodes; `mix`: what fits there.

    `searches`: the search of each axis, None where it may not run on these nodes. `standings`: of these nodes, in their order.
    """

    def __init__(self, mix: Mixes, searches: Sequence[NodeSearch | None], rows: Ints, standings: Standings) -> None:
        self.rows, self._mix, self._searches, self._standings = rows, mix, searches, standings
        self._vectors: Ints = np.array(mix.vectors, dtype=np.int64)
        self._totals = self._vectors.sum(axis=1)
        free, later, opened = standings.free, standings.later, standings.opened
        must = standings.must
        # To start nothing is no way out for a node that has to evict somebody.
        self._idle: Ints = np.zeros(len(rows), dtype=np.int64)
        self._idle[standings.node[must.any(axis=1)]] = _DEAR
        table = next(search.table for search in searches if search is not None)
        self._shift = table.shape.gpus
        # The first column is to start nothing: what waits sits on what comes free anyway.
        codes = [np.where(later != 0, later | np.where(opened, free, 0), 0)[:, None]]
        keys, starts, gpus = [], [-1], [0]
        for at, search in enumerate(searches):
            if search is not None and len(search.subs):
                key, room = search.with_rooms(free, standings.masks, standings.costs)
                keys.append(key)
                codes.append((room | later[:, None]) & ~search.subs & search.all | (at + 1) << self._shift)
                starts += [at] * len(search.subs)
                gpus += search.subs.tolist()
        self._starts, self._gpus = np.array(starts), np.array(gpus)
        self._keys = self._paid(keys)
        every: Ints = np.concatenate(codes, axis=1)
        # What is beside a start depends on the service and on the room that is left only: few pairs in all.
        met: Bools = np.zeros((len(searches) + 1) << self._shift, dtype=np.bool_)
        met[every[self._keys < _DEAR]] = True
        met[0] = True  # Nothing beside nothing, so there is a pair also where no node can do what it has to.
        self._pairs: list[int] = np.flatnonzero(met).tolist()
        self._pair: Ints = np.maximum(np.cumsum(met) - 1, 0)[every]
        self._largest = self._lists([mix.largest(*self._split(pair)) for pair in self._pairs])

    def _paid(self, found: Sequence[Ints]) -> Ints:
        """Keys of all starts with what the standings cost; `found`: of the starts of each service alone."""
        standings = self._standings
        keys: Ints = np.concatenate([np.zeros((len(standings.node), 1), dtype=np.int64), *found], axis=1)
        able = keys < 1 << MISSED_SHIFT
        able[:, 1:] &= standings.opened[:, None]
        for held in np.flatnonzero(standings.must.any(axis=0)).tolist():
            able &= ~standings.must[:, held, None] | ((standings.masks[:, held, None] & self._gpus) != 0)
        return np.where(able, keys + standings.paid[:, None], _DEAR)

    def reprice(self, shares: Ints) -> None:
        """From now on the shared jobs cost each node so much; a row a node, a column a job."""
        self.shares = shares
        standings = self._standings = self._standings.priced(shares)
        searches = [search for search in self._searches if search is not None and len(search.subs)]
        self._keys = self._paid([s.candidates(standings.free, standings.masks, standings.costs) for s in searches])

    @property
    def sharing(self) -> bool:
        """Whether some job of these nodes is on further nodes."""
        return bool(self._standings.shared.any())

    @cached_property
    def loose(self) -> Bools:
        """Nodes with so many shared jobs that not all standings are known: what they gain at most is not."""
        found: Bools = np.zeros(len(self.rows), dtype=np.bool_)
        found[self._standings.node] = self._standings.shared.sum(axis=1) > MOST_SHARED
        return found

    @cached_property
    def shared(self) -> Bools:
        """The jobs of each node that are on further nodes; a row a node, a column a job."""
        return self._standings.shared[self._alone]

    @cached_property
    def jobs(self) -> Ints:
        """The rows of the jobs of each node; a row a node, a column a job."""
        return self._standings.jobs[self._alone]

    @cached_property
    def shares(self) -> Ints:
        """What they cost each node."""
        return self._standings.costs[self._alone]

    @property
    def _alone(self) -> Ints:
        """The standing of each node in which nobody evicts its jobs from elsewhere: the first one."""
        return np.flatnonzero(begins(self._standings.node))

    def _split(self, pair: int) -> tuple[int, int | None]:
        at = pair >> self._shift
        return pair & ((1 << self._shift) - 1), at - 1 if at else None

    def _lists(self, lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
        """Numbers of vectors, a row a list, and how many of each vector's replicas wait; short rows are filled up."""
        width = max(1, *(len(numbers) for numbers in lists))
        numbers = np.array([[*found, *[found[0] if found else 0] * (width - len(found))] for found in lists])
        begun = np.array(self._pairs) >> self._shift != 0
        waits = self._totals[numbers] - begun[: len(lists), None]
        waits[[not found for found in lists]] = _DEAR
        return numbers, waits

    def _over(self, prices: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """For each start of each standing what it costs above its worth; for each node the least of it, and where that is."""
        numbers, waits = self._largest
        values = (self._vectors @ prices)[numbers] - waits
        over = self._keys - values.max(axis=1)[self._pair]
        column = over.argmin(axis=1)
        least = over[np.arange(len(column)), column]
        nth = np.arange(len(column))
        if len(nth) > len(self.rows):
            order = np.lexsort((least, self._standings.node))
            nth = order[begins(self._standings.node[order])]
        return over, least[nth], nth, column[nth]

    def best(self, prices: Ints) -> tuple[Ints, Ints]:
        """For each node what its best offer costs above its worth, 0 at most if it may do nothing; and all their replicas."""
        _, least, nth, column = self._over(prices)
        numbers, waits = self._largest
        pays = least < self._idle
        pairs = self._pair[nth[pays], column[pays]]
        some = numbers[pairs]
        taken: Ints = self._vectors[
            some[np.arange(len(some)), ((self._vectors @ prices)[some] - waits[pairs]).argmax(axis=1)]
        ].sum(axis=0)
        return np.minimum(least, self._idle), taken

    def touched(self, prices: Ints) -> tuple[Bools, Bools]:
        """The shared jobs that each node's best offer evicts, and those that it counts on; as `shared`."""
        _, least, nth, column = self._over(prices)
        found = self._standings
        pays = (least < self._idle)[:, None]
        hit = found.shared[nth] & ((found.masks[nth] & ~found.free[nth][:, None] & self._gpus[column][:, None]) != 0)
        return hit & pays, found.struck[nth] & pays

    def that_pay(self, prices: Ints) -> "Offers":
        """The same for the nodes only where something pays at these prices, or has to."""
        _, least, _, _ = self._over(prices)
        kept = (least < 0) | (self._idle > 0)
        some = kept[self._standings.node]
        twin = copy(self)
        for name in ("loose", "shared", "jobs", "shares"):
            twin.__dict__.pop(name, None)
        twin.rows, twin._idle = self.rows[kept], self._idle[kept]
        twin._keys, twin._pair = self._keys[some], self._pair[some]
        twin._standings = self._standings.only(some, (np.cumsum(kept) - 1)[self._standings.node[some]])
        return twin

    @cached_property
    def _all(self) -> tuple[Ints, Ints]:
        return self._lists([[number for number, _ in self._mix.options(*self._split(pair))] for pair in self._pairs])

    def near(self, prices: Ints, below: int) -> Table:
        """The offers that cost less than `below` more than their node's best, the cheapest of each vector on each node."""
        worth = self._vectors @ prices
        over, least, _, _ = self._over(prices)
        base = np.minimum(least, self._idle)
        row, column = np.nonzero(over < (base + below)[self._standings.node][:, None])
        node = self._standings.node[row]
        numbers, waits = (found[self._pair[row, column]] for found in self._all)
        keys = self._keys[row, column]
        gaps = keys[:, None] - worth[numbers] + waits - base[node][:, None]
        which, nth = np.nonzero(gaps < below)
        node, column, number, gap = node[which], column[which], numbers[which, nth], gaps[which, nth]
        key = keys[which] + waits[which, nth]
        # To do nothing is an offer of every node that has to evict nobody.
        idle = np.flatnonzero(self._idle == 0)
        node, column = np.concatenate([idle, node]), np.concatenate([np.zeros_like(idle), column])
        number, gap = np.concatenate([np.zeros_like(idle), number]), np.concatenate([-base[idle], gap])
        key = np.concatenate([np.zeros_like(idle), key])
        order = np.lexsort((column, gap, number, node))
        node, number = node[order], number[order]
        first = begins(node, number)
        some = order[first]
        node, number, gap, column = node[first], number[first], gap[some], column[some]
        again = np.lexsort((number, gap, node))
        column = column[again]
        return Table(
            self.rows[node[again]], self._vectors[number[again]], gap[again], key[some][again],
            self._starts[column], self._gpus[column],
        )  # fmt: skip


def joined(tables: Sequence[Table]) -> Table:
    """One table of the offers of different nodes."""
    return Table(*(np.concatenate(columns) for columns in zip(*tables, strict=True)))
