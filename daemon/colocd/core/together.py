"""The replicas of all services together.

Services are served in order of priority: how many replicas each gets is decided in that order. Among plans that serve as many,
the one with the least sum of keys counts. First every service takes its best places in turn; then the best few nodes are
combined exactly (`exact`), if there are few enough combinations. Both are bounded, and a plan says when a bound was met.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from colocd.core import frontier
from colocd.core.budgets import over_budget
from colocd.core.exact import Clash, ExactSolver, Shared
from colocd.core.ground import Ground
from colocd.core.joint import Spot, place
from colocd.core.openings import allowed, open_keys
from colocd.core.search import NEVER, Request
from colocd.core.service import ServiceSpec

MOST_STATES = 512
"""Combinations of numbers of replicas up to which nodes are combined exactly."""
MOST_ROWS = 32
"""Nodes that are combined exactly: for each service those where it is cheapest."""
MOST_TRIES = 96
"""Decisions on jobs on several nodes that are tried."""
BUDGET = 40_000
"""Nodes times combinations that all tries together may look at."""


class Want(NamedTuple):
    """So many replicas of a service are to be placed."""

    spec: ServiceSpec
    many: int


class Joint(NamedTuple):
    """Places per wanted service (in the order asked), what is left, and whether a bound ended the search."""

    spots: tuple[tuple[Spot, ...], ...]
    land: Ground
    gave_up: bool

    @property
    def score(self) -> tuple[int, ...]:
        """Smaller is better: replicas served in order of priority, then the sum of keys."""
        return (*(-len(spots) for spots in self.spots), sum(s.key for spots in self.spots for s in spots))


def place_all(land: Ground, wants: Sequence[Want]) -> Joint:
    """Places for all wanted replicas; `wants` in order of priority. `land` itself is left alone."""
    for want in wants:
        land.begun(Request.of(want.spec))  # What is found out before the copy is made is found out once.
    after = land.copy()
    found = tuple(tuple(place(after, want.spec, want.many)) for want in wants)
    best = Joint(found, after, gave_up=False)
    served = all(len(spots) == want.many for spots, want in zip(found, wants, strict=True))
    if sum(want.many for want in wants) < 2 or (served and not any(s.victims for spots in found for s in spots)):
        return best
    if math.prod(want.many + 1 for want in wants) > MOST_STATES:
        return best._replace(gave_up=True)
    better = _together(land, wants, best)
    if over_budget(land.view, [job.user for spots in better.spots for spot in spots for job in spot.victims]):
        return best._replace(gave_up=True)  # One after the other, each victim is counted before the next is chosen.
    return better


def _together(land: Ground, wants: Sequence[Want], best: Joint) -> Joint:
    """The best nodes combined; `best`: what was found one service after the other."""
    rows, all_rows = _rows(land, wants, best)
    solver = ExactSolver(land, wants, rows)
    served = all(len(spots) == want.many for spots, want in zip(best.spots, wants, strict=True))
    way = frontier.solve(solver, best.score[-1] if served else NEVER)
    if way is not None and way.score >= best.score:
        return best._replace(gave_up=not all_rows)
    found_all = None if way is None else solver.carry_out(way.picked)
    if found_all is not None and not isinstance(found_all, Clash):
        plan = Joint(tuple(tuple(s) for s in found_all[0]), found_all[1], gave_up=False)
        return min(best, plan, key=lambda joint: joint.score)._replace(gave_up=not all_rows)
    # Many nodes that share many jobs: which of these are shared is tried step by step, and nobody knows whether that is best.
    return _improve(solver, best)._replace(gave_up=True)


def _rows(land: Ground, wants: Sequence[Want], known: Joint) -> tuple[list[int], bool]:
    """Nodes to be combined, and whether these are all that could take a replica: the cheapest, and those already found."""
    chosen = {spot.row for spots in known.spots for spot in spots}
    possible: set[int] = set()
    ranked: list[list[int]] = []
    for want in wants:
        keys = open_keys(land, want.spec, MOST_ROWS + 1)
        order = np.argsort(keys, kind="stable")[: MOST_ROWS + 1]
        order = order[keys[order] < NEVER]
        late = np.flatnonzero((land.later != 0) & allowed(land, want.spec))
        ranked.append([*late.tolist(), *order.tolist()])
        possible.update(ranked[-1])
        # A node that takes no replica now may get room from a job that is evicted elsewhere.
        possible.update(row for row in _beside(land, ranked[-1], MOST_ROWS) if allowed(land, want.spec)[row])
    for depth in range(max((len(rows) for rows in ranked), default=0)):
        for rows in ranked:
            if depth < len(rows) and len(chosen) < MOST_ROWS:
                chosen.add(rows[depth])
    rest = sorted(possible - chosen)
    chosen.update(rest[: max(0, MOST_ROWS - len(chosen))])
    return sorted(chosen), not possible - chosen


def _beside(land: Ground, rows: Sequence[int], most: int) -> set[int]:
    """Rows of other nodes of the evictable jobs on these nodes."""
    found: set[int] = set()
    for row in rows[:most]:
        for job in land.holders(row, -1):
            found.update(land.index.row[name] for name in job.gpus or () if name in land.index.row)
    return found


def _improve(solver: ExactSolver, best: Joint) -> Joint:
    """The best plan found by deciding step by step which jobs on several nodes are shared."""
    work = max(1, len(solver.rows)) * math.prod(many + 1 for many in solver.many)
    most = min(MOST_TRIES, max(1, BUDGET // work))
    tried: set[frozenset[Shared]] = set()
    agenda: list[tuple[Shared, ...]] = [()]
    moves, first = _moves(solver), True
    while agenda:
        shared = agenda.pop(0)
        if frozenset(shared) in tried:
            continue
        if len(tried) >= most:
            return best
        tried.add(frozenset(shared))
        found = solver.solve(shared)
        if found is None:
            continue
        if isinstance(found, Clash):
            agenda[:0] = [(*shared, Shared(found.job.ref, row)) for row in found.rows]
            continue
        spots, land = found
        plan = Joint(tuple(tuple(s) for s in spots), land, gave_up=False)
        if plan.score < best.score or first:
            best, first = min(best, plan, key=lambda joint: joint.score), False
            known = {s.ref for s in shared}
            agenda = [(*shared, *move) for move in moves if not known & {s.ref for s in move}] + agenda
    return best


def _moves(solver: ExactSolver) -> list[tuple[Shared, ...]]:
    """Jobs that could be shared, cheapest per GPU first, from each of their nodes; then pairs that share the same nodes."""
    land, rows = solver.land, set(solver.rows)
    jobs = {job.ref: job for row in solver.rows for job in land.holders(row, -1) if len(job.gpus or {}) > 1}
    price = {r: land.cost([j]) / sum(m.bit_count() for m in (j.gpus or {}).values()) for r, j in jobs.items()}
    names = sorted(jobs, key=lambda ref: (price[ref], jobs[ref].order))
    nodes = {ref: {land.index.row[name] for name in jobs[ref].gpus or () if name in land.index.row} for ref in names}
    payers = {ref: sorted(row for row in nodes[ref] & rows if land.open[row]) for ref in names}
    moves: list[tuple[Shared, ...]] = [(Shared(ref, row),) for ref in names for row in payers[ref]]
    for one, two in combinations(names, 2):
        if len(nodes[one] & nodes[two]) > 1:
            moves += [(Shared(one, row), Shared(two, row)) for row in payers[one] if row in payers[two]]
    return moves
