"""What nodes have for replicas, with the jobs that they share with other nodes: who evicts such a job, and who counts on it.

Each way in which shared jobs of a node may be evicted from elsewhere is a *standing* of that node.
"""

from collections.abc import Mapping
from itertools import compress, product
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.ground import Ground

MOST_SHARED = 4
"""Jobs of one node that are on further nodes, up to which all ways to evict them from elsewhere are looked at."""


class Standings(NamedTuple):
    """A row a standing, sorted by node.

    `node`: which of the nodes; `free`, `later`: GPUs that are free, and that come free without an eviction here; `masks`, `jobs`,
    `costs`: GPUs, rows and keys of the jobs that may be evicted here; `shared`: which of them are on further nodes; `must`: which
    of them have to be; `struck`: which are evicted elsewhere, `paid`: what these cost this node.
    """

    node: Ints
    free: Ints
    later: Ints
    opened: Bools
    masks: Ints
    jobs: Ints
    costs: Ints
    shared: Bools
    must: Bools
    struck: Bools
    paid: Ints

    def only(self, some: Bools, node: Ints) -> "Standings":
        """Some of the standings, of nodes that are numbered so from now on."""
        return Standings._make([node, *(column[some] for column in self[1:])])

    def priced(self, shares: Ints) -> "Standings":
        """The same when shared jobs cost each node so much; a row a node, a column a job."""
        costs = shares[self.node]
        paid: Ints = np.where(self.struck, costs, 0).sum(axis=1)
        return self._replace(costs=np.where(self.shared, costs, self.costs), paid=paid)


def plain(land: Ground, rows: Ints) -> Standings:
    """One standing a node: a job on several nodes is a victim as any other."""
    free, masks, jobs = land.contents(rows)
    shared = (masks != 0) & (land.index.span[jobs] > 1)
    nobody = np.zeros_like(shared)
    return Standings(
        np.arange(len(rows)), free, land.later[rows], land.open[rows], masks, jobs, land.costs_of(rows), shared,
        nobody, nobody.copy(), np.zeros(len(rows), dtype=np.int64),
    )  # fmt: skip


def split(land: Ground, rows: Ints, many: int) -> Standings:
    """All standings of the nodes, each shared job at an even share of its key wherever it is used: no plan costs less.

    Nodes with more than `MOST_SHARED` such jobs have the standing only in which none is evicted elsewhere. `many`: replicas
    wanted, over which a job's nodes are split at most.
    """
    all_in = plain(land, rows)
    if not all_in.shared.any():
        return all_in
    costs = np.where(all_in.shared, all_in.costs // np.clip(land.index.span[all_in.jobs], 1, many), all_in.costs)
    able = [land.reachable(row) for row in rows.tolist()]
    which: list[int] = []
    used: list[tuple[int, ...]] = []
    for nth, columns in enumerate(all_in.shared):
        mine = np.flatnonzero(columns).tolist() if able[nth] else []
        for word in product((False, True), repeat=len(mine) if len(mine) <= MOST_SHARED else 0):
            which.append(nth)
            used.append(tuple(compress(mine, word)))
    at = np.array(which)
    found = Standings._make([at, *(column[at] for column in all_in._replace(costs=costs)[1:])])
    for nth, struck in enumerate(used):
        _strike(found, nth, struck)
    return found.priced(costs)


def decided(land: Ground, rows: Ints, payers: Mapping[int, int]) -> Standings:
    """One standing a node: the job of each row of `payers` is evicted by that node, and the others count on it."""
    found = plain(land, rows)
    found = found._replace(masks=found.masks.copy())
    for nth, column in zip(*np.nonzero(found.shared), strict=True):
        payer = payers.get(int(found.jobs[nth, column]))
        if payer == rows[nth]:
            found.must[nth, column] = True
        elif payer is not None and land.reachable(int(rows[nth])):
            _strike(found, int(nth), (int(column),))
        elif payer is not None:
            found.masks[nth, column] = 0
    return found


def _strike(found: Standings, nth: int, columns: tuple[int, ...]) -> None:
    """The jobs of these columns are evicted elsewhere: their GPUs come free."""
    for column in columns:
        found.later[nth] |= found.masks[nth, column] & ~found.free[nth]
        found.masks[nth, column] = 0
        found.shared[nth, column], found.struck[nth, column] = False, True
