"""Which nodes may be part of the cheapest plan for several services, by what their GPUs cost at least.

Every GPU that is asked for gets a price. If each node takes just what pays at that price, the sum is a bound from below of any
plan; a node where even the best offer costs so much more than its price that the bound exceeds a known plan is left out
(Lagrangian bound, fixing by reduced costs). Links are forgotten here: the cheapest jobs of a node with enough GPUs.
"""

from collections.abc import Sequence

import numpy as np

from colocd.core.arrays import Ints, popcount
from colocd.core.ground import Ground
from colocd.core.openings import allowed
from colocd.core.search import NEVER
from colocd.core.service import ServiceSpec

_MOST_PAYING = 64
"""Nodes that may pay at the prices that are tried."""


class Relevance:
    """Bounds of one request. `rows`: nodes that could take a part in it; `total`: GPUs that are asked for."""

    def __init__(self, land: Ground, wants: Sequence[tuple[ServiceSpec, int]]) -> None:
        able = np.logical_or.reduce([allowed(land, spec) for spec, _ in wants])
        each, unit = land.split_prices(sum(many for _, many in wants))
        self.rows: Ints = np.flatnonzero(able & (land.open | (land.later != 0) | land.sharing()))
        self.total = sum(spec.gpus_per_replica * many for spec, many in wants)
        free = np.where(land.open[self.rows], land.free_masks[self.rows], 0) | land.later[self.rows]
        have, reach = popcount(free), popcount(free | land.reach()[self.rows])
        each, unit = each[self.rows], np.minimum(unit[self.rows], NEVER >> 6)
        sizes = _sizes(wants, int(reach.max(initial=0)))
        floors: Ints = np.zeros((len(sizes), len(self.rows)), dtype=np.int64)
        for at, size in enumerate(sizes):
            short = size - have
            floors[at] = np.where(short <= 0, 0, np.maximum(each, unit * short))
            floors[at][reach < size] = NEVER
        self._sizes, self._floors = sizes, floors
        self._set_price(sizes, floors)

    def _set_price(self, sizes: Sequence[int], floors: Ints) -> None:
        """The price for a GPU with the best bound: one of those at which one node more pays. The bound is concave in it."""
        gpus = np.array(sizes, dtype=np.int64)[:, None]
        self.bound, self.price = 0, 0
        least = (floors // gpus).min(axis=0, initial=NEVER)
        most = min(_MOST_PAYING, len(least))
        near = np.argpartition(least, most - 1)[:most] if most else np.zeros(0, dtype=np.int64)
        for price in np.unique(least[near][least[near] < NEVER >> 8]).tolist():
            gains = np.minimum((floors[:, near] - price * gpus).min(axis=0), 0)
            bound = price * self.total + int(gains.sum())
            if bound < self.bound:
                break
            self.bound, self.price = bound, price
        self.over: Ints = (floors - self.price * gpus).min(axis=0, initial=NEVER)
        self._pays = dict(zip(self.rows.tolist(), np.minimum(self.over, 0).tolist(), strict=True))

    def limit(self, row: int, below: int, gpus: int) -> int:
        """What so many GPUs of a node cost less than in any plan that costs less than `below`."""
        return NEVER if below >= NEVER else below - self.bound + self._pays[row] + self.price * gpus

    def gains(self, worth: Sequence[int]) -> Ints:
        """What each of `rows` gains at most, negative, when 0, 1, … GPUs of a node are worth so much to replicas."""
        found: Ints = np.zeros(len(self.rows), dtype=np.int64)
        for size, floors in zip(self._sizes, self._floors, strict=True):
            np.minimum(found, floors - worth[size], out=found)
        return found

    def near(self, below: int) -> Ints:
        """Rows that may be part of a plan that costs less than `below`, the most promising first."""
        some = np.flatnonzero(self.over < (NEVER >> 1 if below >= NEVER else max(1, below - self.bound)))
        return self.rows[some[np.argsort(self.over[some], kind="stable")]]


def unit_floors(land: Ground, rows: Ints, most: int, many: int) -> Ints:
    """What the cheapest 1, 2, … `most` GPUs of each node cost at least, each at its share of its job's key; links forgotten.

    Closer than the floors of `Relevance`, and dearer to work out. `many`: replicas wanted, over which a job's nodes are split.
    """
    _, masks, jobs = land.contents(rows)
    free = np.where(land.open[rows], land.free_masks[rows], 0) | land.later[rows]
    held = masks & ~free[:, None]
    keys = land.job_keys(jobs) // np.clip(land.index.span[jobs], 1, many)
    unit = keys // np.maximum(popcount(held), 1)
    dear = NEVER >> 6
    prices: Ints = np.full((len(rows), most), dear, dtype=np.int64)
    for gpu in range(most):
        prices[:, gpu] = np.where(held >> gpu & 1, unit, dear).min(axis=1, initial=dear)
        prices[free >> gpu & 1 != 0, gpu] = 0
    prices.sort(axis=1)
    sums: Ints = np.minimum(np.cumsum(prices, axis=1), NEVER >> 2)
    least = np.where(held != 0, keys, dear).min(axis=1, initial=dear)
    return np.where(sums > 0, np.maximum(sums, least[:, None]), 0)


def _sizes(wants: Sequence[tuple[ServiceSpec, int]], most: int) -> list[int]:
    """Numbers of GPUs that some of the replicas take on a node, up to `most`."""
    found = {0}
    for spec, many in wants:
        found |= {
            size + count * spec.gpus_per_replica
            for size in found
            for count in range(many + 1)
            if size + count * spec.gpus_per_replica <= most
        }
    return sorted(found - {0})
