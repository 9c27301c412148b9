"""Arrays of the planner: their types, numbers of GPUs, and what differs between two cycles."""

from collections.abc import Sequence
from itertools import compress
from operator import is_not

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_STEP = 1024
"""Numbers compared in one go."""
_NEAR = 16
"""How far ahead is looked for where two sequences go on alike."""


def popcount(masks: Ints) -> Ints:
    """Number of GPUs in each mask."""
    if _COUNT is not None:
        counted: Ints = _COUNT(masks).astype(np.int64)
        return counted
    out: Ints = _COUNTS[masks & 0xFFFF]
    more = masks >> 16
    return out + popcount(more) if more.any() else out


_COUNT = getattr(np, "bitwise_count", None)
"""numpy's own, from 2.0 on."""
_COUNTS: Ints = np.array([i.bit_count() for i in range(1 << 16)], dtype=np.int64)


def begins(*columns: Ints) -> Bools:
    """Where a row of these columns, sorted, is another than the one before it: the first of each run of alike rows."""
    found: Bools = np.ones(len(columns[0]), dtype=np.bool_)
    if len(found):
        found[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return found


def others(new: Sequence[object], old: Sequence[object]) -> list[int]:
    """Where two sequences of one length do not hold the same object."""
    return list(compress(range(len(new)), map(is_not, new, old)))


def differences(new: Ints, old: Ints) -> tuple[Sequence[int], Sequence[int]]:
    """Where `new` has numbers that `old` has not, and the other way round, if both are in about the same order.

    Each holds a number once. What has moved is told in both; all of both is told where much has changed.
    """
    fresh: list[int] = []
    gone: list[int] = []
    p = q = 0
    while p < len(new) and q < len(old):
        size = min(len(new) - p, len(old) - q, _STEP)
        unlike = new[p : p + size] != old[q : q + size]
        at = int(unlike.argmax())
        if not unlike[at]:
            p, q = p + size, q + size
            continue
        if len(fresh) + len(gone) > (len(new) + len(old)) // 16:
            return range(len(new)), range(len(old))
        p, q = p + at, q + at
        ahead = np.flatnonzero(old[q : q + _NEAR] == new[p])
        if len(ahead):
            gone += range(q, q + int(ahead[0]))
            q += int(ahead[0])
            continue
        ahead = np.flatnonzero(new[p : p + _NEAR] == old[q])
        if len(ahead):
            fresh += range(p, p + int(ahead[0]))
            p += int(ahead[0])
            continue
        fresh.append(p)
        gone.append(q)
        p, q = p + 1, q + 1
    return [*fresh, *range(p, len(new))], [*gone, *range(q, len(old))]
