import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.views import AT, replica, service

from colocd.core.capacity import Carries
from colocd.core.need import at_once, braced, need, reserve
from colocd.core.policy import Policy
from colocd.core.surge import ENOUGH, LIMIT, Rises, Surge, SurgeWatch
from colocd.core.view import Reading, ServiceView, View

DAY = 86400.0


def watched(loads: list[float], *, step: float = 60.0, lead: float = 300.0, season: float = DAY) -> SurgeWatch:
    watch = SurgeWatch(season)
    for i, load in enumerate(loads):
        watch.see(i * step, load, lead, 1.0)
    return watch


def margin(watch: SurgeWatch, at: float, load: float, quantile: float = 0.9) -> Surge | None:
    return watch.surge(at, load, 300.0, 1.0, quantile)


def test_nothing_is_added_until_two_hours_are_known() -> None:
    few = watched([10.0] * int(ENOUGH))
    assert margin(few, ENOUGH * 60, 10.0) is None
    enough = watched([10.0] * int(ENOUGH + 30))
    told = margin(enough, (ENOUGH + 30) * 60, 10.0)
    assert told is not None
    assert told.share == 0.0, "a load that stands still needs no margin"
    assert margin(enough, (ENOUGH + 30) * 60, 10.0, quantile=0.0) is None, "switched off"


def test_a_jumpy_load_gets_the_margin_that_its_jumps_ask_for() -> None:
    """Noise between 10 and 13: nine of ten values one lead time later are at most 13."""
    dice = random.Random(1)
    watch = watched([10.0 + 3.0 * dice.random() for _ in range(1500)])
    low, high = margin(watch, 1500 * 60, 10.0), margin(watch, 1500 * 60, 10.0, quantile=0.99)
    assert low is not None
    assert high is not None
    assert 0.1 < low.share < high.share <= 0.3
    assert "in 90% of cases" in low.why


def test_a_rising_load_has_a_margin_of_its_own() -> None:
    """An hour of calm, then a climb of half an hour by a tenth every five minutes, over and over."""
    hour = [10.0] * 60 + [10.0 * 1.1 ** (i / 5) for i in range(30)]
    loads = list(itertools.islice(itertools.cycle(hour), 1500))
    calm = watched(loads[:1490])  # ends in the calm
    assert loads[1480:1490] == [10.0] * 10
    steady = margin(calm, 1490 * 60, 10.0)
    rising = margin(calm, 1490 * 60, 12.0)
    assert steady is not None
    assert rising is not None
    assert "while it was not rising" in steady.why
    assert "while it was rising" in rising.why
    assert rising.share == pytest.approx(0.1, abs=0.02)
    assert steady.share < 0.05


def test_holes_and_a_clock_set_back_teach_nothing() -> None:
    watch = watched([10.0] * 300)
    before = watch.known
    watch.see(300 * 60 + 3600.0, 40.0, 300.0, 1.0)  # the first reading after an hour's hole
    assert watch.known == before
    watch.see(100.0, 90.0, 300.0, 1.0)  # the clock was set back
    assert watch.known == before


def test_it_fades_over_a_day_and_a_lie_is_bounded() -> None:
    wild = [10.0 if i % 20 < 10 else 60.0 for i in range(600)]
    watch = watched(wild + [10.0] * 4000)
    told = margin(watch, 4600 * 60, 10.0)
    assert told is not None
    assert told.share == 0.0
    lies = watched([0.0 if i % 20 < 10 else 1e9 for i in range(600)])
    most = margin(lies, 600 * 60, 5.0, quantile=0.99)
    assert most is not None
    assert most.share <= LIMIT


@given(st.lists(st.floats(0, 1e9), min_size=130, max_size=300), st.floats(0.01, 0.99))
def test_any_series_gives_a_finite_margin_that_grows_with_the_quantile(loads: list[float], q: float) -> None:
    watch = watched(loads)
    low, high = (margin(watch, len(loads) * 60, loads[-1], x) for x in (q / 2, q))
    if low is not None and high is not None:
        assert 0.0 <= low.share <= high.share <= LIMIT
        assert math.isfinite(high.share)


def test_the_same_readings_give_the_same_margin_and_what_is_known_is_small() -> None:
    dice = random.Random(2)
    loads = [dice.expovariate(0.1) for _ in range(3000)]
    one, two = watched(loads), watched(loads)
    assert one.known == two.known
    assert margin(one, 3000 * 60, 3.0) == margin(two, 3000 * 60, 3.0)
    assert isinstance(one.known, Rises)
    assert len(one.known.rising) + len(one.known.steady) < 810, "steps of 1 % from -100 to 300 %, twice"


def chat(load: float, surge: Surge | None, replicas: int = 1) -> ServiceView:
    return ServiceView(
        spec=service(max_replicas=9),
        capacity=Carries(per_replica=10.0, learned=False, why="configured"),
        load=Reading(load, AT),
        replicas=tuple(replica(i) for i in range(replicas)),
        surge=surge,
    )


def test_need_counts_with_the_growth_and_says_so() -> None:
    grows = Surge(share=0.5, why="in 90% of cases it grew by no more within 300 s while it was rising")
    carries = 10.0 * service().capacity.target_use
    load = 0.8 * carries
    assert need(chat(load, None), Policy(), AT).now == 1
    wanted = need(chat(load, grows), Policy(), AT)
    assert wanted.now == 2
    assert "if it grows (in 90% of cases" in wanted.why
    assert reserve(chat(load, grows), Policy(), AT, 600.0) == 1
    view = View(at=AT, policy=Policy())
    assert at_once(chat(load, grows), view) == 1, "no emergency: the load is not there yet"


def test_a_small_load_gets_a_share_of_half_a_replica() -> None:
    grows = Surge(share=1.0, why="so")
    half = 10.0 * service().capacity.target_use / 2
    assert braced(0.0, chat(0.0, grows)) == pytest.approx(half)
    assert braced(4 * half, chat(0.0, grows)) == pytest.approx(8 * half)
