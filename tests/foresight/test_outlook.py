import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from tests.helpers.views import service as spec

from colocd.clock import SystemClock
from colocd.config_forecast import ForecastConfig
from colocd.core.forecast import Sample, peak
from colocd.core.foresight.calendar import DAY, Calendar
from colocd.core.foresight.outlook import Outlook
from colocd.core.view import Forecast, Reading
from colocd.forecasters import Forecasters

NOW = 1_760_054_400.0  # a full hour
WIDTH = 600.0


def history(days: float, load: Callable[[float], float | None]) -> list[Sample]:
    """Ten-minute means up to now."""
    return [(NOW - i * WIDTH, load(NOW - i * WIDTH)) for i in range(round(days * DAY / WIDTH), 0, -1)]


def tide(at: float) -> float:
    """10 to 110, highest at 12 hours after midnight UTC."""
    return 60 - 50 * math.cos(2 * math.pi * (at % DAY) / DAY)


def outlook(samples: Sequence[Sample]) -> Outlook:
    found = Outlook(WIDTH, DAY, Calendar())
    while found.behind and found.feed(samples, NOW, 500):
        pass
    return found


def foreseen(samples: Sequence[Sample], load: float | None) -> Forecast:
    found = outlook(samples).forecast(Reading(load, NOW) if load is not None else None, NOW)
    assert found is not None
    return found


def at(forecast: Forecast, hours: float, quantile: str = "0.5") -> float:
    return min(forecast.points, key=lambda p: abs(p.ahead - hours * 3600)).values[quantile]


def test_nothing_read_is_nothing_foreseen() -> None:
    for samples in ([], [(NOW - WIDTH, None)]):
        assert outlook(samples).forecast(Reading(3.0, NOW), NOW) is None


def test_a_tide_is_foreseen_over_the_whole_day() -> None:
    told = foreseen(history(10, tide), tide(NOW))
    for hours in (0.5, 2, 5, 8, 12, 17, 22):
        assert at(told, hours) == pytest.approx(tide(NOW + hours * 3600), rel=0.08)
    assert "cycle found" in told.basis
    assert (told.trust or 0) > 0.9
    assert {r.ahead for r in told.records} >= {600.0, 3600.0, DAY}


def test_an_hour_of_history_gives_wide_margins_around_the_level() -> None:
    told = foreseen(history(1 / 24, lambda t: 20.0), 20.0)
    assert at(told, 6) == pytest.approx(20, rel=0.05)
    assert at(told, 6, "0.95") > 24
    assert "too short" in told.basis


def test_noise_has_no_cycle_and_says_so() -> None:
    rng = np.random.default_rng(4)
    told = foreseen(history(10, lambda t: float(rng.gamma(2.0, 10.0))), 20.0)
    assert "no cycle found" in told.basis
    assert 30 < np.mean([at(told, h, "0.95") for h in range(1, 24)]) < 60  # of the noise: 47


def test_a_shift_of_the_level_moves_the_near_future() -> None:
    told = foreseen(history(10, lambda t: tide(t) * (2 if t > NOW - 6 * 3600 else 1)), 2 * tide(NOW))
    assert at(told, 0.5) > 1.7 * tide(NOW + 1800)


def test_holes_are_not_zeros() -> None:
    told = foreseen(history(10, lambda t: None if (t // 3600) % 7 < 2 else tide(t)), tide(NOW))
    assert at(told, 12) == pytest.approx(tide(NOW + 12 * 3600), rel=0.2)


def test_without_a_reading_the_last_history_counts() -> None:
    told = foreseen(history(10, tide), None)
    assert "no current reading" in told.basis
    assert at(told, 1) == pytest.approx(tide(NOW + 3600), rel=0.1)


def test_feeding_in_pieces_ends_at_the_same_bin_and_forecasts_alike() -> None:
    samples = history(5, tide)
    whole, pieces = Outlook(WIDTH, DAY, Calendar()), Outlook(WIDTH, DAY, Calendar())
    whole.feed(samples, NOW)
    while pieces.behind:
        assert pieces.feed(samples, NOW, 100) > 0
    a, b = (o.forecast(Reading(tide(NOW), NOW), NOW) for o in (whole, pieces))
    assert a is not None
    assert b is not None
    assert at(a, 6) == pytest.approx(at(b, 6), rel=0.05)
    assert peak(a, 0.9, 0, 3600) is not None


def test_margins_of_a_history_read_at_once_are_those_of_one_read_as_it_came() -> None:
    rng = np.random.default_rng(6)
    samples = history(8, lambda t: tide(t) * float(rng.gamma(4.0, 0.25)))
    whole, pieces = Outlook(WIDTH, DAY, Calendar()), Outlook(WIDTH, DAY, Calendar())
    whole.feed(samples, NOW)
    while pieces.behind:
        pieces.feed(samples, NOW, 6)
    a, b = (o.forecast(None, NOW) for o in (whole, pieces))
    assert a is not None
    assert b is not None
    for hours in (1, 3, 8, 12, 18):
        assert 0.8 < at(a, hours, "0.95") / at(b, hours, "0.95") < 1.25


class Fixed:
    """Histories as they are."""

    def __init__(self, **samples: list[Sample]) -> None:
        self.samples = samples

    def of(self, service: str) -> list[Sample]:
        return self.samples.get(service, [])


def test_a_new_service_takes_its_siblings_shape() -> None:
    new = spec("new", like="old")
    specs = {"new": new, "old": spec("old")}
    traces = Fixed(old=history(9, tide), new=history(3 / 24, lambda t: 3 * tide(t)))
    forecasters = Forecasters(traces, SystemClock())
    told = None
    for _ in range(200):
        forecasters.begin(specs)
        told = forecasters.forecast(new, specs, ForecastConfig(), Reading(3 * tide(NOW), NOW), NOW)
        if told is not None and "still being read" not in told.basis:
            break
    assert told is not None
    assert "older history is old's" in told.basis
    assert at(told, 12) == pytest.approx(3 * tide(NOW + 12 * 3600), rel=0.2)
