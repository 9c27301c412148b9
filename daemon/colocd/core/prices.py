"""Prices for replicas at which nodes offer about as many as are wanted, and the bound from below that they give.

Each replica that is wanted is paid its price and each node makes the offer that gains most: no plan costs less than what is paid
less all gains (Lagrangian bound). The bound is concave in the prices, so it is climbed: along what is wanted and not offered,
averaged over the last steps as neighbouring offers alternate, towards a mark a little above the best bound so far. Whole numbers
only, so that prices are the same on every machine.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Ints
from colocd.core.offers import Offers

STEPS = 50
"""Prices that are tried."""
_RAISES = 12
"""Prices that are tried by raising all of them alike."""
_FIRST = 8
"""The first mark is this part of what some plan costs above the bound."""
_LAST = 2048
"""No mark is nearer than this part of what some plan costs."""
_PATIENCE = 6
"""Steps without much gain until the mark is put nearer."""
_FINE = 16


class Priced(NamedTuple):
    """Prices by axis, the bound they give over the nodes looked at, and what is wanted and not offered at them."""

    bound: int
    prices: Ints
    missing: Ints


def priced(offers: Sequence[Offers], many: Ints, prices: Ints) -> Priced:
    """The bound at these prices; `many`: replicas wanted."""
    bound, missing = int((prices * many).sum()), many
    for some in offers:
        gains, taken = some.best(prices)
        bound, missing = bound + int(gains.sum()), missing - taken
    return Priced(bound, prices, missing)


def climb(
    offers: Sequence[Offers], many: Ints, gpus: Sequence[int], start: Ints, known: int, steps: int = STEPS
) -> Priced:
    """The best prices found from these on; `gpus`: of a replica, by axis; `known`: what some plan costs."""
    best = now = priced(offers, many, np.maximum(1, start))
    used = 1
    while used < _RAISES and (now := priced(offers, many, now.prices * 5 // 4 + 1)).bound > best.bound:
        best, used = now, used + 1
    now, way = best, best.missing * _FINE
    ahead, stale = max(1, known // _FIRST), 0
    weights = [size * size for size in gpus]
    while used < steps and now.missing.any() and ahead * _LAST > known:
        length = sum(w * int(step) ** 2 for w, step in zip(weights, way, strict=True))
        if not length:
            way = now.missing * _FINE
            continue
        far = (best.bound + ahead - now.bound) * _FINE
        moves = [far * int(step) * w // length for w, step in zip(weights, way, strict=True)]
        now, used = priced(offers, many, np.maximum(1, now.prices + np.array(moves))), used + 1
        stale = 0 if now.bound > best.bound + ahead // 4 else stale + 1
        best = max(best, now, key=lambda known: known.bound)
        way = (way + now.missing * _FINE) // 2
        if stale >= _PATIENCE:
            now, ahead, stale = best, ahead // 2, 0
            way = (way + now.missing * _FINE) // 2
    return best


def worth(prices: Sequence[int], gpus: Sequence[int], most: int) -> list[int]:
    """The most that replicas on 0, 1, … `most` GPUs are worth at these prices, links forgotten."""
    found = [0] * (most + 1)
    for room in range(1, most + 1):
        sums = [found[room - size] + price for price, size in zip(prices, gpus, strict=True) if size <= room]
        found[room] = max(found[room - 1], *sums, 0)
    return found
