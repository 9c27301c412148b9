import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colocd.core.backtest import BASELINES, QUANTILES, backtest
from colocd.core.foresight.calendar import DAY, Bins, Floats
from colocd.core.foresight.foreseer import Foreseer

STEP = 600.0
N = 144


def daily(days: int, noise: float = 0.03, seed: int = 1) -> Floats:
    """A tide between 10 and 110 with noise in proportion."""
    t = np.arange(days * N)
    rng = np.random.default_rng(seed)
    tide = 60 - 50 * np.cos(2 * np.pi * t / N)
    result: Floats = tide * np.exp(noise * rng.standard_normal(len(t)))
    return result


def bins(step: float = STEP) -> Bins:
    return Bins(start=1_760_000_400.0, step=step)


def wape(values: Floats, ahead: int, train: int = 7 * N) -> tuple[float, float, float]:
    """Own WAPE, that of the best baseline, and coverage."""
    found = backtest(values, bins(), ahead, train, 6)
    best = min(s.wape for s in found.baselines.values() if s.wape is not None)
    assert found.score.wape is not None
    assert found.score.coverage95 is not None
    return found.score.wape, best, found.score.coverage95


@pytest.mark.parametrize("ahead", [2, 18])
def test_a_tide_is_foreseen_better_than_by_any_simple_one(ahead: int) -> None:
    own, best, covered = wape(daily(14), ahead)
    assert own < best
    assert 0.92 <= covered <= 0.985


def test_a_level_shift_is_followed() -> None:
    values = daily(14)
    values[10 * N :] *= 2.5
    own, best, _ = wape(values, 6)
    assert own < 1.15 * best
    assert own < 0.1


def test_a_random_walk_is_no_worse_than_persistence() -> None:
    rng = np.random.default_rng(3)
    values = np.abs(100 + np.cumsum(rng.standard_normal(14 * N)))
    own, _, _ = wape(values, 6)
    naive = backtest(values, bins(), 6, 7 * N, 6).baselines["naive"].wape
    assert naive is not None
    assert own < 1.06 * naive


def test_days_of_the_week_are_learned() -> None:
    values = daily(35)
    weekend = (np.arange(35 * N) // N) % 7 >= 5
    values[weekend] *= 0.3
    found = backtest(values, bins(), 36, 21 * N, 6)
    assert found.score.wape is not None
    assert found.score.wape < 0.6 * (found.baselines["seasonal_ewma"].wape or 0)


def test_holes_are_neither_scored_nor_zeros() -> None:
    values = daily(14)
    rng = np.random.default_rng(5)
    holes = rng.random(len(values)) < 0.2
    holes[11 * N : 11 * N + 70] = True
    with_holes = np.where(holes, np.nan, values)
    found = backtest(with_holes, bins(), 6, 7 * N, 1)
    assert found.n == int((~holes[7 * N + 5 :]).sum())
    assert found.score.wape is not None
    assert found.score.wape < 0.08


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_nothing_is_looked_ahead_at(seed: int, ahead: int, cut: int) -> None:
    """What is foreseen from a bin does not change with what comes after it."""
    rng = np.random.default_rng(seed)
    step = 3600.0
    values = np.where(rng.random(120) < 0.1, np.nan, rng.gamma(1.0, 10.0, 120))
    other = values.copy()
    other[-cut:] = rng.gamma(1.0, 1000.0, cut)
    told = []
    for series in (values, other):
        foreseer = Foreseer(bins(step), (ahead,), QUANTILES)
        for part in np.split(series, range(3, 120, 3)):
            foreseer.extend(part)
        told.append((foreseer.middle.span(0, 120 - cut).copy(), foreseer.told.span(0, 120 - cut).copy()))
        for maker in BASELINES.values():
            a, b = (maker(s, bins(step), ahead)[: 120 - cut] for s in (values, other))
            first = np.flatnonzero(~np.isnan(values))[0]
            assert np.array_equal(a[first:], b[first:])
    # Bins of one block share what was learned before it, so every one of them can be compared.
    assert np.array_equal(told[0][0], told[1][0], equal_nan=True)
    assert np.array_equal(told[0][1], told[1][1], equal_nan=True)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1e9), st.just(0.0)), min_size=1, max_size=200),
    st.sampled_from([300.0, 600.0, 3600.0, 7 * 60.0, DAY]),
)
def test_any_series_gives_ordered_finite_quantiles(raw: list[float | None], step: float) -> None:
    values = np.array([np.nan if v is None else v for v in raw])
    foreseer = Foreseer(bins(step), (1, 7, 30), QUANTILES)
    with np.errstate(all="raise", under="ignore"):
        for a in range(0, len(values), 17):
            foreseer.extend(values[a : a + 17])
    told = foreseer.told.span(0, len(values))
    heard = ~np.isnan(foreseer.past.filled.span(0, len(values)))
    assert np.isfinite(told[heard]).all()
    assert (told[heard] >= 0).all()
    assert (np.diff(told[heard], axis=1) >= 0).all()


def test_nothing_to_score_is_none() -> None:
    found = backtest(np.full(100, np.nan), bins(), 6, 10, 1)
    assert found.n == 0
    assert found.score.wape is None
    zeros = backtest(np.zeros(2 * N), bins(), 6, N, 6)
    assert zeros.score.wape is None
    assert zeros.score.coverage95 == 1.0
