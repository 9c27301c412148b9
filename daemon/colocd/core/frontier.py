"""The cheapest way to place replicas on a few nodes that share jobs: node after node, remembering what is decided of shared jobs.

Between the nodes done and those to come stand the jobs that are on both sides (the *frontier*). Of each it is remembered whether
it is not evicted, evicted by a node to come, or evicted by a node that is done; `exact` tells what a node may do. The costs of
all combinations are one array: an axis of three for each job of the frontier, an axis for each service. Exact, and bounded by
the size of that array.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from operator import mul
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Ints
from colocd.core.exact import ExactSolver, Option, Picked
from colocd.core.mixes import Vector
from colocd.core.relevant import Relevance
from colocd.core.search import NEVER

MOST_CELLS = 1 << 17
"""Size up to which the array of costs is worked with."""
MOST_WORK = 1 << 25
"""Costs that may be compared in all."""
MOST_ON_NODE = 6
"""Jobs of one node that other nodes share, up to which all sets of them are looked at."""

Jobs = frozenset[str]


class Choice(NamedTuple):
    """What a node may do: jobs it evicts for its own replica, jobs others evict that it counts on, replicas, key and start."""

    pays: Jobs
    uses: Jobs
    vector: Vector
    option: Option


class Way(NamedTuple):
    """What each node does, and how good that is: replicas served in order of priority, negative; then the sum of keys."""

    picked: list[Picked]
    score: tuple[int, ...]


class Step(NamedTuple):
    """One node of the way: its choices, which was best for each state, the frontier, and how many of it were known before."""

    row: int
    choices: Sequence[Choice]
    chosen: Ints
    frontier: tuple[str, ...]
    old: int


def solve(solver: ExactSolver, relevance: Relevance, below: int = NEVER) -> Way | None:
    """The cheapest plan that serves most; None: the nodes share too many jobs to look at everything.

    `below`: key of a plan that serves all; what costs no less, or by `relevance` can be in no cheaper plan, is left out.
    """
    shared = _shared(solver)
    if max((len(jobs) for jobs in shared.values()), default=0) > MOST_ON_NODE:
        return None
    where: dict[str, set[int]] = {}
    for row, jobs in shared.items():
        for ref in jobs:
            where.setdefault(ref, set()).add(row)
    order = _order(solver.rows, shared, where)
    shape = tuple(many + 1 for many in solver.many)
    cells = int(np.prod(shape)) * 3 ** _widest(order, shared, where)
    if cells > MOST_CELLS:
        return None
    best: Ints = np.full(shape, NEVER, dtype=np.int64)
    best[(0,) * len(shape)] = 0
    frontier: tuple[str, ...] = ()
    trail: list[Step | tuple[int, Ints]] = []
    work = 0
    shapes, gpus = solver.land.index.shape, [spec.gpus_per_replica for spec in solver.specs]
    sizes = range(1 + max((table.shape.gpus for table in solver.land.index.tables), default=0))
    for nth, row in enumerate(order):
        fresh = tuple(sorted(set(shared[row]) - set(frontier)))
        if shared[row]:
            choices = list(_choices(solver, row, shared[row], below))
        else:
            most = min(below, relevance.limit(row, below, int(solver.land.index.tables[int(shapes[row])].shape.gpus)))
            limits = [relevance.limit(row, below, size) for size in sizes]
            found = _choices(solver, row, (), most)
            choices = [c for c in found if c.option.key < limits[sum(map(mul, c.vector, gpus))]]
        best = best.reshape((3,) * len(frontier) + (1,) * len(fresh) + shape)
        work += len(choices) * best.size * 2 ** len(fresh)
        if work > MOST_WORK:
            return None
        step, best = _advance(best, row, choices, (*frontier, *fresh), len(frontier))
        trail.append(step)
        left = list(step.frontier)
        for ref in step.frontier:
            if where[ref] <= set(order[: nth + 1]):
                axis = left.index(ref)
                left.remove(ref)
                kept, paid = best.take(0, axis), best.take(2, axis)
                trail.append((axis, np.where(paid < kept, 2, 0)))
                best = np.minimum(kept, paid)
        frontier = tuple(left)
    return _walk_back(best, trail)


def _shared(solver: ExactSolver) -> dict[int, tuple[str, ...]]:
    """Per row the evictable jobs that hold GPUs of further rows, too."""
    land = solver.land
    held = {row: [job.ref for job in land.holders(row, -1)] for row in solver.rows if land.reachable(row)}
    many: dict[str, int] = {}
    for refs in held.values():
        for ref in refs:
            many[ref] = many.get(ref, 0) + 1
    return {row: tuple(ref for ref in held.get(row, ()) if many[ref] > 1) for row in solver.rows}


def _order(rows: Sequence[int], shared: dict[int, tuple[str, ...]], where: dict[str, set[int]]) -> tuple[int, ...]:
    """The rows so that few jobs are in the frontier at a time: always the row that leaves the fewest."""
    done = sorted(row for row in rows if not shared[row])
    left = sorted(set(rows) - set(done))
    front: set[str] = set()
    while left:
        options = []
        for row in left:
            after = {r for r in front | set(shared[row]) if not where[r] <= {*done, row}}
            options.append((len(after) - len(front), len(set(shared[row]) - front), row))
        row = min(options)[2]
        left.remove(row)
        done.append(row)
        front = {r for r in front | set(shared[row]) if not where[r] <= set(done)}
    return tuple(done)


def _widest(order: Sequence[int], shared: dict[int, tuple[str, ...]], where: dict[str, set[int]]) -> int:
    front: set[str] = set()
    most = 0
    for nth, row in enumerate(order):
        front |= set(shared[row])
        most = max(most, len(front))
        front = {r for r in front if not where[r] <= set(order[: nth + 1])}
    return most


def _choices(solver: ExactSolver, row: int, jobs: tuple[str, ...], below: int) -> Iterator[Choice]:
    """All a node may do, without what costs no less than `below` or a choice that needs fewer shared jobs evicted elsewhere."""
    land, mix = solver.land, solver.mixes(row)
    name = land.index.nodes[row].name
    free = int(land.free_masks[row])
    own = {ref: land.gpus_of(ref)[name] for ref in jobs}
    later, open_free = land.room_later(row), free if land.open[row] else 0
    starts: dict[Jobs, list[tuple[int, int, tuple[int, int]]]] = {frozenset(): []}
    for at, gpus, key, room in solver.starts(row, below):
        pays = frozenset(ref for ref, mask in own.items() if mask & gpus & ~free)
        starts.setdefault(pays, []).append((key, room | later, (at, gpus)))
    for pays, found in starts.items():
        others = tuple(ref for ref in jobs if ref not in pays)
        known: dict[Jobs, dict[int, int]] = {}
        for uses in sorted((frozenset(_picked(others, word)) for word in product((0, 1), repeat=len(others))), key=len):
            cheapest: dict[int, int] = {}
            for fewer in (known[uses - {ref}] for ref in uses):
                for vector, key in fewer.items():
                    cheapest[vector] = min(key, cheapest.get(vector, key))
            better: dict[int, Option] = {}
            more = 0
            for ref in uses:
                more |= own[ref]
            if not pays:
                room = more | later | open_free if more | later else 0
                for vector, inside in mix.options(room, None):
                    if inside < cheapest.get(vector, below):
                        cheapest[vector] = inside
                        better[vector] = Option(inside, None)
            rooms: dict[tuple[int, int], tuple[int, tuple[int, int]]] = {}
            for key, room, start in found:
                place = (start[0], (room | more) & ~start[1])
                if place not in rooms or key < rooms[place][0]:
                    rooms[place] = (key, start)
            for (at, left), (key, start) in rooms.items():
                for vector, inside in mix.options(left, at):
                    if key + inside < cheapest.get(vector, below):
                        cheapest[vector] = key + inside
                        better[vector] = Option(key + inside, start)
            known[uses] = cheapest
            for vector, option in sorted(better.items()):
                yield Choice(pays, uses, mix.vectors[vector], option)


def _picked(names: Sequence[str], word: Sequence[int]) -> Iterator[str]:
    return (name for name, yes in zip(names, word, strict=True) if yes)


def _advance(
    before: Ints, row: int, choices: Sequence[Choice], frontier: tuple[str, ...], old: int
) -> tuple[Step, Ints]:
    """The least costs once this node is done. States of a job: 0 not evicted, 1 evicted by a node to come, 2 evicted."""
    size = before.shape[len(frontier) :]
    after: Ints = np.full((3,) * len(frontier) + size, NEVER, dtype=np.int64)
    chosen: Ints = np.full(after.shape, -1, dtype=np.int64)
    everything = slice(None)
    for number, choice in enumerate(choices):
        source: list[slice] = []
        target: list[slice] = []
        for axis, ref in enumerate(frontier):
            fresh = axis >= old
            if ref in choice.pays:
                source.append(everything if fresh else slice(1, 2))
                target.append(slice(2, 3))
            elif ref in choice.uses:
                source.append(everything if fresh else slice(1, 3))
                target.append(slice(1, 2) if fresh else slice(1, 3))
            else:
                source.append(everything)
                target.append(slice(0, 2) if fresh else everything)
        source += [slice(None, n - v) for n, v in zip(size, choice.vector, strict=True)]
        target += [slice(v, None) for v in choice.vector]
        sums = before[tuple(source)] + choice.option.key
        place = after[tuple(target)]
        better = sums < place
        if better.any():
            np.copyto(place, sums, where=better)
            np.copyto(chosen[tuple(target)], number, where=better)
    return Step(row, choices, chosen, frontier, old), after


def _walk_back(best: Ints, trail: Sequence[Step | tuple[int, Ints]]) -> Way:
    """What each node did on the way to the best state: most replicas in order of priority, then the least cost."""
    reached = np.argwhere(best < NEVER)
    if not len(reached):  # Some node has to be used, and all of it costs too much.
        return Way([], (*(0 for _ in best.shape), NEVER))
    vector: Vector = max(tuple(r) for r in reached.tolist())
    score = (*(-count for count in vector), int(best[vector]))
    states: list[int] = []
    picked: list[Picked] = []
    for step in reversed(trail):
        if not isinstance(step, Step):
            axis, which = step
            states.insert(axis, int(which[(*states, *vector)]))
            continue
        choice = step.choices[int(step.chosen[(*states, *vector)])]
        for axis, ref in enumerate(step.frontier[: step.old]):
            if ref in choice.pays:
                states[axis] = 1
        del states[step.old :]
        vector = tuple(a - b for a, b in zip(vector, choice.vector, strict=True))
        if any(choice.vector):
            picked.append((step.row, choice.vector, choice.option))
    return Way(picked, score)
