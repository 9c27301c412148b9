"""Several replicas of one service at once.

A replica may sit on GPUs that an earlier replica's victims give up beyond what that replica needs, on the same node or (jobs
on several nodes) on another one, at no further cost. Then it waits for that handover: a node has one handover at a time.
A *bundle* is a node with one replica that evicts jobs, and more that sit on what these jobs leave.
"""

from typing import NamedTuple

import numpy as np

from colocd.core import bundles
from colocd.core.arrays import Ints
from colocd.core.bundles import Waiting
from colocd.core.ground import Ground
from colocd.core.openings import allowed, open_keys
from colocd.core.search import NEVER, NodeSearch, Request
from colocd.core.service import ServiceSpec
from colocd.core.view import Job


class Spot(NamedTuple):
    """A place for one replica: node row, GPUs, the jobs evicted for it, key; `waits`: its GPUs come free later."""

    row: int
    gpus: int
    victims: tuple[Job, ...]
    key: int
    waits: bool


def settle(land: Ground, spec: ServiceSpec, spot: "Spot") -> set[int]:
    """Strike what a spot takes; returns the rows of the nodes on which that changes something."""
    changed = {spot.row}
    if spot.waits:
        land.lease(spot.row, spot.gpus)
    else:
        changed = land.take(spot.row, spot.gpus, spot.victims)
    land.hosts.setdefault(spec.name, set()).add(spot.row)
    return changed


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
    wait = waiting(land, spec) if land.later.any() else Waiting((), ())
    split = bundles.split(land, spec, many, wait) if many > 1 or wait.rows else bundles.Split({}, {})
    now: list[Spot] = []
    later: list[Spot] = []
    changed: set[int] = set()
    for row, bundle in sorted(split.bundles.items(), key=lambda item: int(land.index.name_rank[item[0]])):
        count, option = bundle.replicas, bundle.option
        if row in changed:
            # An earlier bundle took a job that this one counted on, or its user's budget.
            found = _search(land, row, spec).bundle(*land.content(row), count)
            if found is None:
                continue  # Its replicas are picked singly.
            option = found
        spot = _spot(land, row, option[1], option[0] - (count - 1))
        changed |= settle(land, spec, spot)
        now.append(spot)
        later += _wait(land, spec, row, count - 1)
    for row, count in split.waits.items():
        later += _wait(land, spec, row, count)
    now += _singles(land, spec, many - len(now) - len(later))
    # What nobody has to be evicted for was found above; what the last victims left over is found here.
    rest = waiting(land, spec) if len(now) + len(later) < many else Waiting((), ())
    for row, fit in zip(*rest, strict=True):
        later += _wait(land, spec, row, min(fit, many - len(now) - len(later)))
    return now + later


def _singles(land: Ground, spec: ServiceSpec, many: int) -> list[Spot]:
    """Places for up to `many` replicas that start now, one by one."""
    spots: list[Spot] = []
    request, able = Request.of(spec), allowed(land, spec)
    keys: Ints = np.zeros(0, dtype=np.int64)
    while len(spots) < many:
        least = int(keys.min(initial=NEVER))
        if not spots or (least < NEVER and not land.begun(request).exact[keys == least].all()):
            keys = open_keys(land, spec, many - len(spots), able=able)
            near = np.flatnonzero(keys < NEVER)
            if len(near) > many > 1:
                near = near[np.argpartition(keys[near], many - 1)[:many]]
            if many > 1:
                land.refine(request, near)  # All at once is quicker than one by one.
        spot = pick(land, spec, keys)
        if spot is None:
            break
        changed = np.array(sorted(settle(land, spec, spot)), dtype=np.int64)
        able[spot.row] &= not spec.spread
        # Whatever is struck makes no node cheaper, so those that were not looked at closely need not be now.
        keys[changed] = np.where(land.open[changed] & able[changed], land.begun(request).key[changed], NEVER)
        spots.append(spot)
    return spots


def _wait(land: Ground, spec: ServiceSpec, row: int, count: int) -> list[Spot]:
    spots = []
    for gpus in _search(land, row, spec).pack(_room(land, row), count):
        spots.append(Spot(row, gpus, (), 1, waits=True))
        settle(land, spec, spots[-1])
    return spots
