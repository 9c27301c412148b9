"""From prices to a plan: each node's offer chosen so that exactly as many replicas are placed as are wanted, for the least cost.

At the prices found the best offers together miss what is wanted by a little. Offers are exchanged first by what each costs more
for what it brings nearer; then all exchanges are combined at once, by dynamic programming over how far the sum is from what is
wanted, within a window around it (Pisinger's balancing). The number of offers and the window are bounded.
"""

from collections.abc import Sequence

import numpy as np

from colocd.core.arrays import Ints, begins
from colocd.core.offers import Table
from colocd.core.search import NEVER

MOST_OFFERS = 240
"""Offers that are combined, besides those that are chosen."""
MOST_CELLS = 4096
"""States of the window."""
MARGIN = 4
"""How much further than from here to what is wanted the sum may go, on either side, if the window has room."""


def chosen(table: Table, many: Ints, gpus: Sequence[int]) -> Ints | None:
    """The rows of the table that make up a plan, one for each node that does something; None: none was found."""
    if not len(table.node):
        return None
    first = begins(table.node)
    group = np.cumsum(first) - 1
    at = _exchanged(table, group, np.flatnonzero(first), many, np.array(gpus, dtype=np.int64))
    found = _combined(table, group, at, many - table.vectors[at].sum(axis=0))
    return None if found is None else found[table.vectors[found].any(axis=1)]


def _exchanged(table: Table, group: Ints, at: Ints, many: Ints, gpus: Ints) -> Ints:
    """The offer of each node after exchanges, one at a time, that bring the sum nearer to what is wanted."""
    at = at.copy()
    for _ in range(4 * len(many) + int(many.sum())):
        missing = many - table.vectors[at].sum(axis=0)
        far = int((np.abs(missing) * gpus).sum())
        if not far:
            break
        change = table.vectors - table.vectors[at][group]
        nearer = far - (np.abs(missing - change) * gpus).sum(axis=1)
        price = table.gap - table.gap[at][group]
        some = np.flatnonzero(nearer > 0)
        if not len(some):
            break
        best = int(some[np.argmin(price[some] * 64 // nearer[some])])
        at[group[best]] = best
    return at


def _combined(table: Table, group: Ints, at: Ints, missing: Ints) -> Ints | None:
    """The offers that together place what is wanted for the least; None: none do within the window."""
    change = table.vectors - table.vectors[at][group]
    price = table.gap - table.gap[at][group]
    others = np.flatnonzero(change.any(axis=1))
    if len(others) > MOST_OFFERS:
        others = np.sort(others[np.argsort(price[others], kind="stable")[:MOST_OFFERS]])
    low, size = _window(missing)
    if size is None:
        return None
    best: Ints = np.full(size, NEVER, dtype=np.int64)
    best[tuple(-low)] = 0
    steps: list[tuple[int, Ints]] = []
    for node in np.unique(group[others]).tolist():
        grown, which = best.copy(), np.full(size, -1, dtype=np.int64)
        for offer in others[group[others] == node].tolist():
            into, out = [], []
            for move, length in zip(change[offer].tolist(), size, strict=True):
                into.append(slice(max(0, move), length + min(0, move)))
                out.append(slice(max(0, -move), length - max(0, move)))
            if any(s.stop <= s.start for s in into):
                continue
            sums = best[tuple(out)] + price[offer]
            place = grown[tuple(into)]
            better = sums < place
            np.copyto(place, sums, where=better)
            np.copyto(which[tuple(into)], offer, where=better)
        best = grown
        steps.append((node, which))
    state = missing - low
    if best[tuple(state)] >= NEVER >> 1:
        return None
    found = at.copy()
    for node, which in reversed(steps):
        offer = int(which[tuple(state)])
        if offer >= 0:
            found[node] = offer
            state = state - change[offer]
    return found


def _window(missing: Ints) -> tuple[Ints, tuple[int, ...] | None]:
    """Lowest state by axis and size of the window; None: even the least would be too large."""
    for margin in range(MARGIN, -1, -1):
        low = np.minimum(missing, 0) - margin
        size = tuple((np.abs(missing) + 2 * margin + 1).tolist())
        if int(np.prod(size)) <= MOST_CELLS:
            return low, size
    return low, None
