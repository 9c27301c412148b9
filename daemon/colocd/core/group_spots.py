"""The spots of a group: those that the search decided on, or those found by adding node after node.

Where several nodes cost the same, `pick` decides: users hit least, fewest broken islands, strongest links, node name.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.branch import Asked
from colocd.core.domains import LARGE, Place
from colocd.core.ground import Ground
from colocd.core.joint import Spot, pick
from colocd.core.openings import allowed, open_keys
from colocd.core.pair_search import missed_levels, pair_search
from colocd.core.search import MISSED_SHIFT, NEVER, Request
from colocd.core.service import ServiceSpec

STARTS = 8
"""Nodes from which a group is grown in each domain."""


class Part(NamedTuple):
    """GPUs on `nodes` different nodes for a replica of a service."""

    spec: ServiceSpec
    nodes: int = 1


Found = tuple[int, tuple[tuple[Spot, ...], ...]]
"""Key of a group, and its spots by part."""


def carried_out(asked: Asked, parts: Sequence[Part], place: Place) -> Found:
    """Key and spots of a group. Where nodes of its domain cost the same, it takes those that `pick` likes best."""
    land = asked.land
    if len(parts) == 1 and len(place.rows) <= LARGE:
        plain = _decided(asked, parts[0], place)
        if plain is not None and plain[0] <= place.way.key:
            return plain
    members: Bools = np.zeros(len(land.index.nodes), dtype=np.bool_)
    members[place.rows] = True
    jobs = [job for row in place.way.shared if (job := land.index.jobs[row]) is not None]
    after = land.within(members)
    after.seize(place.picks[0][1], 0, jobs)
    orders = _orders(parts)
    tried = [_grow(after if order is orders[-1] else after.copy(), parts, order, members, None) for order in orders]
    found = [_paid_once(land, spots) for _, spots in (g for g in tried if g is not None)]
    best = min(found, key=lambda f: f[0], default=None)
    return best if best is not None and best[0] <= place.way.key else _seated(land, parts, place)


def _decided(asked: Asked, part: Part, place: Place) -> Found | None:
    """The nodes that are cheapest once the shared jobs are gone; None: more of them cost the same than are needed."""
    land, rows = asked.land, place.rows
    free, masks, jobs = land.contents(rows)
    costs = np.where(np.isin(jobs, place.way.shared), 0, land.costs_of(rows))
    keys = asked.least(rows, costs)[0]
    near = np.flatnonzero(keys <= np.partition(keys, part.nodes - 1)[part.nodes - 1])
    if len(near) > part.nodes:
        return None
    near = near[np.lexsort((land.index.name_rank[rows[near]], keys[near]))]
    gpus = np.zeros_like(near)
    for shape, some in land.shapes_of(rows[near]):
        here = near[some]
        gpus[some] = asked.search(0, shape).fine(free[here], masks[here], costs[here]).gpus
    spots = [
        Spot(row, mask, (), key, waits=False)
        for row, mask, key in zip(rows[near].tolist(), gpus.tolist(), keys[near].tolist(), strict=True)
    ]
    return _paid_once(land, [spots])


def _seated(land: Ground, parts: Sequence[Part], place: Place) -> Found:
    """The group on just these nodes, with just these victims."""
    after = land.copy()
    after.seize(place.picks[0][1], 0, [job for row in place.way.victims if (job := land.index.jobs[row]) is not None])
    spots: list[list[Spot]] = [[] for _ in parts]
    for column, row in place.picks:
        requests = [Request.of(part.spec) for part in (parts if column == len(parts) else (parts[column],))]
        shape, room = int(land.index.shape[row]), int(after.free_masks[row])
        table = land.index.tables[shape]
        masks: Sequence[int] | None
        if len(requests) == 1:
            masks = (int(after.refine(requests[0], np.array([row])).gpus[row]),)
        else:
            masks = pair_search(table, *requests).split(room)
        assert masks is not None, "what these victims free is enough"
        for at, gpus in zip(range(len(parts)) if len(masks) > 1 else (column,), masks, strict=True):
            missed = max(0, parts[at].spec.level - table.level_of(gpus)) << MISSED_SHIFT
            spots[at].append(Spot(row, gpus, (), missed, waits=False))
    return _paid_once(land, spots)


def _paid_once(land: Ground, spots: Sequence[Sequence[Spot]]) -> Found:
    """These spots, each victim at the first one that it makes room for; and the key of all."""
    paid: set[str] = set()
    told: list[tuple[Spot, ...]] = []
    for found in spots:
        mine: list[Spot] = []
        for spot in found:
            jobs = tuple(job for job in land.holders(spot.row, spot.gpus) if job.ref not in paid)
            paid.update(job.ref for job in jobs)
            keys = land.job_keys(np.array([land.index.job_row[job.ref] for job in jobs], dtype=np.int64))
            mine.append(spot._replace(victims=jobs, key=missed_levels(spot.key) + int(keys.sum())))
        told.append(tuple(mine))
    return sum(spot.key for found in told for spot in found), tuple(told)


def grown(land: Ground, parts: Sequence[Part], rows: Ints) -> Found | None:
    """The best group on these nodes that is grown from each of the cheapest nodes, and from each order of the parts."""
    members: Bools = np.zeros(len(land.index.nodes), dtype=np.bool_)
    members[rows] = True
    best: Found | None = None
    for order in _orders(parts):
        keys = np.where(members, open_keys(land, parts[order[0]].spec), NEVER)
        starts = np.argsort(keys, kind="stable")[:STARTS]
        for start in starts[keys[starts] < NEVER].tolist():
            found = _grow(land.copy(), parts, order, members, start)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
    return best


def with_node(land: Ground, parts: Sequence[Part], rows: Sequence[int], row: int) -> Found | None:
    """Key and spots of the best group on these nodes that is grown from node `row`, any part of it there; None: none fits."""
    members: Bools = np.zeros(len(land.index.nodes), dtype=np.bool_)
    members[list(rows)] = True
    found = [_grow(land.copy(), parts, order, members, row) for order in _orders(parts)]
    return min((f for f in found if f is not None), key=lambda f: f[0], default=None)


def _orders(parts: Sequence[Part]) -> list[list[int]]:
    return [list(range(len(parts))), list(range(len(parts)))[::-1]][: 1 + (len(parts) > 1)]


def _grow(land: Ground, parts: Sequence[Part], order: Sequence[int], members: Bools, start: int | None) -> Found | None:
    """Take from `land` the cheapest node for each part in turn, the first one on `start` (None: on any).

    None: the group does not fit.
    """
    spots: list[list[Spot]] = [[] for _ in parts]
    for at in order:
        left = members & allowed(land, parts[at].spec)
        for _ in range(parts[at].nodes):
            able = left
            if start is not None:
                able, start = left & (np.arange(len(left)) == start), None
            spot = pick(land, parts[at].spec, open_keys(land, parts[at].spec, 1, able=able))
            if spot is None:
                return None
            land.seize(spot.row, spot.gpus, spot.victims)
            spots[at].append(spot)
            left[spot.row] = False
    return sum(s.key for found in spots for s in found), tuple(tuple(found) for found in spots)
