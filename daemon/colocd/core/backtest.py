"""Rolling-origin backtest of the forecaster against simple ones. Pure: times of the run itself are the caller's."""

from collections.abc import Callable

import msgspec
import numpy as np

from colocd.core.foresight.calendar import Bins, Floats, Ints
from colocd.core.foresight.foreseer import Foreseer

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
TOP = QUANTILES.index(0.95)


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """How a forecaster did. All None: nothing could be scored, or the load was 0 throughout (`wape`, `pinball95_pct`)."""

    wape: float | None
    """Sum of absolute errors divided by the sum of the load: 0.05 is 5 %."""
    pinball95_pct: float | None
    """Mean pinball loss of the 0.95 quantile, in per cent of the mean load."""
    coverage95: float | None
    """Share of what came true at or below the 0.95 quantile."""


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """The forecaster's score, those of the simple ones over the same `n` origins, and the 0.5 quantile's WAPE."""

    score: Score
    baselines: dict[str, Score]
    n: int
    holes: float
    """Share of bins without a value."""


def backtest(values: Floats, bins: Bins, ahead: int, train: int, every: int) -> Backtest:
    """Foresee bin `o + ahead` from each origin `o`, that is with the values of bins 0 to `o` and nothing later.

    The first origin is the last of the first `train` bins, then each `every` bins. Scored is the mean load of the bin `ahead`
    later; where that is a hole, nothing is. Everything before an origin may be used, not only the last `train` bins.
    """
    block = max(1, min(12, -(-len(values) // 700)))
    foreseer = Foreseer(bins, (ahead,), QUANTILES)
    middle, top = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for a in range(0, len(values), block):
        foreseer.extend(values[a : a + block])
        middle[a : a + block] = foreseer.middle.span(a, a + block)[:, 0]
        top[a : a + block] = foreseer.told.span(a, a + block)[:, TOP, 0]
    origins = np.arange(max(train - 1, 0), len(values) - ahead, every)
    truth = values[origins + ahead]
    simple = {name: maker(values, bins, ahead) for name, maker in BASELINES.items()}
    known = ~np.isnan(truth) & ~np.isnan(middle[origins])
    origins, truth = origins[known], truth[known]
    return Backtest(
        score=score(truth, middle[origins], top[origins]),
        baselines={
            name: score(truth, told[origins], told[origins] + margin(values, told, ahead, origins, 7 * bins.per_season))
            for name, told in simple.items()
        },
        n=len(origins),
        holes=float(np.isnan(values).mean()) if len(values) else 0.0,
    )


def score(truth: Floats, middle: Floats, top: Floats) -> Score:
    """Score forecasts and their 0.95 quantiles against what came true."""
    if not len(truth):
        return Score(wape=None, pinball95_pct=None, coverage95=None)
    size = float(np.abs(truth).sum())
    off = truth - top
    pinball = float(np.where(off > 0, 0.95 * off, -0.05 * off).sum())
    return Score(
        wape=float(np.abs(truth - middle).sum()) / size if size else None,
        pinball95_pct=100 * pinball / size if size else None,
        coverage95=float((truth <= top).mean()),
    )


def margin(values: Floats, told: Floats, ahead: int, origins: Ints, window: int) -> Floats:
    """The 0.95 quantile of a simple forecaster's own errors that were known at each origin, over the last `window` bins."""
    error = np.full(len(values), np.nan)
    error[ahead:] = values[ahead:] - told[: len(values) - ahead]
    found = np.zeros(len(origins))
    for i, o in enumerate(origins):
        past = error[max(0, o + 1 - window) : o + 1]
        past = past[~np.isnan(past)]
        found[i] = np.quantile(past, 0.95) if len(past) else 0.0
    return found


def last_known(values: Floats) -> Floats:
    """The last value at or before each bin; before the first one the first, so that every forecaster says something."""
    known = np.where(np.isnan(values), 0, np.arange(len(values)))
    found: Floats = values[np.maximum.accumulate(known)]
    first = values[~np.isnan(values)]
    return np.where(np.isnan(found), first[0] if len(first) else np.nan, found)


def naive(values: Floats, bins: Bins, ahead: int) -> Floats:
    """The last known value."""
    return last_known(values)


def seasonal_naive(values: Floats, bins: Bins, ahead: int) -> Floats:
    """The value one season before the target (more where the horizon is longer); where that is a hole, the last known one."""
    season, n = bins.per_season, len(values)
    then = np.arange(n) + ahead - season * max(1, -(-ahead // season))
    found = np.where(then >= 0, values[np.maximum(then, 0)], np.nan)
    return np.where(np.isnan(found), last_known(values), found)


def seasonal_ewma(values: Floats, bins: Bins, ahead: int) -> Floats:
    """Profile of the season (the newest weighs half) plus the last distance to it, which fades over a twelfth of a season."""
    season, n = bins.per_season, len(values)
    profile = np.full(n + season + ahead, np.nan)
    last, found, off = last_known(values), np.empty(n), 0.0
    for t, value in enumerate(values.tolist()):
        usual = profile[t]
        if value == value:
            profile[t + season] = value if usual != usual else usual + 0.5 * (value - usual)
            off = value - usual if usual == usual else 0.0
        else:
            profile[t + season] = usual
        target = profile[t + ahead - season * max(0, -(-ahead // season) - 1)]
        found[t] = last[t] if target != target else max(0.0, target + off * np.exp(-12 * ahead / season))
    return found


BASELINES: dict[str, Callable[[Floats, Bins, int], Floats]] = {
    "naive": naive,
    "seasonal_naive": seasonal_naive,
    "seasonal_ewma": seasonal_ewma,
}
