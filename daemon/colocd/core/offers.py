"""What nodes offer for several replicas at given prices: all starts on all nodes, each with what fits beside it, as arrays.

An *offer* of a node is a vector of replicas and what it costs: one replica that starts and evicts jobs, others that wait for
what these leave. Services that ask for the same are one axis of the vectors. Jobs on several nodes count as any other.
"""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.ground import Ground
from colocd.core.mixes import Mixes
from colocd.core.search import MISSED_SHIFT, NEVER, NodeSearch

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

    `searches`: the search of each axis, None where it may not run on these nodes.
    """

    def __init__(self, land: Ground, mix: Mixes, searches: Sequence[NodeSearch | None], rows: Ints) -> None:
        self.rows, self._mix = rows, mix
        self._vectors: Ints = np.array(mix.vectors, dtype=np.int64)
        self._totals = self._vectors.sum(axis=1)
        free, masks, _ = land.contents(rows)
        costs, later, opened = land.costs_of(rows), land.later[rows], land.open[rows]
        table = next(search.table for search in searches if search is not None)
        self._shift = table.shape.gpus
        # The first column is to start nothing: what waits sits on what comes free anyway.
        keys = [np.zeros((len(rows), 1), dtype=np.int64)]
        codes = [np.where(later != 0, later | np.where(opened, free, 0), 0)[:, None]]
        starts, gpus = [-1], [0]
        for at, search in enumerate(searches):
            if search is None or not len(search.subs):
                continue
            key, room = search.with_rooms(free, masks, costs)
            keys.append(np.where((key < 1 << MISSED_SHIFT) & opened[:, None], key, _DEAR))
            codes.append((room | later[:, None]) & ~search.subs & search.all | (at + 1) << self._shift)
            starts += [at] * len(search.subs)
            gpus += search.subs.tolist()
        self._keys: Ints = np.concatenate(keys, axis=1)
        every: Ints = np.concatenate(codes, axis=1)
        self._starts, self._gpus = np.array(starts), np.array(gpus)
        # What is beside a start depends on the service and on the room that is left only: few pairs in all.
        met: Bools = np.zeros((len(searches) + 1) << self._shift, dtype=np.bool_)
        met[every[self._keys < _DEAR]] = True
        self._pairs: list[int] = np.flatnonzero(met).tolist()
        self._pair: Ints = np.maximum(np.cumsum(met) - 1, 0)[every]
        self._largest = self._lists([mix.largest(*self._split(pair)) for pair in self._pairs])

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

    def best(self, prices: Ints) -> tuple[Ints, Ints]:
        """For each node how much its best offer costs less than it is worth, negative, else 0; and all these offers' replicas."""
        numbers, waits = self._largest
        values = (self._vectors @ prices)[numbers] - waits
        over = self._keys - values.max(axis=1)[self._pair]
        column = over.argmin(axis=1)
        nodes = np.arange(len(column))
        gains = over[nodes, column]
        pays = gains < 0
        pairs = self._pair[nodes[pays], column[pays]]
        taken: Ints = self._vectors[numbers[pairs, values[pairs].argmax(axis=1)]].sum(axis=0)
        return np.minimum(gains, 0), taken

    def that_pay(self, prices: Ints) -> "Offers":
        """The same for the nodes only where something pays at these prices, or nearly so."""
        gains, _ = self.best(prices * 9 // 8)
        some = np.flatnonzero(gains)
        twin = copy(self)
        twin.rows, twin._keys, twin._pair = self.rows[some], self._keys[some], self._pair[some]
        return twin

    @cached_property
    def _all(self) -> tuple[Ints, Ints]:
        return self._lists([[number for number, _ in self._mix.options(*self._split(pair))] for pair in self._pairs])

    def near(self, prices: Ints, below: int) -> Table:
        """The offers that cost less than `below` more than their node's best, the cheapest of each vector on each node."""
        worth = self._vectors @ prices
        numbers, waits = self._largest
        over = self._keys - (worth[numbers] - waits).max(axis=1)[self._pair]
        base = np.minimum(over.min(axis=1), 0)
        node, column = np.nonzero(over < (base + below)[:, None])
        numbers, waits = (found[self._pair[node, column]] for found in self._all)
        gaps = self._keys[node, column][:, None] - worth[numbers] + waits - base[node][:, None]
        which, nth = np.nonzero(gaps < below)
        node, column, number, gap = node[which], column[which], numbers[which, nth], gaps[which, nth]
        key = self._keys[node, column] + waits[which, nth]
        # To do nothing is an offer of every node.
        idle = np.arange(len(self.rows))
        node, column = np.concatenate([idle, node]), np.concatenate([np.zeros_like(idle), column])
        number, gap = np.concatenate([np.zeros_like(idle), number]), np.concatenate([-base, gap])
        key = np.concatenate([np.zeros_like(idle), key])
        order = np.lexsort((column, gap, number, node))
        node, number = node[order], number[order]
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = (node[1:] != node[:-1]) | (number[1:] != number[:-1])
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
