"""In which domain a group is cheapest: bounds for all domains at once, closer looks only where they may matter."""

from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Bools, Ints, begins
from colocd.core.branch import Asked, Branches, Budget, Way
from colocd.core.search import NEVER

FIRST = 8
"""Domains that are looked at closely at first; then twice as many each time."""
NEAR = 32
"""Nodes from which a first group is made up where there are many."""
LARGE = 256
"""Nodes beyond which it is worth to leave out those that are too dear for any group."""


class Place(NamedTuple):
    """The cheapest group: the node rows of its domain, its key, who sits on which row, and the jobs that several nodes share."""

    rows: Ints
    way: Way
    picks: tuple[tuple[int, int], ...]


def cheapest(asked: Asked, codes: Ints, budget: Budget) -> tuple[Place | None, Ints]:
    """The cheapest group within one domain; None: it fits in none. And the domains' numbers, those with the least bound first.

    `codes`: each node's domain, -1 where it counts in none.
    """
    codes = np.where(asked.able, codes, -1)
    most = sum(asked.wants)
    many = int(codes.max(initial=-1)) + 1
    floors = _floors(asked, most)
    bounds = _bounds(asked, codes, floors, many)
    first = np.full(many + 1, len(codes), dtype=np.int64)
    np.minimum.at(first, codes, asked.land.index.name_rank)
    order = np.lexsort((first[:-1], bounds))
    order = order[bounds[order] < NEVER]
    best: Place | None = None
    at, size = 0, FIRST
    while at < len(order) and bounds[order[at]] < (below := NEVER if best is None else best.way.key):
        batch = order[at : at + size]
        at, size = at + size, 2 * size
        chosen: Bools = np.zeros(many + 1, dtype=np.bool_)
        chosen[batch[bounds[batch] < below]] = True
        rows = np.flatnonzero(chosen[codes])
        if len(rows) > LARGE:
            mine = np.flatnonzero(codes == batch[0])
            below = min(below, _reached(asked, mine, floors[:, mine]) + 1)
            rows = rows[_may_matter(asked, codes[rows], floors[:, rows], many, below)]
        rows = rows[np.argsort(asked.land.index.name_rank[rows], kind="stable")]
        costs = _shares(asked, codes[rows], rows, most)
        keys = asked.least(rows, costs)
        closer = _bounds(asked, codes[rows], keys, many)
        for domain in batch[np.lexsort((first[batch], closer[batch]))].tolist():
            below = NEVER if best is None else best.way.key
            if closer[domain] >= below:
                break
            mine = np.flatnonzero(codes[rows] == domain)
            way = Branches(asked, rows[mine], costs[mine], keys[:, mine]).best(below, budget)
            if way is not None:
                best = Place(np.flatnonzero(codes == domain), way, tuple((k, int(rows[mine[r]])) for k, r in way.picks))
    return best, order


def _floors(asked: Asked, most: int) -> Ints:
    """Quick bounds from below of each column on each node, with the cost of a job on several nodes split."""
    land = asked.land
    each, unit = land.split_prices(most)
    keys: Ints = np.full((len(asked.members), len(land.open)), NEVER, dtype=np.int64)
    for column, members in enumerate(asked.members):
        rows = np.flatnonzero(members)
        for shape, some in land.shapes_of(rows):
            here = rows[some]
            keys[column, here] = asked.search(column, shape).floor(land.free_masks[here], each[here], unit[here])[0]
    return keys


def _shares(asked: Asked, codes: Ints, rows: Ints, most: int) -> Ints:
    """What the jobs on these rows cost each node: a job on several nodes of a domain is split over them, or over `most`."""
    land = asked.land
    _, masks, jobs = land.contents(rows)
    costs = land.costs_of(rows)
    wide = np.nonzero((masks != 0) & (land.index.span[jobs] > 1))
    if not len(wide[0]):
        return costs
    pairs = codes[wide[0]] * len(land.index.jobs) + jobs[wide]
    _, which, counts = np.unique(pairs, return_inverse=True, return_counts=True)
    costs[wide] //= np.minimum(counts, most)[which]
    return costs


def _bounds(asked: Asked, codes: Ints, keys: Ints, many: int) -> Ints:
    """What a group costs at least in each domain, from what its nodes cost at least."""
    sums = [_sums(codes, keys[k], wanted, many) for k, wanted in enumerate(asked.wants)]
    if len(sums) == 1:
        return sums[0]
    if asked.wants == (1, 1):
        apart: Ints = np.minimum(sums[0] + sums[1], NEVER)
        return np.minimum(apart, _sums(codes, keys[2], 1, many), out=apart)
    larger: Ints = np.maximum(*sums)
    return larger


def _sums(codes: Ints, keys: Ints, wanted: int, many: int) -> Ints:
    """Per domain the sum of so many of its least keys; `NEVER` where there are too few."""
    out: Ints = np.full(many, NEVER, dtype=np.int64)
    rows = np.flatnonzero((keys < NEVER) & (codes >= 0))
    if not len(rows):
        return out
    rows = rows[np.lexsort((keys[rows], codes[rows]))]
    mine = codes[rows]
    starts = np.flatnonzero(begins(mine))
    sizes = np.diff(np.concatenate([starts, [len(mine)]]))
    nth = np.arange(len(mine)) - np.repeat(starts, sizes)
    totals = np.add.reduceat(np.where(nth < wanted, keys[rows], 0), starts)
    out[mine[starts]] = np.where(sizes < wanted, NEVER, totals)
    return out


def _reached(asked: Asked, rows: Ints, floors: Ints) -> int:
    """What a group on these nodes costs at most: from those with the least bounds, as if they shared nothing."""
    few = NEAR
    while True:
        near = {row for column in floors for row in np.argsort(column, kind="stable")[:few].tolist()}
        some = rows[sorted(near)]
        value, _ = asked.assign(asked.least(some, asked.land.costs_of(some)))
        if value < NEVER or few >= len(rows):
            return min(value, NEVER - 1)
        few *= 4


def _may_matter(asked: Asked, codes: Ints, floors: Ints, many: int, below: int) -> Bools:
    """Which nodes may be part of a group in their domain that costs less than `below`."""
    out = np.zeros(len(codes), dtype=np.bool_)
    for column, takes in enumerate(asked.takes):
        rest = np.zeros(many, dtype=np.int64)
        if sum(takes) == 1 and asked.wants[column] > 1:
            rest = _sums(codes, floors[column], asked.wants[column] - 1, many)
        out |= (floors[column] < NEVER) & (floors[column] + rest[codes] < below)
    return out
