"""The ways to choose victims on one node that the paper's experiment compares; written from their public descriptions.

A node is `free` GPUs and jobs as (GPU mask, priority); an arm returns the jobs that go, and the GPUs that the preemptor gets.
Each looks at every node and takes the best by its own measure. GPU sets are bit masks over 8 GPUs. `fresh`: do not use what is
remembered of unchanged nodes (for measuring time).
"""

import random
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

ALPHA = 0.5
"""Weight of the priorities in score S; the paper leaves it to the site."""
SOCKETS = (0x0F, 0xF0)
NUMA = (0x03, 0x0C, 0x30, 0xC0)


class Running(NamedTuple):
    """One low-priority job."""

    ref: int
    gpus: int
    priority: int


class Pick(NamedTuple):
    """What an arm decides: node, victims, GPUs for the preemptor (as Slurm would hand them out); sets it examined."""

    node: int
    victims: tuple[Running, ...]
    gpus: int
    examined: int


class Node(NamedTuple):
    """Free GPUs and low-priority jobs of a node."""

    number: int
    free: int
    jobs: tuple[Running, ...]


Arm = Callable[[list[Node], int, random.Random, bool], Pick | None]


def spans(mask: int, groups: tuple[int, ...]) -> int:
    """How many of the groups the GPUs lie in."""
    return sum(1 for group in groups if mask & group)


def lowest(room: int, count: int, by_socket: bool) -> int:
    """The GPUs a plain scheduler takes of those free: lowest index; `by_socket`: one socket if one has enough."""
    if by_socket:
        for socket in SOCKETS:
            if (room & socket).bit_count() >= count:
                room &= socket
                break
    taken = 0
    for _ in range(count):
        low = room & -room
        taken |= low
        room ^= low
    return taken


def freed(node: Node, jobs: tuple[Running, ...]) -> int:
    """GPUs free once these jobs are gone."""
    room = node.free
    for job in jobs:
        room |= job.gpus
    return room


def blind_add_back(nodes: list[Node], count: int, rng: random.Random, fresh: bool = False) -> Pick | None:
    """Remove all lower-priority jobs, put back the dearest first while the preemptor still fits; fewest, lowest priority."""
    best: tuple[tuple[int, int, int], Pick] | None = None
    for node in nodes:
        room = freed(node, node.jobs)
        if room.bit_count() < count:
            continue
        gone = []
        for job in sorted(node.jobs, key=lambda j: (-j.priority, j.ref)):
            if (room & ~job.gpus).bit_count() >= count:
                room &= ~job.gpus
            else:
                gone.append(job)
        rank = (max((j.priority for j in gone), default=-1), sum(j.priority for j in gone), len(gone))
        pick = Pick(node.number, tuple(gone), lowest(room, count, by_socket=False), len(nodes))
        if best is None or rank < best[0]:
            best = (rank, pick)
    return None if best is None else best[1]


def random_victims(nodes: list[Node], count: int, rng: random.Random, fresh: bool = False) -> Pick | None:
    """A random node that can, random jobs on it until there is room."""
    able = [n for n in nodes if freed(n, n.jobs).bit_count() >= count]
    if not able:
        return None
    node = rng.choice(able)
    order = rng.sample(node.jobs, len(node.jobs))
    gone: list[Running] = []
    while freed(node, tuple(gone)).bit_count() < count:
        gone.append(order.pop())
    return Pick(node.number, tuple(gone), lowest(freed(node, tuple(gone)), count, by_socket=False), 1)


def slurm_order(nodes: list[Node], count: int, rng: random.Random, fresh: bool = False) -> Pick | None:
    """Slurm's: the first node that can, jobs by tier (here: priority) then node count (all 1), then order, until it fits."""
    for node in nodes:
        gone: list[Running] = []
        for job in sorted(node.jobs, key=lambda j: (j.priority, j.ref)):
            if freed(node, tuple(gone)).bit_count() >= count:
                break
            gone.append(job)
        room = freed(node, tuple(gone))
        if room.bit_count() >= count:
            return Pick(node.number, tuple(gone), lowest(room, count, by_socket=True), len(gone))
    return None


def _sets(node: Node, stop: bool, fits: Callable[[int], bool]) -> Iterator[tuple[bool, tuple[Running, ...]]]:
    """All victim sets by growing size, each with whether it works; `stop`: not beyond the first size that does."""
    for size in range(len(node.jobs) + 1):
        worked = False
        for jobs in combinations(node.jobs, size):
            ok = fits(freed(node, jobs))
            worked = worked or ok
            yield ok, jobs
        if worked and stop:
            return


def _score(jobs: tuple[Running, ...]) -> float:
    total = sum(job.priority for job in jobs)
    mask = 0
    for job in jobs:
        mask |= job.gpus
    topology = 15 - (3 if spans(mask, NUMA) > 1 else 0) - (5 if spans(mask, SOCKETS) > 1 else 0)
    return (ALPHA / total if total else ALPHA) + (1 - ALPHA) * topology


def _within(room: int, count: int) -> int | None:
    """GPUs within one NUMA node, else one socket; None: neither has enough, which a guaranteed request does not accept."""
    tight = next((g for g in (*NUMA, *SOCKETS) if (room & g).bit_count() >= count), None)
    return None if tight is None else lowest(room & tight, count, by_socket=False)


def best_on_node(node: Node, count: int, stop: bool) -> tuple[tuple[float, int, int], Pick] | None:
    """Rank and pick of the set with the highest score S on one node."""
    best: tuple[tuple[float, int, int], Pick] | None = None
    examined = 0
    for ok, jobs in _sets(node, stop, lambda room: _within(room, count) is not None):
        examined += 1
        gpus = _within(freed(node, jobs), count) if ok else None
        if gpus is not None:
            rank = (-_score(jobs), len(jobs), node.number)
            if best is None or rank < best[0]:
                best = (rank, Pick(node.number, jobs, gpus, 0))
    return None if best is None else (best[0], best[1]._replace(examined=examined))


_seen = lru_cache(maxsize=100_000)(best_on_node)


def _by_score(nodes: list[Node], count: int, stop: bool, fresh: bool) -> Pick | None:
    look = best_on_node if fresh else _seen
    found = [f for node in nodes if freed(node, node.jobs).bit_count() >= count and (f := look(node, count, stop))]
    if not found:
        return None
    return min(found, key=lambda f: f[0])[1]._replace(examined=sum(pick.examined for _, pick in found))


def exhaustive(nodes: list[Node], count: int, rng: random.Random, fresh: bool = False) -> Pick | None:
    """All victim sets of all sizes on all nodes, guaranteed to one socket; highest score S."""
    return _by_score(nodes, count, stop=False, fresh=fresh)


def imp(nodes: list[Node], count: int, rng: random.Random, fresh: bool = False) -> Pick | None:
    """IMP: the same by growing size, stopping after the first size that works."""
    return _by_score(nodes, count, stop=True, fresh=fresh)


ARMS: dict[str, Arm] = {
    "blind add-back": blind_add_back,
    "random": random_victims,
    "Slurm's order": slurm_order,
    "exhaustive + S": exhaustive,
    "IMP + S": imp,
}
