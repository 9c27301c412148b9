"""Which numbers of replicas of several services fit side by side into a set of GPUs.

A *vector* is a number of replicas per service. All vectors up to the numbers wanted are numbered through, so a set of them is the
bits of one integer, and "one replica more" is a shift. What fits into which GPUs is the same in every plan: it is kept for the
process.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

from coloc_topology.shape import bits
from colocd.core.search import NodeSearch

Vector = tuple[int, ...]
"""Number of replicas per wanted service."""
MOST_ROOMS = 1 << 14
"""Answers that are kept of each kind of node."""


class Mixes:
    """Vectors up to `most` on one shape; `searches`: per service, None where it may not run there."""

    def __init__(self, searches: tuple[NodeSearch | None, ...], most: Vector) -> None:
        self._searches = searches
        self.vectors: list[Vector] = list(product(*(range(count + 1) for count in most)))
        self.totals = [sum(vector) for vector in self.vectors]
        strides = [1] * len(most)
        for at in reversed(range(len(most) - 1)):
            strides[at] = strides[at + 1] * (most[at + 1] + 1)
        # Per service the step to one replica more, and the vectors that may have one.
        self._more = [
            (strides[at], sum(1 << i for i, vector in enumerate(self.vectors) if vector[at] < count))
            for at, count in enumerate(most)
        ]
        self._rooms: dict[int, int] = {}
        self._grown: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._largest: dict[tuple[int, int], list[int]] = {}

    def fits(self, room: int) -> int:
        """The vectors that fit into these GPUs, each replica at its level."""
        found = self._rooms.get(room)
        if found is None:
            found = 1
            if room:
                # The lowest GPU is in no replica, or in one of those that hold it.
                low = room & -room
                found = self.fits(room & ~low)
                for at, search in enumerate(self._searches):
                    for gpus in () if search is None else search.good_with(low, room):
                        found |= self.one_more(self.fits(room & ~gpus), at)
            if len(self._rooms) >= MOST_ROOMS:
                self._rooms.clear()
            self._rooms[room] = found
        return found

    def one_more(self, vectors: int, at: int) -> int:
        """These vectors with one replica of a service more, where that is not too many."""
        step, able = self._more[at]
        return (vectors & able) << step

    def holds(self, room: int, vector: Vector) -> bool:
        """Whether a vector fits into these GPUs."""
        return bool(self.fits(room) >> self.vectors.index(vector) & 1)

    def options(self, room: int, at: int | None) -> Sequence[tuple[int, int]]:
        """The vectors of a room, with one replica of service `at` more (None: none): their numbers, and replicas in the room."""
        step, able = (0, -1) if at is None else self._more[at]
        key = (room, -1 if at is None else at)
        found = self._grown.get(key)
        if found is None:
            found = [(nth + step, self.totals[nth]) for nth in bits(self.fits(room) & able)]
            if len(self._grown) >= MOST_ROOMS:
                self._grown.clear()
            self._grown[key] = found
        return found

    def largest(self, room: int, at: int | None) -> Sequence[int]:
        """Numbers of the vectors of `options` to which no replica can be added."""
        key = (room, -1 if at is None else at)
        found = self._largest.get(key)
        if found is None:
            inside = self.fits(room) if at is None else self.one_more(self.fits(room), at)
            smaller = 0
            for step, able in self._more:
                smaller |= (inside >> step) & able
            found = list(bits(inside & ~smaller))
            if len(self._largest) >= MOST_ROOMS:
                self._largest.clear()
            self._largest[key] = found
        return found


@lru_cache(maxsize=64)
def mixes(searches: tuple[NodeSearch | None, ...], most: Vector) -> Mixes:
    """What fits on a kind of node, kept for the process."""
    return Mixes(searches, most)
