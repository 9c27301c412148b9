"""What an endpoint's readings say together: rates, latencies, and contradictions that make them not to be believed."""

import pytest

from colocd.core.service import Capacity, Load, ServiceSpec
from colocd.core.view import Replica, ReplicaState
from colocd.telemetry.load import LoadReader
from colocd.telemetry.meter import DISTRUST, FROZEN, Meter, Metered
from colocd.telemetry.serving import ServingSample
from colocd.telemetry.spread import Spread

INF = float("inf")


def sample(tick: float, running: float = 5.0, tokens: float = 0.0, **more: object) -> ServingSample:
    facts = {"running": running, "waiting": 0.0, "generation_tokens_total": tokens, "at": tick, "tick": tick}
    return ServingSample(**{**facts, **more})  # type: ignore[arg-type]


def run(*samples: ServingSample, job: str = "1") -> Metered:
    meter = Meter(1.0, 180.0)
    for one in samples:
        last = meter.take(job, one, one.tick or 0.0)
    return last


def test_rates_latencies_and_lengths() -> None:
    bounds = (0.1, 1.0, INF)
    first = sample(
        0, tokens=100, prompt_tokens_total=10.0, ttft=Spread(bounds, (5.0, 5.0, 5.0)), prefix_queries_total=0.0,
        prefix_hits_total=0.0, preemptions_total=1.0, output_lengths=Spread(bounds, (1.0, 1.0, 1.0)),
    )  # fmt: skip
    second = sample(
        10, tokens=300, prompt_tokens_total=60.0, ttft=Spread(bounds, (5.0, 15.0, 15.0)), prefix_queries_total=40.0,
        prefix_hits_total=10.0, preemptions_total=2.0, output_lengths=Spread(bounds, (1.0, 2.0, 4.0)), waiting_capacity=2.0,
    )  # fmt: skip
    found = run(first, second)
    assert (found.generation, found.prompt, found.preempted, found.hits) == (20.0, 5.0, 0.1, 0.25)
    assert found.ttft == pytest.approx(0.91)
    assert found.new_outputs == Spread(bounds, (0.0, 1.0, 3.0))
    assert found.queued == 2.0
    assert found.doubt is None
    assert run(first).ttft is None
    assert run(first, sample(10)).generation is None, "it was started again"


def engines(tick: float, *tokens: tuple[str, float]) -> ServingSample:
    parts = {"generation_tokens_total": {frozenset({("engine", name)}): value for name, value in tokens}}
    return sample(tick, tokens=sum(value for _, value in tokens), engines=parts)


def test_engines_that_come_and_go_make_no_rate() -> None:
    """A gateway loses sight of an engine and finds it again: a life's tokens in ten seconds would be a peak of their own."""
    meter = Meter(1.0, 180.0)
    steps = (
        (engines(0, ("0", 1e9), ("1", 2e9)), None),
        (engines(10, ("0", 1e9 + 50), ("1", 2e9 + 50)), 10.0),
        (engines(20, ("0", 1e9 + 100)), None),
        (engines(30, ("0", 1e9 + 150)), 5.0),
        (engines(40, ("0", 1e9 + 200), ("1", 2e9 + 100)), None),
        (engines(50, ("0", 1e9 + 250), ("1", 2e9 + 150)), 10.0),
        (engines(60, ("0", 3e9), ("1", 20.0)), None),
        (engines(70, ("0", 3e9 + 50), ("1", 70.0)), 10.0),
    )
    found = [meter.take("1", one, one.tick or 0.0) for one, _ in steps]
    assert [made.generation for made in found] == [rate for _, rate in steps]
    assert "of other engines" in found[4].why
    assert "restarted" in found[6].why, "one engine's counter fell, though the others' growth hides it in the sum"
    assert all(made.doubt is None for made in found), "requests run"


