from hypothesis import given
from hypothesis import strategies as st

from colocd.core.forecast import foresee, peak
from colocd.core.view import Reading

DAY = 86400.0
NOW = 1_760_000_000.0


def history(
    days: float, value: float = 10.0, hole: tuple[float, float] = (0.0, 0.0)
) -> list[tuple[float, float | None]]:
    """Ten-minute samples: `value` by day, ten times that between 6 and 8 hours after this time of day."""
    samples: list[tuple[float, float | None]] = []
    t = NOW - days * DAY
    while t < NOW:
        hours = (t - NOW) % DAY / 3600
        known = not hole[0] <= NOW - t < hole[1]
        samples.append((t, (value * 10 if 6 <= hours < 8 else value) if known else None))
        t += 600
    return samples


def test_nothing_known_is_none() -> None:
    assert foresee([], None, NOW, DAY) is None
    assert foresee([(NOW - 60, None)], None, NOW, DAY) is None


def test_the_daily_peak_is_foreseen() -> None:
    seen = foresee(history(3), Reading(10.0, NOW), NOW, DAY)
    assert seen is not None
    before, during = peak(seen, 0.9, 0, 4 * 3600), peak(seen, 0.9, 6 * 3600, 8 * 3600)
    assert before is not None
    assert during is not None
    assert before < 20 < 95 < during
    assert seen.trust == 1.0


def test_todays_level_shifts_the_near_future_only() -> None:
    usual, high = (foresee(history(3), Reading(v, NOW), NOW, DAY) for v in (10.0, 30.0))
    assert usual is not None
    assert high is not None
    assert (peak(high, 0.5, 0, 60) or 0) > (peak(usual, 0.5, 0, 60) or 0) + 15
    assert abs((peak(high, 0.5, 12 * 3600, 13 * 3600) or 0) - (peak(usual, 0.5, 12 * 3600, 13 * 3600) or 0)) < 1


def test_a_hole_in_the_past_is_no_zero() -> None:
    seen = foresee(history(1, hole=(0.6 * DAY, 0.9 * DAY)), None, NOW, DAY)
    assert seen is not None
    assert peak(seen, 0.9, 0.2 * DAY, 0.3 * DAY) is None
    assert (seen.trust or 0) < 0.8
    assert all(v > 0 for p in seen.points for v in p.values.values())


def test_without_a_reading_far_points_say_nothing_of_now() -> None:
    """An hour of history tells about the time a day later, not about the next minutes."""
    seen = foresee(history(1 / 24), None, NOW, DAY)
    assert seen is not None
    assert peak(seen, 0.9, 0, 3600) is None


@given(
    st.lists(st.tuples(st.floats(0, 3 * DAY), st.none() | st.floats(0, 1e6)), max_size=60),
    st.none() | st.floats(0, 1e6),
)
def test_quantiles_are_ordered_and_finite(raw: list[tuple[float, float | None]], now: float | None) -> None:
    samples = sorted(((NOW - t, v) for t, v in raw), key=lambda s: s[0])
    seen = foresee(samples, Reading(now, NOW) if now is not None else None, NOW, DAY)
    for point in seen.points if seen is not None else ():
        values = [point.values[q] for q in ("0.5", "0.9", "0.95")]
        assert values == sorted(values)
        assert 0 <= values[0] < 1e8
