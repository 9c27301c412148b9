"""Facts about every subset of a shape's GPUs at once, as numpy arrays indexed by the subset's mask."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coloc_topology.errors import TopologyError
from coloc_topology.shape import Level, Shape

Ints = NDArray[np.int64]

MAX_GPUS = 16
"""Largest shape that is tabulated: 65,536 subsets."""

LEVEL_SHIFT = 48
"""`Subsets.rank` holds the level above this bit and the strength below it."""

WEAKEST_SHIFT = 28
"""`Subsets.strength` holds the strength of the weakest pair above this bit and the sum over all pairs below it."""


_NO_PAIR = 1 << 20


class Subsets(NamedTuple):
    """Per mask: number of GPUs, level (as int), strength, and level and strength in one comparable number.

    A pair's strength is its number of NVLinks, then its level. A set's is that of its weakest pair, then the sum over its pairs.
    """

    size: Ints
    level: Ints
    strength: Ints
    rank: Ints


def analyse(shape: Shape) -> Subsets:
    """All 2^n subsets of the shape; raises `TopologyError` for more than `MAX_GPUS` GPUs or a malformed matrix."""
    count = shape.gpus
    if count > MAX_GPUS:
        raise TopologyError(f"shape {shape.name} has {count} GPUs; at most {MAX_GPUS} a node are supported")
    if any(len(row) != count for row in shape.links):
        raise TopologyError(f"the link matrix of shape {shape.name} is not square")
    size, worst, total = (np.array([start]) for start in (0, int(Level.NVLINK), 0))
    weakest: Ints = np.array([_NO_PAIR])
    for i in range(count):
        # Subsets whose highest GPU is i: each smaller subset, plus i and its pairs with that subset.
        try:
            levels = [int(shape.pair_level(i, j)) for j in range(i)]
            strengths = [100 * shape.pair_nvlinks(i, j) + level for j, level in enumerate(levels)]
        except (KeyError, ValueError):
            raise TopologyError(f"shape {shape.name} has a link word that is not known in row {i}") from None
        size = np.concatenate([size, size + 1])
        worst = np.concatenate([worst, np.minimum(worst, _fold(levels, np.minimum, int(Level.NVLINK)))])
        total = np.concatenate([total, total + _fold(strengths, np.add, 0)])
        weakest = np.concatenate([weakest, np.minimum(weakest, _fold(strengths, np.minimum, _NO_PAIR))])
    strength = (np.where(size < 2, 0, weakest) << WEAKEST_SHIFT) + total
    partial = (worst < Level.NVLINK) & _nvlink_connected(shape)
    level = np.where(partial, int(Level.NVLINK_PARTIAL), worst)
    return Subsets(size, level, strength, (level << LEVEL_SHIFT) + strength)


def _fold(values: Sequence[int], join: Callable[[Ints, Ints], Ints], start: int) -> Ints:
    """For every subset of positions, all its values joined."""
    table: Ints = np.array([start])
    for value in values:
        table = np.concatenate([table, join(table, np.array(value))])
    return table


def _nvlink_connected(shape: Shape) -> NDArray[np.bool_]:
    """For every subset, whether NVLinks alone connect it; grown from the lowest GPU until nothing is added."""
    count = shape.gpus
    neighbours = [sum(1 << j for j in range(count) if j != i and shape.pair_nvlinks(i, j)) for i in range(count)]
    reach = _fold(neighbours, np.bitwise_or, 0)
    masks: Ints = np.arange(1 << count)
    seen: Ints = masks & -masks
    while True:
        grown: Ints = (seen | reach[seen]) & masks
        if np.array_equal(grown, seen):
            result: NDArray[np.bool_] = seen == masks
            return result
        seen = grown


def minimum_over_subsets(values: Ints, gpus: int) -> Ints:
    """For every mask, the smallest value among its subsets, by adding one GPU at a time."""
    table = values.copy()
    for i in range(gpus):
        halves = table.reshape(-1, 2, 1 << i)
        np.minimum(halves[:, 1], halves[:, 0], out=halves[:, 1])
    return table
