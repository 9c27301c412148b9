"""Which free cores and GPUs a node gives to a job: Slurm's habits, as measured on 22.05."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from coloc_topology.shape import Shape, bits, mask_of


class Socket(NamedTuple):
    """Masks of the GPUs and of the cores of one socket."""

    gpus: int
    cores: int


class Free(NamedTuple):
    """Masks of what a node has left."""

    gpus: int
    cores: int


def sockets_of(shape: Shape, cpus: int) -> tuple[Socket, ...]:
    """The sockets by lowest GPU index, the cores dealt evenly to them; one socket when the shape does not tell."""
    near = shape.cores or shape.numa
    groups: dict[object, int] = {}
    for i in range(shape.gpus):
        key = near[i] if i < len(near) else None
        groups[key] = groups.get(key, 0) | 1 << i
    size = -(-cpus // max(1, len(groups)))
    cores = [((1 << min(size, cpus - k * size)) - 1) << k * size for k in range(len(groups))]
    return tuple(Socket(*pair) for pair in zip(groups.values(), cores, strict=True)) or (Socket(0, (1 << cpus) - 1),)


@dataclass(frozen=True)
class GpuChoice:
    """The rule of a cluster.

    `by_socket`: gres.conf has `Cores=`. The job's cores come from the socket that has enough GPUs and most free cores (so
    1-GPU jobs alternate between sockets), its GPUs from the sockets of its cores, lowest index first. Without it, GPUs
    come lowest index first. `links_inverted`: gres.conf has `Links=` and no `Cores=` and Slurm is 24.05 or later: the
    worst-linked GPUs come first.
    """

    by_socket: bool = True
    links_inverted: bool = False

    def give(self, shape: Shape, sockets: Sequence[Socket], free: Free, gpus: int, cores: int) -> Free:
        """What a job that wants so many GPUs and cores is given out of `free`, which has at least that many."""
        if self.links_inverted:
            return Free(_worst_linked(shape, free.gpus, gpus), _anywhere(sockets, free.cores, cores))
        if not self.by_socket or not gpus:
            return Free(lowest(free.gpus, gpus), _anywhere(sockets, free.cores, cores))
        able = [s for s in sockets if (s.gpus & free.gpus).bit_count() >= gpus]
        able.sort(key=lambda s: -(s.cores & free.cores).bit_count())
        chosen = 0
        for socket in (*able, *(s for s in sockets if s not in able)):
            here = socket.cores & free.cores
            chosen |= lowest(here, min(here.bit_count(), cores - chosen.bit_count()))
        return Free(_in_turn([s.gpus & free.gpus for s in sockets if s.cores & chosen], free.gpus, gpus), chosen)


def lowest(free: int, count: int) -> int:
    """Mask of the `count` lowest free indices."""
    mask = 0
    for _ in range(count):
        low = free & -free
        mask |= low
        free ^= low
    return mask


def _in_turn(near: list[int], free: int, count: int) -> int:
    """GPUs from each near socket in turn, then from anywhere."""
    mask = 0
    while mask.bit_count() < count and any(near):
        for k, here in enumerate(near):
            low = here & -here if mask.bit_count() < count else 0
            mask |= low
            near[k] ^= low
    return mask | lowest(free & ~mask, count - mask.bit_count())


def _anywhere(sockets: Sequence[Socket], free: int, count: int) -> int:
    """Cores of the first socket that has enough, else of all in turn."""
    for socket in sockets:
        if (socket.cores & free).bit_count() >= count:
            return lowest(socket.cores & free, count)
    return _in_turn([s.cores & free for s in sockets], free, count)


@lru_cache(maxsize=4096)
def _worst_linked(shape: Shape, free: int, count: int) -> int:
    def strength(members: Iterable[int]) -> int:
        pairs = combinations(members, 2)
        return sum(100 * shape.pair_nvlinks(i, j) + int(shape.pair_level(i, j)) for i, j in pairs)

    return mask_of(min(combinations(bits(free), count), key=lambda m: (strength(m), mask_of(m))))
