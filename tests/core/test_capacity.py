import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.views import service

from colocd.core.capacity import (
    ENOUGH_BAD,
    LIMIT,
    PER_DAY,
    Knowledge,
    Minute,
    carries,
    estimate,
    fault,
    kv_limit,
    learn,
)
from colocd.core.kvpeak import future_peak, requests_that_fit, steady
from colocd.core.lead import Start, lead_of
from colocd.core.service import Capacity, Load, Measure, ServiceSpec, Slo

DAY = 86400.0
NOW = 1_760_000_000.0


def spec(**changes: object) -> ServiceSpec:
    facts: dict[str, object] = {"capacity": Capacity(per_replica=10.0), "slo": Slo(ttft=1.0, tpot=0.05)}
    return service(**{**facts, **changes})  # type: ignore[arg-type]


def live(
    knee: float, top: float, days: float, *, start: Knowledge | None = None, measure: Measure | None = None
) -> Knowledge:
    """Minutes at loads up to `top`; above `knee` first tokens come late."""
    known, at = start, NOW if start is None else start.at
    loads = itertools.cycle([top * n / 20 for n in range(1, 21)])
    for _ in range(int(days * 144)):
        at += 600
        minutes = [
            Minute(load=x, concurrency=x, ttft=0.2 if x <= knee else 3.0, itl=0.01) for x in itertools.islice(loads, 10)
        ]
        known = learn(known, spec(), minutes, at)
    assert known is not None
    return known


def test_configured_until_enough_is_known() -> None:
    assert carries(None, spec()).per_replica == 10.0
    known = learn(None, spec(), [Minute(load=30.0, ttft=9.0)] * 59, NOW)
    assert estimate(known, spec())[0] == 10.0
    assert "59 minutes" in carries(known, spec()).why
    blind = learn(None, spec(), [Minute(load=30.0)] * 500, NOW)
    assert blind.bins == {}, "nothing says whether these minutes were good"


def test_it_finds_the_limit_slowly() -> None:
    day = live(6.0, 12.0, 1.0)
    assert 10.0 / PER_DAY * 0.99 <= day.capacity < 8.0
    week = live(6.0, 12.0, 4.0, start=day)
    assert week.capacity == pytest.approx(6.0, rel=0.1)
    told = carries(week, spec())
    assert told.learned
    assert "first tokens came late (promised: 1 s) in" in told.why
    bad, over = (int(word) for word in told.why.partition(" in ")[2].split()[:3:2])
    assert ENOUGH_BAD < 0.9 * over <= bad <= over, "nearly all minutes above the limit were bad"
    assert carries(week, spec(capacity=Capacity(per_replica=10.0, learn=False))).per_replica == 10.0
    assert carries(week, spec(script="#!/bin/other\n")).per_replica == 10.0, "another replica, another capacity"
    assert not carries(week, spec(slo=Slo(ttft=0.1))).learned, (
        "what was good under one promise may not be under another"
    )


def test_what_was_carried_well_raises_it() -> None:
    known = live(100.0, 18.0, 4.0)
    assert known.capacity == pytest.approx(18.0, rel=0.1)
    assert "no limit was seen" in carries(known, spec()).why
    low = live(100.0, 4.0, 2.0)
    assert low.capacity == 10.0, "that less was asked for is no limit"


@given(
    st.lists(
        st.builds(
            Minute, load=st.floats(1e-3, 1e12), ttft=st.none() | st.floats(0, 1e6), queued=st.none() | st.floats(0, 1e6)
        )
    )
)
def test_a_lie_cannot_move_it_far(minutes: list[Minute]) -> None:
    known = learn(None, spec(), [Minute(load=10.0, ttft=0.1)], NOW)
    for n in range(1, 7):
        known = learn(known, spec(), minutes * 20, NOW + n * 600)
    assert 10.0 / 1.02 < known.capacity < 10.2, "an hour"
    jumped = learn(known, spec(), minutes * 20, NOW + 365 * DAY)
    assert 10.0 / 1.04 < jumped.capacity < 10.4, "a long pause is no licence to jump"
    for n in range(1, 200):
        known = learn(known, spec(), minutes, NOW + n * 3600)
    assert 10.0 / LIMIT - 1e-9 <= known.capacity <= 10.0 * LIMIT + 1e-9


