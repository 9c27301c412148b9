"""The closed loop of bench/bench_replay.py, small: a clean daily tide on a virtual cluster that coloc's plan serves and fills."""

import math

import numpy as np
import pytest
from bench.replay_arms import LOOK, Floats, Tide, coloc, oracle, reactive, service
from bench.replay_loop import Result, replay

DAYS, MINUTES, WARM = 10, 300, 30
BEGIN = 1_760_832_000.0
NODES = 4


def demand(hour: float, minutes: Floats) -> Floats:
    """Low at night; within half an hour of `hour` everybody comes, and after a good hour all go."""
    day = minutes % 1440 / 60
    return 10 + 90 / (1 + np.exp(-(day - hour) * 10)) * (1 / (1 + np.exp((day - hour - 1.2) * 10)))


def tide(name: str, hour: float) -> Tide:
    """Ten days of history; the replay begins at six in the morning of the day after, `WARM` minutes before what is scored."""
    first = BEGIN - DAYS * 86400
    past = demand(hour, np.arange((DAYS + 1) * 1440.0)).reshape(-1, 10).mean(axis=1)
    history: list[tuple[float, float | None]] = [(first + i * 600, float(v)) for i, v in enumerate(past)]
    now: Floats = 360.0 - WARM + np.arange(WARM + MINUTES + LOOK, dtype=np.float64)
    return Tide(service(name, 2, 10.0, 14), demand(hour, now), history)


@pytest.fixture(scope="module")
def found() -> dict[str, Result]:
    tides = [tide("chat", 7.5), tide("code", 9.4)]
    arms = {"coloc": coloc(0.9, tides), "reactive": reactive(0.2, tides), "oracle": oracle(tides)}
    results = replay(tides, list(arms.values()), NODES, BEGIN + (360 - WARM) * 60, WARM, MINUTES)
    return dict(zip(arms, results, strict=True))


def short(result: Result) -> int:
    return sum(result.short.values())


def test_who_knows_the_future_is_never_short(found: dict[str, Result]) -> None:
    assert short(found["oracle"]) == 0
    assert found["oracle"].refused == 0


def test_on_a_daily_tide_coloc_is_short_less_often_than_the_last_value(found: dict[str, Result]) -> None:
    assert short(found["reactive"]) > 0, "the tide must be steep enough to tell them apart"
    assert short(found["coloc"]) <= short(found["reactive"]) / 2
    assert sum(found["coloc"].unserved.values()) < sum(found["reactive"].unserved.values())


def test_what_the_services_leave_goes_to_batch(found: dict[str, Result]) -> None:
    whole = NODES * 8 * MINUTES / 60
    for result in found.values():
        assert 0.5 * whole < result.batch_hours + result.replica_hours <= whole + 1e-6
        assert 0 <= result.lost_hours < result.batch_hours
        assert not math.isnan(result.lost_hours)
    assert found["coloc"].batch_hours > 0.8 * found["oracle"].batch_hours
