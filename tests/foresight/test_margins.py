"""The 0.95 quantile keeps what it says on made-up loads of many kinds, at less loss than the seasonal EWMA's on a clean cycle."""

from collections.abc import Callable

import numpy as np
import pytest

from colocd.core.backtest import backtest
from colocd.core.foresight.calendar import DAY, Bins, Floats
from colocd.core.foresight.foreseer import Foreseer
from colocd.core.foresight.margins import SCALES, Margins

Random = np.random.Generator
Make = Callable[[Random, Floats], Floats]


def tide(days: Floats, depth: float = 0.6) -> Floats:
    return 100 * (1 - depth * np.cos(2 * np.pi * days))


def noise(rng: Random, days: Floats, keep: float, size: float) -> Floats:
    found = np.zeros(len(days))
    for i in range(1, len(days)):
        found[i] = keep * found[i - 1] + size * rng.standard_normal()
    return np.exp(found)


def jumps(rng: Random, days: Floats) -> Floats:
    """Jobs start at the full hour."""
    full = np.isclose(days * 24 % 1, 0) | np.isclose(days * 24 % 1, 1)
    return tide(days) * np.exp(0.03 * rng.standard_normal(len(days))) * (1 + full * rng.gamma(1.0, 0.5, len(days)))


def heavy(rng: Random, days: Floats) -> Floats:
    return tide(days, 0.5) * (1 + rng.pareto(2.2, len(days)))


def rare(rng: Random, days: Floats) -> Floats:
    return np.where(rng.random(len(days)) < 0.25 * tide(days, 0.7) / 100, rng.gamma(2.0, 5.0, len(days)), 0.0)


def bursts(rng: Random, days: Floats) -> Floats:
    """No cycle: a low level, and bursts of some hours."""
    found, level = np.empty(len(days)), 0.0
    for i in range(len(days)):
        if rng.random() < (0.2 if level else 0.03):
            level = 0.0 if level else rng.lognormal(5, 1)
        found[i] = (level or 20.0) * rng.gamma(4, 0.25)
    return found


def shift(rng: Random, days: Floats) -> Floats:
    level = np.where(days < 9, 1.0, np.where(days < 10.5, 2.5, 1.0))
    return tide(days) * level * np.exp(0.05 * rng.standard_normal(len(days)))


def calmer(rng: Random, days: Floats) -> Floats:
    return tide(days) * np.exp(np.where(days < 8, 0.15, 0.03) * rng.standard_normal(len(days)))


def smooth(rng: Random, days: Floats) -> Floats:
    return tide(days) * noise(rng, days, 0.8, 0.05)


@pytest.mark.parametrize(
    ("make", "minutes", "days", "train", "ahead"),
    [
        (jumps, 10, 11, 7, 20),
        (heavy, 60, 28, 7, 60),
        (rare, 60, 28, 7, 180),
        (bursts, 60, 28, 7, 360),
        (shift, 60, 21, 7, 60),
        (calmer, 60, 21, 7, 180),
        (smooth, 60, 7, 3, 360),
        (smooth, 1, 2, 1, 5),
    ],
)
def test_the_upper_quantile_keeps_what_it_says(make: Make, minutes: int, days: int, train: int, ahead: int) -> None:
    rng = np.random.default_rng(7)
    per = 1440 // minutes
    values = make(rng, np.arange(days * per) / per)
    found = backtest(values, Bins(start=20_000 * DAY, step=60.0 * minutes), ahead // minutes, train * per, 1)
    covered, loss = found.score.coverage95, found.score.pinball95_pct
    usual = found.baselines["seasonal_ewma"].pinball95_pct
    assert covered is not None
    assert loss is not None
    assert usual is not None
    assert 0.925 <= covered <= 0.98
    # Where nothing but the load's own quantiles helps, choosing among scales costs some.
    assert loss < (1.3 if make in (rare, bursts, heavy) else 1.0) * usual


def test_one_bad_day_does_not_keep_the_margins_of_a_day_ahead_wide_for_a_week() -> None:
    """All its misses are told before the first is known: stretching then is too late. The errors themselves are remembered."""
    n, ahead = 21 * 24, 24
    days = np.arange(n) / 24
    values = tide(days) * np.exp(0.05 * np.random.default_rng(1).standard_normal(n))
    values[(days >= 12) & (days < 13)] *= 1.8
    foreseer = Foreseer(Bins(start=20_000 * DAY, step=3600.0), (ahead,), (0.5, 0.95))
    for value in values:
        foreseer.extend(np.array([value]))
    margin = foreseer.told.span(0, n)[:, 1, 0] - foreseer.middle.span(0, n)[:, 0]
    day = (np.arange(n) + ahead) // 24
    assert margin[(day >= 9) & (day < 12)].mean() < 20
    assert margin[(day >= 16) & (day < 20)].mean() < 155


def test_no_scale_takes_part_with_more_than_the_roof() -> None:
    """The mixture would follow one wild scale, and all that is learned from it."""
    margins = Margins((0.5, 0.95), np.array([0.25]), 24, 1)
    middle, roof, phase = np.array([[10.0]]), np.array([[30.0]]), np.zeros((1, 1), dtype=np.int64)
    scales = np.full((1, 1, SCALES), 1000.0)
    _, mixed, _, each = margins.predict(middle, scales, roof, phase)
    assert each.max() <= 30.0
    assert mixed.max() <= 30.0


def test_one_wrong_reading_is_not_remembered() -> None:
    """The bin itself is no target of the origins, six bins apart."""
    days = np.arange(28 * 24) / 24
    values = tide(days) * np.exp(0.05 * np.random.default_rng(1).standard_normal(len(days)))
    spiked = values.copy()
    spiked[400] *= 1e7
    grid = Bins(start=20_000 * DAY, step=3600.0)
    clean, found = (backtest(v, grid, 1, 7 * 24, 6).score for v in (values, spiked))
    assert clean.wape is not None
    assert clean.pinball95_pct is not None
    assert (found.wape or 1.0) < 2 * clean.wape
    assert (found.pinball95_pct or 99.0) < 2 * clean.pinball95_pct


def test_a_true_jump_is_believed_at_its_second_value() -> None:
    values = np.full(20 * 24, 5.0)
    values[300:] = 500.0
    foreseer = Foreseer(Bins(start=20_000 * DAY, step=3600.0), (1,), (0.5, 0.95))
    foreseer.extend(values[:302])
    assert foreseer.past.filled.span(300, 302).tolist() == [150.0, 500.0]


def test_misses_of_daily_means_come_one_by_one() -> None:
    """A day ahead is one bin: what is missed is known at the next, and margins answer it."""
    rng = np.random.default_rng(3)
    values = 100 * np.exp(0.1 * rng.standard_normal(400))
    found = backtest(values, Bins(start=20_000 * DAY, step=DAY), 1, 28, 1)
    assert 0.94 <= (found.score.coverage95 or 0.0) <= 0.965
