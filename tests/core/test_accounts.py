"""GPU-hours per user and month."""

from calendar import timegm
from time import gmtime, strftime

from hypothesis import given
from hypothesis import strategies as st

from colocd.core.accounts import HOUR, Stay, accounts, as_rows

NOV = float(timegm((2026, 11, 1, 0, 0, 0)))
DEC = float(timegm((2026, 12, 1, 0, 0, 0)))


def test_lost_is_what_was_not_saved_when_a_run_did_not_finish() -> None:
    runs = [
        Stay(user="ann", ref="1", gpus=4, started=NOV, saved=NOV + HOUR, ended=NOV + 2 * HOUR, end="evicted"),
        Stay(user="ann", ref="1", gpus=4, started=NOV + 3 * HOUR, ended=NOV + 4 * HOUR, end="done"),
        Stay(user="ann", ref="2", gpus=1, started=NOV, ended=NOV + HOUR, end="failed"),
        Stay(user="bob", ref="3", gpus=2, started=NOV + 4 * HOUR),
    ]
    ann, bob = accounts(runs, NOV + 5 * HOUR)
    assert (ann.jobs, ann.runs, ann.evictions) == (2, 3, 1)
    assert (ann.used, ann.saved, ann.lost, ann.lost_by_eviction) == (13, 8, 5, 4)
    assert (bob.used, bob.saved, bob.lost) == (2, 2, 0)
    assert accounts(runs, NOV + 5 * HOUR, month="2026-12") == []
    assert [a.user for a in accounts(runs, NOV + 5 * HOUR, "2026-11", "bob")] == ["bob"]


def test_hours_count_in_their_month_and_the_loss_in_that_of_the_end() -> None:
    run = Stay(user="ann", ref="1", gpus=1, started=DEC - HOUR, ended=DEC + 2 * HOUR, end="evicted")
    nov, dec = as_rows(accounts([run], DEC + 3 * HOUR))
    assert (nov["month"], nov["used"], nov["lost"], nov["runs"]) == ("2026-11", 1, 0, 0)
    assert (dec["month"], dec["used"], dec["lost"], dec["runs"]) == ("2026-12", 2, 2, 1)


@given(
    st.lists(
        st.tuples(st.floats(NOV, NOV + 1e7), st.floats(0, 1e7), st.integers(0, 64), st.none() | st.floats(-1e9, 1e11)),
        max_size=20,
    )
)
def test_nothing_is_counted_twice_and_nobody_saves_more_than_they_used(
    some: list[tuple[float, float, int, float | None]],
) -> None:
    runs = [
        Stay(user="ann", ref=str(n), gpus=gpus, started=at, saved=saved, ended=at + seconds, end="evicted")
        for n, (at, seconds, gpus, saved) in enumerate(some)
    ]
    found = accounts(runs, NOV)
    assert abs(sum(a.used for a in found) - sum(s * g / HOUR for _, s, g, _ in some)) < 1e-3
    assert all(0 <= a.saved <= a.used and 0 <= a.lost <= a.used for a in found)
    assert sum(a.runs for a in found) == len(runs)


@given(st.integers(0, 4 * 10**9))
def test_months_are_the_calendars(second: int) -> None:
    (found,) = accounts([Stay(user="a", ref="1", gpus=1, started=second, ended=second)], 0.0)
    assert found.month == strftime("%Y-%m", gmtime(second))
