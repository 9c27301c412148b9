"""The replicas of all services together.

Services are served in order of priority: how many replicas each gets is decided in that order. Among plans that serve as many,
the one with the least sum of keys counts. First every service takes its best places in turn; then the nodes that may matter
(`relevant`) are combined exactly (`frontier`), if there are few enough combinations. A plan says when a limit ended the search.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from colocd.core import frontier
from colocd.core.budgets import over_budget
from colocd.core.exact import Clash, ExactSolver, Shared
from colocd.core.ground import Ground
from colocd.core.joint import Spot, place
from colocd.core.many import ManySolver
from colocd.core.pair_search import missed_levels
from colocd.core.relevant import Relevance
from colocd.core.search import NEVER, Request
from colocd.core.service import ServiceSpec

MOST_STATES = 4096
"""Combinations of numbers of replicas up to which nodes are combined exactly."""
FIRST_ROWS = 32
"""Nodes that are combined exactly at first: the most promising of those that may matter."""
MOST_ROWS = 96
"""Nodes that are combined exactly at last."""
TRIES = ((103, MOST_ROWS), (112, MOST_ROWS), (None, FIRST_ROWS), (None, MOST_ROWS))
"""Plans that are looked for: per cent of the bound they may cost (None: less than the one known), and on how many nodes."""
MOST_TRIES = 96
"""Decisions on jobs on several nodes that are tried."""
BUDGET = 40_000
"""Nodes times combinations that all tries together may look at."""


class Want(NamedTuple):
    """So many replicas of a service are to be placed."""

    spec: ServiceSpec
    many: int


class Joint(NamedTuple):
    """Places per wanted service (in the order asked), what is left, and whether a bound ended the search.

    `less`: per cent of its cost that the cheapest plan costs less at most, where the search was ended; None: nobody knows.
    """

    spots: tuple[tuple[Spot, ...], ...]
    land: Ground
    gave_up: bool
    less: int | None = None

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
    # What no kind of node can ever hold need not be looked for.
    wants = [want._replace(many=want.many if _possible(land, want.spec) else 0) for want in wants]
    served = all(len(spots) == want.many for spots, want in zip(found, wants, strict=True))
    if sum(want.many for want in wants) < 2 or (served and not any(s.victims for spots in found for s in spots)):
        return best
    few = math.prod(want.many + 1 for want in wants) <= MOST_STATES
    better = _together(land, wants, best) if few else best
    if not few or better.gave_up:
        better = _many(land, wants, better)
    if over_budget(land.view, [job.user for spots in better.spots for spot in spots for job in spot.victims]):
        return best._replace(gave_up=True)  # One after the other, each victim is counted before the next is chosen.
    return better


def _possible(land: Ground, spec: ServiceSpec) -> bool:
    """Whether a replica fits on an empty node of some kind."""
    return any(len(search.subs) > 0 for search in land.searches(Request.of(spec)))


def _together(land: Ground, wants: Sequence[Want], best: Joint) -> Joint:
    """The best nodes combined; `best`: what was found one service after the other."""
    relevance = Relevance(land, wants)
    served = all(len(spots) == want.many for spots, want in zip(best.spots, wants, strict=True))
    many = False
    # Most plans cost little more than the bound. To look for such a one first is quick, as few nodes may be in it.
    for percent, most in TRIES if served else ((None, FIRST_ROWS),):
        known = best.score[-1] if served else NEVER
        below = known if percent is None else min(known, relevance.bound * percent // 100)
        if below <= relevance.bound:
            continue
        near = relevance.near(below).tolist()
        many |= percent is not None and len(near) > most
        if served and many and (percent is not None or most == FIRST_ROWS):
            continue  # It cannot be proven anyway: look once, at as many nodes as may be.
        solver = ExactSolver(land, wants, sorted(near[:most]))
        better = _combined(solver, relevance, best, below)
        if better is None:
            # Nodes that share many jobs: which of these are shared is tried step by step, and nobody knows whether that is best.
            rows = sorted(relevance.near(known).tolist()[:FIRST_ROWS])
            best = _improve(ExactSolver(land, wants, rows), best)
            return _told(best, served, relevance.bound)
        best = better
        if len(near) <= most and (best.score[-1] < below or below == known):
            return best  # Nothing cheaper has a node that was not looked at.
    return _told(best, served, relevance.bound)


def _many(land: Ground, wants: Sequence[Want], best: Joint) -> Joint:
    """The best plan found by prices for as many replicas as `best` serves, found one service after the other."""
    served = all(len(spots) == want.many for spots, want in zip(best.spots, wants, strict=True))
    relevance = Relevance(land, wants)
    if any(missed_levels(s.key) for spots in best.spots for s in spots) or not best.score[-1]:
        return _told(best, served, relevance.bound)
    wants = [want._replace(many=len(spots)) for want, spots in zip(wants, best.spots, strict=True)]
    used = [s.row for spots in best.spots for s in spots]
    bound, picked = ManySolver(land, wants, relevance, used, best.score[-1]).solve()
    found = ExactSolver(land, wants, [row for row, _, _ in picked]).carry_out(picked) if picked else None
    if found is not None and not isinstance(found, Clash):
        plan = Joint(tuple(tuple(s) for s in found[0]), found[1], gave_up=False)
        best = min(best, plan, key=lambda joint: joint.score)
    return _told(best, served, max(bound, relevance.bound))


def _told(best: Joint, served: bool, bound: int) -> Joint:
    """A plan found by a search that was ended; `bound`: what no plan costs less than, if all are `served`."""
    key = best.score[-1]
    near = served and 100 * key <= 102 * bound
    return best._replace(gave_up=not near, less=None if near or not served else -(100 * (bound - key) // key))


def _combined(solver: ExactSolver, relevance: Relevance, best: Joint, below: int) -> Joint | None:
    """The best plan on the solver's nodes that costs less than `below`, else `best`; None: the nodes share too many jobs."""
    way = frontier.solve(solver, relevance, below)
    if way is None:
        return None
    found = solver.carry_out(way.picked) if way.score < best.score else None
    if found is None:
        return best
    if isinstance(found, Clash):
        return None
    plan = Joint(tuple(tuple(s) for s in found[0]), found[1], gave_up=False)
    return min(best, plan, key=lambda joint: joint.score)


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