def test_prefill_and_decode_answer_for_their_own_promise() -> None:
    late, slow = Minute(load=5.0, ttft=2.0, itl=0.01), Minute(load=5.0, ttft=0.1, itl=0.2)
    for measure, faults in (
        (Measure.PROMPT, (True, False)),
        (Measure.GENERATED, (False, True)),
        (Measure.TOKENS, (True, True)),
        (Measure.CONCURRENCY, (True, True)),
    ):
        group = spec(load=Load(url="http://x/", measure=measure))
        assert tuple(fault(minute, group) is not None for minute in (late, slow)) == faults


@pytest.mark.parametrize(
    ("minute", "reason"),
    [
        (Minute(load=5.0, queued=2.0), "waited for room"),
        (Minute(load=5.0, preempted=0.1), "preempted"),
        (Minute(load=5.0, kv_use=0.97), "KV cache"),
        (Minute(load=5.0, queued=0.1, kv_use=0.5, preempted=0.0, ttft=0.9, itl=0.04), None),
    ],
)
def test_signs_of_a_full_replica(minute: Minute, reason: str | None) -> None:
    found = fault(minute, spec())
    assert found is None if reason is None else reason in (found or "")


def test_the_future_peak_by_hand() -> None:
    # Longest first: 1*8+2 = 10; 2*3 + (2+5) = 13; 3*1 + (2+5+4) = 14.
    assert future_peak([(5.0, 3.0), (2.0, 8.0), (4.0, 1.0)]) == 14.0
    assert future_peak([]) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 200)), max_size=12))
def test_the_future_peak_is_the_highest_moment(running: list[tuple[float, int]]) -> None:
    """Against a simulation token by token: a request holds its memory until it ends."""
    peak = 0.0
    for step in range(201):
        alive = [(held, left) for held, left in running if left >= step]
        peak = max(peak, sum(held + step for held, _ in alive))
    assert future_peak([(held, float(left)) for held, left in running]) == pytest.approx(peak)


def test_longer_outputs_leave_room_for_fewer_requests() -> None:
    prompts = ((100.0, 1.0),)
    counts = [requests_that_fit(((length, 1.0),), prompts, 1e5) for length in (50.0, 500.0, 5000.0)]
    assert counts == sorted(counts, reverse=True)
    assert future_peak(steady(((500.0, 1.0),), prompts, int(counts[1]))) <= 0.95e5
    assert future_peak(steady(((500.0, 1.0),), prompts, int(counts[1]) + 1)) > 0.95e5


def test_the_kv_cache_bounds_what_is_carried() -> None:
    outputs, prompts = ((1000.0, 30.0),), ((500.0, 30.0),)
    minutes = [Minute(load=9.0, concurrency=9.0, ttft=0.1, kv_tokens=5000.0, outputs=outputs, prompts=prompts)] * 3
    known = learn(None, spec(), minutes * 30, NOW)
    room = kv_limit(known)
    assert room is not None
    assert 2 <= room < 6
    wanted, why = estimate(known, spec())
    assert wanted == room
    assert "KV cache" in why


def test_the_lead_time_is_measured() -> None:
    starts = [Start(at=float(n), reclaim=30.0, start=5.0, ready=100.0 + n) for n in range(20)]
    assert lead_of(starts[:4], spec(lead_time=77.0)).seconds == 77.0
    lead = lead_of(starts, spec(lead_time=77.0))
    assert lead.seconds == 135.0 + 18
    assert "20 starts" in lead.why
    slow = [Start(at=0.0, reclaim=1e6, start=0.0, ready=0.0)] * 9
    assert lead_of(slow, spec(lead_time=77.0)).seconds == 677.0
