"""Prometheus histograms as values: sums over engines, differences over time, quantiles. Pure."""

import math
from collections.abc import Mapping

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """A histogram: `counts[i]` values were at most `bounds[i]`, cumulative; the last bound is infinite."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def total(self) -> float:
        """How many values there are."""
        return self.counts[-1]

    def since(self, older: "Spread") -> "Spread | None":
        """What was added since; None: it cannot be told (other bounds, or it was started again)."""
        if older.bounds != self.bounds:
            return None
        added = tuple(new - old for new, old in zip(self.counts, older.counts, strict=True))
        return Spread(self.bounds, added) if _cumulative(added) else None

    def quantile(self, share: float) -> float | None:
        """The value below which `share` (0..1) of all values lie, straight within a bucket; None: there are none.

        Values beyond the last finite bound count as that bound: more is not known of them.
        """
        if self.total <= 0:
            return None
        wanted = share * self.total
        low, below = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count >= wanted and count > below:
                return low if math.isinf(bound) else low + (bound - low) * max(0.0, wanted - below) / (count - below)
            if not math.isinf(bound):
                low = bound
            below = count
        return low

    def shares(self) -> list[tuple[float, float]]:
        """(a value, its share of all values) per bucket that has any: the middle, or the last finite bound."""
        made: list[tuple[float, float]] = []
        low, below = 0.0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            if count > below:
                middle = low if math.isinf(bound) else (max(0.0, low) + bound) / 2
                made.append((middle, (count - below) / self.total))
            low, below = low if math.isinf(bound) else bound, count
        return made


def spread_of(counts: Mapping[str, float]) -> Spread:
    """A histogram from its `le` labels and cumulative counts; raises ValueError when that is none."""
    try:
        found = sorted((float(bound), count) for bound, count in counts.items())
    except ValueError:
        raise ValueError("has a bucket whose bound is no number") from None
    if not found or found[-1][0] != math.inf or any(math.isnan(bound) for bound, _ in found):
        raise ValueError('has no bucket le="+Inf"')
    made = Spread(tuple(bound for bound, _ in found), tuple(count for _, count in found))
    if not _cumulative(made.counts):
        raise ValueError("has buckets that do not grow")
    return made


def _cumulative(counts: tuple[float, ...]) -> bool:
    low = 0.0
    for count in counts:
        if count < low - 1e-9:
            return False
        low = count
    return True
