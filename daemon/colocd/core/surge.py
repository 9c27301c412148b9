"""How much a load may grow until a replica that is started now is ready: learned from how much it grew before. Pure.

A forecast is of means over minutes and knows seasons; it does not see a jump that has no season. So beside it coloc counts, for
each service, by how much the load one lead time later exceeded the load read: while it was rising, and otherwise. The quantile
`policy.surge_quantile` of that is added to the load read now. It is a reactive margin, and as wide as this service needs.
"""

from collections import deque
from collections.abc import Mapping

import msgspec

STEP = 60.0
"""Seconds between the readings that are compared; less where the season is short."""
RISING = 0.05
"""A load is rising that grew by more than this share within one lead time."""
HALF_LIFE = 0.5
"""Seasons after which a rise counts half."""
ENOUGH = 120.0
"""Rises that must be known before a margin is taken: two hours."""
ENOUGH_OF_A_KIND = 30.0
"""Rises of one kind (rising, or not) that must be known before they count apart."""
LIMIT = 3.0
"""Largest margin, as a share of the load."""
_BIN = 0.01
_LEAST = 5.0
_FADED = 0.01


class Rises(msgspec.Struct, frozen=True, kw_only=True):
    """What is learned of a service: how often the load grew by which share (steps of 1 %; negative: it fell); counts fade."""

    at: float
    rising: dict[int, float] = msgspec.field(default_factory=dict)
    steady: dict[int, float] = msgspec.field(default_factory=dict)


class Surge(msgspec.Struct, frozen=True, kw_only=True):
    """Share of the load (at least of half a replica's) that is added to the load read, and why."""

    share: float
    why: str


class SurgeWatch:
    """Follows one service's load. `season`: seconds; `known`: what an earlier process learned."""

    def __init__(self, season: float, known: Rises | None = None) -> None:
        self.known = known
        self._step = max(_LEAST, min(STEP, season / 1440))
        self._half = HALF_LIFE * season
        self._seen: deque[tuple[float, float, bool]] = deque()

    def see(self, at: float, load: float, lead: float, floor: float) -> None:
        """Take a reading over. `lead`: seconds to a ready replica; `floor`: load below which shares are taken of it.

        A load that is not known is not shown: a hole teaches nothing.
        """
        if self._seen and at < self._seen[-1][0]:
            self._seen.clear()  # the clock was set back
        if self._seen and at - self._seen[-1][0] < self._step * 0.9:
            return
        origin = self._before(at, lead)
        if origin is not None:
            _, then, rising = origin
            share = (load - then) / max(then, floor)
            self._learn(at, max(-1.0, min(LIMIT, share)), rising)
        self._seen.append((at, load, self._rises(at, load, lead, floor)))
        while self._seen[0][0] < at - lead - 3 * self._step:
            self._seen.popleft()

    def surge(self, at: float, load: float, lead: float, floor: float, quantile: float) -> Surge | None:
        """The margin for the load read now; None: too little is known, or none is wanted (`quantile` 0)."""
        known = self.known
        if quantile <= 0 or known is None:
            return None
        both = {
            i: known.rising.get(i, 0.0) + known.steady.get(i, 0.0) for i in known.rising.keys() | known.steady.keys()
        }
        if sum(both.values()) < ENOUGH:
            return None
        rising = self._rises(at, load, lead, floor)
        mine = known.rising if rising else known.steady
        weight = sum(mine.values())
        own = min(1.0, weight / (4 * ENOUGH_OF_A_KIND)) if weight >= ENOUGH_OF_A_KIND else 0.0
        share = own * _quantile(mine, quantile) + (1 - own) * _quantile(both, quantile)
        share = round(max(0.0, share), 4)
        when = "while it was rising" if rising else "while it was not rising"
        why = f"in {quantile:.0%} of cases it grew by no more within {lead:.0f} s{f' {when}' if own else ''}"
        return Surge(share=share, why=why)

    def _before(self, at: float, lead: float) -> tuple[float, float, bool] | None:
        """The newest reading at least one lead time ago, if it is not much older."""
        found = None
        for entry in self._seen:
            if entry[0] > at - lead + 1e-6:
                break
            found = entry
        return found if found is not None and found[0] >= at - lead - 2 * self._step else None

    def _rises(self, at: float, load: float, lead: float, floor: float) -> bool:
        before = self._before(at, lead)
        return before is not None and load - before[1] > RISING * max(before[1], floor)

    def _learn(self, at: float, share: float, rising: bool) -> None:
        old = self.known or Rises(at=at)
        fade = 0.5 ** (max(0.0, at - old.at) / self._half)
        kinds = [{i: n * fade for i, n in kind.items() if n * fade > _FADED} for kind in (old.rising, old.steady)]
        mine, i = kinds[0 if rising else 1], round(share / _BIN)
        mine[i] = mine.get(i, 0.0) + 1.0
        self.known = Rises(at=max(at, old.at), rising=kinds[0], steady=kinds[1])


def _quantile(counts: Mapping[int, float], quantile: float) -> float:
    """The smallest share that is not exceeded in `quantile` of what was counted; 0 when nothing was."""
    total, passed = sum(counts.values()), 0.0
    for i in sorted(counts):
        passed += counts[i]
        if passed >= quantile * total - 1e-9:
            return i * _BIN
    return 0.0