def test_a_server_that_started_again_is_not_idle() -> None:
    """The peak is not over because the counters are at zero: until it serves again, or for a quarter of an hour."""
    meter = Meter(1.0, 180.0)
    for tick, running, tokens in ((0, 50, 1000), (10, 50, 2000), (20, 0, 0), (30, 0, 0)):
        found = meter.take("1", sample(tick, running, tokens), tick)
    assert "started again" in (found.doubt or "")
    for n in range(1, int(DISTRUST / 60) + 1):
        found = meter.take("1", sample(30.0 + n * 60, 0, 0), 30.0 + n * 60)
    assert found.doubt is None, "not for ever"
    meter = Meter(1.0, 180.0)
    for tick, running, tokens in ((0, 50, 1000), (10, 0, 0), (20, 2, 10), (30, 0, 20)):
        found = meter.take("1", sample(tick, running, tokens), float(tick))
    assert found.doubt is None, "it has served since"
    assert meter.take("2", sample(40, 0, 0), 40.0).doubt is None, "another job's counters begin at zero"


def test_a_reading_without_counters_does_not_hide_a_restart() -> None:
    """Its values were too old; then it is honest for a moment, sooner than a rate could be taken; then all is 0."""
    mute = sample(10.0, running=8.0, generation_tokens_total=None)
    for honest in (sample(20.0, running=8.0, tokens=9.0), sample(10.5, running=8.0, tokens=9.0)):
        meter = Meter(1.0, 180.0)
        for one in (sample(0.0, running=8.0, tokens=5000.0), mute, honest):
            assert meter.take("1", one, one.tick or 0.0).doubt is None
        idle = meter.take("1", sample(21.0, running=0.0, tokens=0.0), 21.0)
        assert idle.doubt is not None
        assert "started again" in idle.doubt
    meter = Meter(1.0, 180.0)
    for one in (sample(0.0, running=8.0, tokens=5000.0), mute):
        meter.take("1", one, one.tick or 0.0)
    assert meter.take("1", sample(11.0, running=0.0, tokens=0.0), 11.0).doubt is not None
    assert meter.take("2", sample(12.0, running=0.0, tokens=0.0), 12.0).doubt is None, (
        "another job's server is another server"
    )


def test_requests_cannot_vanish() -> None:
    gone = run(sample(0, 20, 1000), sample(10, 20, 1500), sample(20, 0, 1500))
    assert "20 running requests vanished" in (gone.doubt or "")
    for ended in (sample(20, 0, 1600), sample(20, 0, 1500, waiting=3.0)):
        assert run(sample(0, 20, 1000), sample(10, 20, 1500), ended).doubt is None
    assert run(sample(0, 2, 1000), sample(10, 0, 1000)).doubt is None, "two may end without a trace"
    assert run(sample(0, 20, 1000), sample(2, 0, 1000)).doubt is None, "in two seconds nothing need have moved"
    blind = [sample(t, r, 0, generation_tokens_total=None) for t, r in ((0, 20), (10, 0))]
    assert run(*blind).doubt is None, "a server without counters cannot contradict itself"


def test_numbers_that_stand_still_while_requests_run() -> None:
    meter = Meter(1.0, 180.0)
    for n in range(int(FROZEN / 10) + 2):
        found = meter.take("1", sample(n * 10.0, 20, 1000), n * 10.0)
        assert (found.doubt is None) == (n * 10 <= FROZEN)
    assert "stood still" in (found.doubt or "")
    assert meter.take("1", sample(400, 20, 1001), 400.0).doubt is None


def test_a_doubted_replica_makes_the_load_unknown_and_is_not_idle() -> None:
    spec = ServiceSpec(
        name="chat", user="u", partition="p", script="#!/bin/sh\n", gpus_per_replica=1,
        capacity=Capacity(per_replica=1.0), load=Load(url="http://{address}:{port}/metrics"),
    )  # fmt: skip
    replicas = [Replica(service="chat", slot=n, state=ReplicaState.READY, job=str(n), node="n1") for n in range(2)]
    reader = LoadReader()
    for tick, running, tokens in ((0.0, 20.0, 100.0), (10.0, 0.0, 100.0)):
        answers = {("chat", 0): sample(tick, running, tokens), ("chat", 1): sample(tick, 3.0, tick)}
        found = reader.read(spec, replicas, answers)  # type: ignore[arg-type]
    assert found.reading is None
    assert found.replicas == {0: None, 1: 3.0}
    assert "vanished" in found.problems[0]
    assert found.idle == frozenset()
    assert found.parts == {}
    answers = {("chat", n): sample(20.0, 1.0, 200.0) for n in range(2)}
    found = reader.read(spec, replicas, answers)  # type: ignore[arg-type]
    assert found.parts["concurrency"] == 2.0
    assert found.parts["generation"] == 29.0
