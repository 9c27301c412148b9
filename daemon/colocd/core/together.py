"""The replicas of all services together: sequentially by priority first, then improved within a fixed budget.

Services are served in order of priority: how many replicas each gets is decided in that order. Among plans that serve as many,
the one with the least sum of keys counts.
"""

from collections.abc import Sequence
from itertools import islice, permutations
from typing import NamedTuple

import numpy as np

from colocd.core.ground import Ground, Request
from colocd.core.joint import Spot, allowed, place
from colocd.core.service import ServiceSpec
from colocd.core.view import Job

BUDGET = 100_000
"""Nodes times replicas that the improvement looks at, over all its tries."""
MOST_TRIES = 64
ORDERS = 6
"""Orders of the services that are tried."""


class Want(NamedTuple):
    """So many replicas of a service are to be placed."""

    spec: ServiceSpec
    many: int


class Joint(NamedTuple):
    """Places per wanted service (in the order asked), what is left, and whether the budget ended the search."""

    spots: tuple[tuple[Spot, ...], ...]
    land: Ground
    gave_up: bool

    @property
    def score(self) -> tuple[object, ...]:
        """Smaller is better: replicas served in order of priority, then the sum of keys."""
        return (*(-len(spots) for spots in self.spots), sum(s.key for spots in self.spots for s in spots))


class _Force(NamedTuple):
    """A job that is evicted for a replica of the `want`-th service on one of its nodes."""

    job: Job
    row: int
    want: int


def place_all(land: Ground, wants: Sequence[Want]) -> Joint:
    """Places for all wanted replicas; `wants` in order of priority. `land` itself is left alone."""
    order = tuple(range(len(wants)))
    best = _solve(land, wants, order, ())
    paid = [s.key for spots in best.spots for s in spots if s.victims]
    total = sum(len(spots) for spots in best.spots)
    if not paid or total < 2:
        return best
    tries = min(MOST_TRIES, BUDGET // max(1, len(land.index.nodes) * total))
    forced: tuple[_Force, ...] = ()
    orders = [o for o in islice(permutations(order), ORDERS) if o != order]
    candidates, all_seen = _candidates(land, wants, paid, tries - len(orders))
    gave_up = not all_seen or len(orders) + len(candidates) > tries
    for other in orders[:tries]:
        found = _solve(land, wants, other, ())
        if found.score < best.score:
            best, order = found, other
    for force in candidates[: max(0, tries - len(orders))]:
        if force.job.ref in best.land.gone - land.gone:
            continue
        found = _solve(land, wants, order, (*forced, force))
        if found.score < best.score:
            best, forced = found, (*forced, force)
    return best._replace(gave_up=gave_up)


def _solve(land: Ground, wants: Sequence[Want], order: Sequence[int], forced: Sequence[_Force]) -> Joint:
    land = land.copy()
    spots: list[list[Spot]] = [[] for _ in wants]
    for force in forced:
        spot = _through(land, force, wants[force.want].spec)
        if spot is not None and len(spots[force.want]) < wants[force.want].many:
            land.take(spot.row, spot.gpus, spot.victims)
            spots[force.want].append(spot)
    for at in order:
        left = wants[at].many - len(spots[at])
        if left > 0:
            spots[at] += place(land, wants[at].spec, left)
    return Joint(tuple(tuple(found) for found in spots), land, gave_up=False)


def _through(land: Ground, force: _Force, spec: ServiceSpec) -> Spot | None:
    """The best place on the node that takes GPUs of the job; None: there is none."""
    if force.job.ref in land.gone or not land.open[force.row]:
        return None
    search = land.search(force.row, Request.of(spec))
    if search is None:
        return None
    free, masks, costs = land.content(force.row)
    held = (force.job.gpus or {})[land.index.nodes[force.row].name] & ~free
    found = search.with_job(free, masks, costs, held)
    if found is None:
        return None
    key, gpus = found
    return Spot(force.row, gpus, tuple(land.holders(force.row, gpus)), key, waits=False)


def _candidates(land: Ground, wants: Sequence[Want], paid: Sequence[int], most: int) -> tuple[list[_Force], bool]:
    """Jobs whose eviction may serve several replicas more cheaply, most promising first, and whether these are all.

    A job is listed with the node and the service where it comes cheapest; about `most` jobs are looked at.
    """
    dearest = sorted(paid, reverse=True)
    smallest = min(want.spec.gpus_per_replica for want in wants)
    rows = land.evictable()
    keys = land.job_keys(rows)
    rows, keys = rows[keys < sum(dearest)], keys[keys < sum(dearest)]
    order = np.argsort(keys / np.maximum(1, land.index.gpus[rows]), kind="stable")
    limits = [allowed(land, want.spec) & land.open for want in wants]
    found: list[tuple[float, tuple[int, int], _Force]] = []
    looked = 0
    for at in order.tolist():
        job, key = land.index.jobs[int(rows[at])], int(keys[at])
        if job is None or not job.gpus:
            continue
        nodes = [land.index.row[name] for name in job.gpus if name in land.index.row]
        gain = sum(_open_gpus(land, i, job) // smallest for i in nodes)
        if gain < 2 or key >= sum(dearest[:gain]):
            continue
        looked += 1
        if looked > most:
            return [force for _, _, force in sorted(found, key=lambda item: item[:2])], False
        forces = [
            (spot.key, _Force(job, i, want))
            for want in range(len(wants))
            for i in nodes
            if limits[want][i] and (spot := _through(land, _Force(job, i, want), wants[want].spec)) is not None
        ]
        for cost, force in sorted(forces, key=lambda pair: pair[0])[:2]:
            if cost < sum(dearest[:gain]):
                found.append((cost / gain, job.order, force))
    return [force for _, _, force in sorted(found, key=lambda item: item[:2])], True


def _open_gpus(land: Ground, i: int, job: Job) -> int:
    """GPUs of a node that are free once the job is gone."""
    return (int(land.free_masks[i]) | (job.gpus or {})[land.index.nodes[i].name]).bit_count()
