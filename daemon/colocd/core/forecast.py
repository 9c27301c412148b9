"""Foresight, simple for now: recent level plus what the same time brought in earlier seasons, as quantiles.

The value foreseen at `now + h` is s(h) + (L - s(0)) * exp(-h / tau): s is the profile of earlier seasons (newer ones weigh
more), L the level just read, tau a twelfth of a season. Without an earlier season it is L with a margin that widens with h.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence

from colocd.core.view import Forecast, Quantiles, Reading, Record

Sample = tuple[float, float | None]
"""(Unix seconds, load); None is a hole."""

STEPS = 96
"""Points of a forecast: one each 1/96 of a season (15 minutes of a day)."""
SEASONS = 7
"""Earlier seasons looked at."""
_Z = {"0.5": 0.0, "0.9": 1.2816, "0.95": 1.6449}


def _mean_between(samples: Sequence[Sample], times: Sequence[float], start: float, end: float) -> float | None:
    """Mean of the known values in [start, end); None when there is none."""
    known = [v for _, v in samples[bisect_left(times, start) : bisect_left(times, end)] if v is not None]
    return sum(known) / len(known) if known else None


def _profile(samples: Sequence[Sample], times: Sequence[float], at: float, season: float) -> float | None:
    """Value expected at `at` from the same time in earlier seasons, each half as heavy as the next newer; None: never seen."""
    half = season / STEPS / 2
    total = weight = 0.0
    for back in range(1, SEASONS + 1):
        seen = _mean_between(samples, times, at - back * season - half, at - back * season + half)
        if seen is not None:
            total += seen * 0.5**back
            weight += 0.5**back
    return total / weight if weight else None


def foresee(samples: Sequence[Sample], load: Reading | None, now: float, season: float) -> Forecast | None:
    """Foresee the load for one season ahead from its history (oldest first) and the reading of now.

    None: neither a reading nor an earlier season is known, so nothing can be said.
    """
    times = [t for t, _ in samples]
    profile = [_profile(samples, times, now + i * season / STEPS, season) for i in range(STEPS + 1)]
    level = load.value if load is not None else None
    known = sum(p is not None for p in profile)
    if level is None and not known:
        return None
    residual = level - profile[0] if level is not None and profile[0] is not None else None
    tau = season / 12
    points = []
    for i, expected in enumerate(profile):
        ahead = i * season / STEPS
        fade = math.exp(-ahead / tau)
        if expected is None:
            if level is None:
                continue
            middle, spread = level, level * (0.1 + 0.4 * (1 - fade))
        else:
            middle = max(0.0, expected + (residual * fade if residual is not None else 0.0))
            spread = max(middle, expected) * (0.08 if level is not None else 0.2) + abs(residual or 0.0) * 0.3 * (
                1 - fade
            )
        points.append(Quantiles(ahead, {q: middle + z * spread for q, z in _Z.items()}))
    basis = "recent level and earlier seasons" if known and level is not None else "recent level only"
    if level is None:
        basis = "earlier seasons only: no current reading"
    return Forecast(points=tuple(points), step=season / STEPS, trust=known / len(profile), basis=basis)


def peak(forecast: Forecast, quantile: float, start: float, end: float) -> float | None:
    """Highest foreseen load between `start` and `end` seconds ahead, at the nearest known quantile not below the one asked.

    None: no point lies in the window or within one step of it (so a short window is not empty for being short).
    """
    near = (p for p in forecast.points if start - forecast.step < p.ahead < end + forecast.step)
    return max((_at(p, quantile) for p in near), default=None)


def headline(forecast: Forecast | None, season: float) -> Record | None:
    """How well the load was foreseen a 24th of a season ahead (an hour), or as near to it as is known; None: not known yet."""
    known = forecast.records if forecast is not None else ()
    return min(known, key=lambda r: abs(r.ahead - season / 24), default=None)


def _at(point: Quantiles, quantile: float) -> float:
    ranked = sorted((float(q), v) for q, v in point.values.items())
    return next((v for q, v in ranked if q >= quantile - 1e-9), ranked[-1][1])
