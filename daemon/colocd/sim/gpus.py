"""Which free GPUs a virtual node gives to a job: Slurm's habits, as measured (docs: SLURM facts)."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from coloc_topology.shape import Shape, bits, mask_of


@dataclass(frozen=True)
class GpuChoice:
    """The rule of a cluster. Default: lowest free index; `spread_single`: 1-GPU jobs alternate between sockets.

    `links_inverted`: the worst-linked GPUs first, as Slurm does from 24.05 on where gres.conf has `Links=`.
    """

    spread_single: bool = True
    links_inverted: bool = False

    def pick(self, shape: Shape, free: int, count: int) -> int:
        """Mask of the `count` GPUs given out of `free`, which has at least that many."""
        if count == 1 and self.spread_single:
            return _spread(shape, free)
        if count > 1 and self.links_inverted:
            return _worst_linked(shape, free, count)
        return lowest(free, count)


def lowest(free: int, count: int) -> int:
    """Mask of the `count` lowest free indices."""
    mask = 0
    for _ in range(count):
        low = free & -free
        mask |= low
        free ^= low
    return mask


def sockets(shape: Shape) -> tuple[int, ...]:
    """GPU masks of the sockets, by lowest index; one for all when the shape does not tell."""
    near = shape.cores or shape.numa
    groups: dict[object, int] = {}
    for i in range(shape.gpus):
        key = near[i] if i < len(near) else None
        groups[key] = groups.get(key, 0) | 1 << i
    return tuple(groups.values())


def _spread(shape: Shape, free: int) -> int:
    best = max(sockets(shape), key=lambda group: (free & group).bit_count())
    return lowest(free & best, 1)


@lru_cache(maxsize=4096)
def _worst_linked(shape: Shape, free: int, count: int) -> int:
    def strength(members: Iterable[int]) -> int:
        pairs = combinations(members, 2)
        return sum(100 * shape.pair_nvlinks(i, j) + int(shape.pair_level(i, j)) for i, j in pairs)

    return mask_of(min(combinations(bits(free), count), key=lambda m: (strength(m), mask_of(m))))
