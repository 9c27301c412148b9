"""Nodes where one eviction serves several replicas: which of these *bundles* are worth it.

A bundle is a node with one replica that evicts jobs, and more that sit on what these jobs leave. The others of a service are
placed singly; how many replicas go where is decided by dynamic programming over their number.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.ground import Ground
from colocd.core.openings import allowed, open_keys
from colocd.core.search import NEVER, Request
from colocd.core.service import ServiceSpec

MOST_NODES = 1024
"""Nodes looked at for bundles: those where a single replica costs least."""
MOST_BUNDLES = 32
"""Nodes whose bundles are worked out: those that may save most."""
NEAR = 4
"""How many times as many nodes as are wanted are looked at first; what these save is the mark for all others."""


class Waiting(NamedTuple):
    """Nodes with GPUs that come free without any eviction, and how many replicas fit there."""

    rows: tuple[int, ...]
    fit: tuple[int, ...]


Options = list[tuple[int, int]]
"""For 1, 2, … replicas on a node: key of all, and GPUs of the one that starts now."""


class Bundle(NamedTuple):
    """So many replicas on one node; key of all, and GPUs of the one that starts now."""

    replicas: int
    option: tuple[int, int]


class Split(NamedTuple):
    """Which bundles there are, by node row, and how many replicas wait on which row; the others are picked singly."""

    bundles: dict[int, Bundle]
    waits: dict[int, int]


def split(land: Ground, spec: ServiceSpec, many: int, wait: Waiting) -> Split:
    """The cheapest split of `many` replicas over the nodes: exact for nodes that share no jobs."""
    able = allowed(land, spec)
    keys = open_keys(land, spec, many, able=able)
    singles = np.sort(np.partition(keys, many - 1)[:many] if len(keys) > many else keys)
    singles = singles[singles < NEVER]
    if len(singles) >= many and singles[-1] == 0:
        return Split({}, {})
    dearest = [NEVER] * (many - len(singles)) + singles[::-1].tolist()
    return _cheapest(keys, singles, _bundle_keys(land, spec, able, dearest), wait, many)


def _bundle_keys(land: Ground, spec: ServiceSpec, able: Bools, dearest: Sequence[int]) -> dict[int, Options]:
    """Least keys for 1, 2, … replicas on the nodes where a bundle may be cheaper than as many single replicas.

    Bounds from below choose the nodes; they forget that all victims of a node have to make room for its first replica.
    `able`: nodes that may run the service. `dearest`: the keys of the single replicas that a bundle would replace, dearest
    first.
    """
    many = len(dearest)
    request = Request.of(spec)
    most = min(many, max((search.most for search in land.searches(request)), default=0))
    if most < 2 or spec.spread:
        return {}
    below = min(NEVER, sum(dearest[:most]))
    keys = open_keys(land, spec, MOST_NODES, below, able)
    limit = np.flatnonzero(keys < below)
    if len(limit) > MOST_NODES:
        limit = limit[np.argpartition(keys[limit], MOST_NODES - 1)[:MOST_NODES]]
    hopes, saves = [], []
    few = min(MOST_BUNDLES, many)
    for search, rows in land.by_shape(request, limit):
        depth = min(many, search.most)
        rows = rows[keys[rows] < min(NEVER, sum(dearest[:depth]))] if depth > 1 else rows[:0]
        if not len(rows):
            continue
        singles = np.array([min(NEVER, sum(dearest[:m])) for m in range(2, depth + 1)])
        if len(limit) <= few:
            hopes.append(rows)
            saves.append(np.ones(len(rows), dtype=np.int64))
            continue
        # Quick bounds first: only nodes that may be among those that save most are looked at closely.
        floors = land.floors(request, rows, depth)[:, 1:]
        hoped = (singles - floors).max(axis=1)
        order = np.argsort(-hoped, kind="stable")
        rows, floors, hoped = rows[order], floors[order], hoped[order]
        saved = np.zeros(0, dtype=np.int64)
        while (at := len(saved)) < len(rows) and hoped[at] >= (np.sort(saved)[-few] if at else 1):
            part = slice(at, at + NEAR * few)
            closer = np.maximum(land.bounds(request, rows[part], depth)[:, 1:], floors[part])
            saved = np.concatenate([saved, (singles - closer).max(axis=1)])
        hopes.append(rows[: len(saved)])
        saves.append(saved)
    if not hopes:
        return {}
    rows, saved = np.concatenate(hopes), np.concatenate(saves)
    order = np.lexsort((rows, -saved))[:few]
    worth = rows[order][saved[order] > 0].tolist()
    return {
        row: known
        for row, known in zip(worth, land.bundles(request, worth), strict=True)
        if any(known[m - 1][0] < sum(dearest[:m]) for m in range(2, min(many, len(known)) + 1))
    }


def _cheapest(keys: Ints, singles: Ints, least: dict[int, Options], wait: Waiting, many: int) -> Split:
    """The split that serves most replicas with the least sum of keys; which nodes take single replicas is left open."""
    options = [(True, row, list(range(1, fit + 1))) for row, fit in zip(*wait, strict=True)]
    options += [(False, row, [key for key, _ in known]) for row, known in sorted(least.items())]
    best: Ints = np.full(many + 1, NEVER, dtype=np.int64)
    best[0] = 0
    used = np.zeros((len(options), many + 1), dtype=np.int64)
    for at, (_, _, costs) in enumerate(options):
        before = best.copy()
        for m, cost in enumerate(costs[:many], start=1):
            grown = before[:-m] + cost
            better = grown < best[m:]
            np.copyto(best[m:], grown, where=better)
            used[at, m:][better] = m
    left = _with_singles(best, _others(keys, singles, least, many), many)
    split = Split({}, {})
    for (waits, row, _), counts in zip(reversed(options), used[::-1], strict=True):
        m = int(counts[left])
        if m and waits:
            split.waits[row] = m
        elif m > 1:
            split.bundles[row] = Bundle(m, least[row][m - 1])
        left -= m
    return split


def _others(keys: Ints, singles: Ints, least: dict[int, Options], many: int) -> Ints:
    """Sums of the 0, 1, … least keys of nodes without a bundle."""
    limit = int(singles[-1]) if len(singles) else -1
    plain: Ints = np.flatnonzero(keys <= limit)
    if least:
        plain = plain[~np.isin(plain, list(least))]
    return np.concatenate([[0], np.cumsum(np.sort(keys[plain])[:many])])


def _with_singles(best: Ints, sums: Ints, many: int) -> int:
    """How many replicas go into `best`'s options when the others are single: most replicas first, then the least sum."""
    options = [
        (-min(many, count + len(sums) - 1), int(best[count]) + int(sums[min(many - count, len(sums) - 1)]), count)
        for count in range(many + 1)
        if best[count] < NEVER
    ]
    return min(options)[2]
