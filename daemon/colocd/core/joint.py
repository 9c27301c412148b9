"""Several replicas of one service at once.

A replica may sit on GPUs that an earlier replica's victims give up beyond what that replica needs, on the same node or (jobs
on several nodes) on another one, at no further cost. Then it waits for that handover: a node has one handover at a time.
A *bundle* is a node with one replica that evicts jobs, and more that sit on what these jobs leave.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from colocd.core.ground import Ground
from colocd.core.index import Bools, Ints
from colocd.core.search import NEVER, NodeSearch, Request
from colocd.core.service import ServiceSpec
from colocd.core.view import Job

MOST_NODES = 1024
"""Nodes looked at for bundles: those where a single replica costs least."""
MOST_BUNDLES = 32
"""Nodes whose bundles are worked out: those that may save most."""


class Spot(NamedTuple):
    """A place for one replica: node row, GPUs, the jobs evicted for it, key; `waits`: its GPUs come free later."""

    row: int
    gpus: int
    victims: tuple[Job, ...]
    key: int
    waits: bool


def allowed(land: Ground, spec: ServiceSpec) -> Bools:
    """Nodes that may run the service at all: in its partition, known topology, CPUs to be had, no replica if they spread."""
    members = land.index.partitions.get(spec.partition)
    known: Bools = land.index.shape >= 0
    able = known & members if members is not None else np.zeros_like(known)
    able = able & (land.cpu_reach >= spec.cpus_per_replica)
    if land.cramped.get(spec.name):
        able[sorted(land.cramped[spec.name])] = False
    if spec.spread and land.hosts.get(spec.name):
        able[sorted(land.hosts[spec.name])] = False
    return able


def settle(land: Ground, spec: ServiceSpec, spot: "Spot") -> None:
    """Strike what a spot takes."""
    if spot.waits:
        land.lease(spot.row, spot.gpus)
    else:
        land.take(spot.row, spot.gpus, spot.victims)
    land.hosts.setdefault(spec.name, set()).add(spot.row)


def open_keys(land: Ground, spec: ServiceSpec, enough: int | None = None) -> Ints:
    """Per node the least key of a replica that starts there now; `NEVER` where none can.

    `enough`: so many of the cheapest nodes must be exact, the others may be bounds from below; None: all are exact.
    """
    members = land.open & allowed(land, spec)
    return land.keys(Request.of(spec), members, len(members) if enough is None else enough)


def pick(land: Ground, spec: ServiceSpec, keys: Ints | None = None) -> Spot | None:
    """Best place for one replica now: least key, users hit least, fewest broken islands, strongest, node name, lowest GPUs."""
    keys = open_keys(land, spec, 1) if keys is None else keys
    least = int(keys.min(initial=NEVER))
    if least >= NEVER:
        return None
    request = Request.of(spec)
    rows: Ints = np.flatnonzero(keys == least)
    found = land.refine(request, rows)
    measures = [found.damage, -found.strength, land.index.name_rank]
    if land.hits.any():
        again = np.zeros(len(keys), dtype=np.int64)
        again[rows] = land.again(rows, found.gpus[rows])
        measures.insert(0, again)
    for measure in measures:
        if len(rows) > 1:
            rows = rows[measure[rows] == measure[rows].min()]
    return _spot(land, int(rows[0]), int(found.gpus[rows[0]]), least)


def _spot(land: Ground, row: int, gpus: int, key: int) -> Spot:
    return Spot(row, gpus, tuple(land.holders(row, gpus)), key, waits=False)


class Waiting(NamedTuple):
    """Nodes with GPUs that come free without any eviction, and how many replicas fit there."""

    rows: tuple[int, ...]
    fit: tuple[int, ...]


def waiting(land: Ground, spec: ServiceSpec) -> Waiting:
    """Where replicas may wait for GPUs that other handovers free, in order of node names."""
    rows = np.flatnonzero((land.later != 0) & allowed(land, spec))
    found = [(row, fit) for row in rows.tolist() if (fit := _search(land, row, spec).packs(_room(land, row)))]
    found.sort(key=lambda pair: int(land.index.name_rank[pair[0]]))
    return Waiting(tuple(r for r, _ in found), tuple(min(f, 1) if spec.spread else f for _, f in found))


def _room(land: Ground, row: int) -> int:
    """GPUs for replicas that wait; on an open node they may take free ones in addition."""
    return int(land.later[row]) | (int(land.free_masks[row]) if land.open[row] else 0)


def _search(land: Ground, row: int, spec: ServiceSpec) -> NodeSearch:
    found = land.search(row, Request.of(spec))
    assert found is not None, "rows without a topology are left out before"
    return found


def place(land: Ground, spec: ServiceSpec, many: int) -> list[Spot]:
    """Places for up to `many` replicas, those that start now first; what they take is struck from `land`."""
    # One replica that may not wait for anything has nothing to be split.
    split = _split(land, spec, many) if many > 1 or land.later.any() else Split({}, {})
    now: list[Spot] = []
    later: list[Spot] = []
    for row, bundle in sorted(split.bundles.items(), key=lambda item: int(land.index.name_rank[item[0]])):
        search = _search(land, row, spec)
        options = search.bundles(*land.content(row))
        if len(options) < bundle:
            continue  # An earlier bundle took a job that this one counted on: its replicas are picked singly.
        key, gpus = options[bundle - 1]
        spot = _spot(land, row, gpus, key - (bundle - 1))
        settle(land, spec, spot)
        now.append(spot)
        later += _wait(land, spec, row, bundle - 1)
    for row, count in split.waits.items():
        later += _wait(land, spec, row, count)
    while len(now) + len(later) < many:
        found = pick(land, spec)
        if found is None:
            break
        settle(land, spec, found)
        now.append(found)
    # What nobody has to be evicted for was found above; what the last victims left over is found here.
    rest = waiting(land, spec) if len(now) + len(later) < many else Waiting((), ())
    for row, fit in zip(*rest, strict=True):
        later += _wait(land, spec, row, min(fit, many - len(now) - len(later)))
    return now + later


def _wait(land: Ground, spec: ServiceSpec, row: int, count: int) -> list[Spot]:
    spots = []
    for gpus in _search(land, row, spec).pack(_room(land, row), count):
        spots.append(Spot(row, gpus, (), 1, waits=True))
        settle(land, spec, spots[-1])
    return spots


class Split(NamedTuple):
    """How many replicas go into bundles (node row → replicas) and wait (node row → replicas); the others are picked singly."""

    bundles: dict[int, int]
    waits: dict[int, int]


def _split(land: Ground, spec: ServiceSpec, many: int) -> Split:
    """The cheapest split of `many` replicas over the nodes: exact for nodes that share no jobs."""
    keys = open_keys(land, spec, max(many, MOST_NODES))
    singles = np.sort(np.partition(keys, many - 1)[:many] if len(keys) > many else keys)
    singles = singles[singles < NEVER]
    wait = waiting(land, spec) if land.later.any() else Waiting((), ())
    if len(singles) >= many and singles[-1] == 0:
        return Split({}, {})
    dearest = [NEVER] * (many - len(singles)) + singles[::-1].tolist()
    return _cheapest(keys, singles, _bundle_keys(land, spec, keys, dearest), wait, many)


def _bundle_keys(land: Ground, spec: ServiceSpec, keys: Ints, dearest: Sequence[int]) -> dict[int, list[int]]:
    """Least keys for 1, 2, … replicas on the nodes where a bundle may be cheaper than as many single replicas.

    Bounds from below choose the nodes; they forget that all victims of a node have to make room for its first replica.
    `dearest`: the keys of the single replicas that a bundle would replace, dearest first.
    """
    many = len(dearest)
    if many < 2 or spec.spread:
        return {}
    request = Request.of(spec)
    limit = np.flatnonzero(keys < min(NEVER, sum(dearest)))
    if len(limit) > MOST_NODES:
        limit = limit[np.argpartition(keys[limit], MOST_NODES - 1)[:MOST_NODES]]
    hopes: list[tuple[int, int]] = []
    for table in np.unique(land.index.shape[limit]).tolist():
        rows = limit[land.index.shape[limit] == table]
        depth = min(many, _search(land, int(rows[0]), spec).most)
        if depth < 2:
            continue
        rows = rows[keys[rows] < min(NEVER, sum(dearest[:depth]))]
        saved = (
            np.array([min(NEVER, sum(dearest[:m])) for m in range(2, depth + 1)])
            - land.bounds(request, rows, depth)[:, 1:]
        )
        most = saved.max(axis=1)
        hopes += [(-int(most[at]), int(rows[at])) for at in np.flatnonzero(most > 0).tolist()]
    options: dict[int, list[int]] = {}
    for _, row in sorted(hopes)[: min(MOST_BUNDLES, many)]:
        costs = [key for key, _ in _search(land, row, spec).bundles(*land.content(row))]
        if any(costs[m - 1] < sum(dearest[:m]) for m in range(2, min(many, len(costs)) + 1)):
            options[row] = costs
    return options


def _cheapest(keys: Ints, singles: Ints, least: dict[int, list[int]], wait: Waiting, many: int) -> Split:
    """The split that serves most replicas with the least sum of keys; which nodes take single replicas is left open."""
    options = [(True, row, list(range(1, fit + 1))) for row, fit in zip(*wait, strict=True)]
    options += [(False, row, costs) for row, costs in sorted(least.items())]
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
            split.bundles[row] = m
        left -= m
    return split


def _others(keys: Ints, singles: Ints, least: dict[int, list[int]], many: int) -> Ints:
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
