import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.core.service import Capacity, Load, Measure, Ready, ServiceSpec
from colocd.core.view import Reading, Replica, ReplicaState
from colocd.telemetry.load import Answer, Key, LoadReader, ServiceLoad
from colocd.telemetry.scrape import Failure
from colocd.telemetry.serving import ServingSample
from colocd.telemetry.targets import fill_url, load_targets, ready_urls

READY, STARTING, DRAINING, GONE = ReplicaState.READY, ReplicaState.STARTING, ReplicaState.DRAINING, ReplicaState.GONE
DEAD = Failure("no connection: refused", 0.0)


def spec(measure: Measure = Measure.CONCURRENCY, url: str = "http://{address}:{port}/metrics") -> ServiceSpec:
    return ServiceSpec(
        name="chat",
        user="u",
        partition="p",
        script="#!/bin/sh\n",
        gpus_per_replica=1,
        capacity=Capacity(per_replica=1.0),
        load=Load(url=url, measure=measure),
    )


def replica(slot: int, state: ReplicaState = READY, job: str = "1", node: str = "n1") -> Replica:
    return Replica(service="chat", slot=slot, state=state, job=job, node=node)


def load(running: float | None, waiting: float | None, at: float = 100.0) -> ServingSample:
    reasons = {name: f"{name} broken" for name, value in (("running", running), ("waiting", waiting)) if value is None}
    return ServingSample(running=running, waiting=waiting, reasons=reasons, at=at, tick=at)


def tokens(prompt: float | None, generated: float | None, tick: float, at: float | None = None) -> ServingSample:
    return ServingSample(
        prompt_tokens_total=prompt, generation_tokens_total=generated, at=tick if at is None else at, tick=tick
    )


def plain(found: ServiceLoad) -> tuple[Reading | None, dict[int, float | None], tuple[str, ...]]:
    return found.reading, dict(found.replicas), found.problems


def answers(*parts: Answer) -> dict[tuple[str, int | None], Answer]:
    return {("chat", slot): part for slot, part in enumerate(parts)}


def test_concurrency_is_running_plus_waiting_of_all() -> None:
    found = LoadReader().read(spec(), [replica(0), replica(1)], answers(load(3.0, 1.0, 101.0), load(2.0, 0.0, 100.0)))
    assert plain(found) == (Reading(6.0, 100.0), {0: 4.0, 1: 2.0}, ())


@pytest.mark.parametrize(
    ("part", "reason"), [(DEAD, "refused"), (load(3.0, None), "waiting broken"), (load(None, 3.0), "running broken")]
)
def test_no_partial_sum(part: Answer, reason: str) -> None:
    found = LoadReader().read(spec(), [replica(0), replica(1)], answers(load(3.0, 1.0), part))
    assert found.reading is None
    assert found.replicas == {0: 4.0, 1: None}
    (problem,) = found.problems
    assert problem.startswith("service chat: load of replica 1 is unknown: ")
    assert reason in problem


def test_many_silent_replicas_are_few_sentences() -> None:
    """A network that fails must not bury everything else that `coloc status` tells."""
    mine = [replica(slot) for slot in range(60)]
    dead: dict[Key, Answer] = {("chat", slot): Failure("no connection: refused", 0.0) for slot in (*range(40), 59)}
    slow: dict[Key, Answer] = {("chat", slot): Failure("no whole answer within 2 s", 0.0) for slot in range(40, 50)}
    odd: dict[Key, Answer] = {("chat", slot): Failure(f"answers {slot}", 0.0) for slot in range(50, 59)}
    assert LoadReader().read(spec(), mine, {**dead, **slow, **odd}).problems == (
        "service chat: load of replicas 0-39,59 is unknown: no connection: refused",
        "service chat: load of replicas 40-49 is unknown: no whole answer within 2 s",
        "service chat: load of replica 50 is unknown: answers 50",
        "service chat: load of 8 more replicas is unknown, for other reasons",
    )


def test_an_answer_that_is_missing_is_unknown() -> None:
    assert LoadReader().read(spec(), [replica(0)], {}).reading is None


@pytest.mark.parametrize("state", [STARTING, DRAINING])
def test_starting_and_drained_replicas_may_be_silent(state: ReplicaState) -> None:
    both = [replica(0), replica(1, state)]
    assert LoadReader().read(spec(), both, answers(load(3.0, 1.0), DEAD)).reading == Reading(4.0, 100.0)
    assert LoadReader().read(spec(), both, answers(load(3.0, 1.0), load(1.0, 0.0))).reading == Reading(5.0, 100.0)


def test_without_a_ready_replica_the_load_is_unknown_not_zero() -> None:
    for replicas in ([], [replica(0, STARTING)], [replica(0, GONE)]):
        found = LoadReader().read(spec(), replicas, answers(load(3.0, 1.0)))
        assert found.reading is None
        assert "no replica is ready" in found.problems[0]


def test_idle_is_no_request_whatever_the_measure() -> None:
    replicas = [replica(0), replica(1, DRAINING), replica(2), replica(3)]
    parts = answers(load(0.0, 0.0), load(0.0, 0.0), load(0.0, 1.0), load(0.0, None))
    for measure in Measure:
        assert LoadReader().read(spec(measure), replicas, parts).idle == {0, 1}


def test_other_services_are_not_counted() -> None:
    other = Replica(service="code", slot=0, state=READY, job="9", node="n1")
    found = LoadReader().read(spec(), [replica(0), other], {**answers(load(3.0, 1.0)), ("code", 0): load(9.0, 9.0)})
    assert found.reading == Reading(4.0, 100.0)


def test_one_url_for_the_whole_service() -> None:
    whole = spec(url="http://gateway/metrics")
    assert plain(LoadReader().read(whole, [], {("chat", None): load(7.0, 1.0)})) == (Reading(8.0, 100.0), {}, ())
    assert LoadReader().read(whole, [replica(0)], {("chat", None): DEAD}).reading is None


@pytest.mark.parametrize(
    ("replicas", "sharing"),
    [
        ([], 0),
        ([replica(0)], 1),
        ([replica(0), replica(1)], 2),
        ([replica(0), replica(1, ReplicaState.PLACING)], 1),
        ([replica(0), replica(1, ReplicaState.STARTING)], 0),
        ([replica(0), replica(1, ReplicaState.DRAINING)], 0),
    ],
)
def test_who_shares_a_load_that_is_read_as_a_whole(replicas: list[Replica], sharing: int) -> None:
    found = LoadReader().read(spec(url="http://gateway/metrics"), replicas, {("chat", None): load(7.0, 1.0)})
    assert found.sharing == sharing


def test_token_rates() -> None:
    reader = LoadReader()
    one = [replica(0)]
    first = reader.read(spec(Measure.TOKENS), one, answers(tokens(100, 50, 10)))
    assert first.reading is None
    assert "first sample" in first.problems[0]
    second = reader.read(spec(Measure.TOKENS), one, answers(tokens(300, 150, 20)))
    assert plain(second) == (Reading(30.0, 20.0), {0: 30.0}, ())
    assert reader.read(spec(Measure.GENERATED), one, answers(tokens(300, 250, 30))).reading == Reading(10.0, 30.0)
    assert reader.read(spec(Measure.TOKENS), one, answers(tokens(300, 250, 40))).reading == Reading(0.0, 40.0)


def test_a_restarted_server_gives_no_rate_once() -> None:
    reader = LoadReader()
    read = [
        reader.read(spec(Measure.TOKENS), [replica(0)], answers(sample)).reading
        for sample in (tokens(100, 50, 0), tokens(200, 50, 10), tokens(5, 900, 20), tokens(25, 900, 30))
    ]
    assert read == [None, Reading(10.0, 10.0), None, Reading(2.0, 30.0)]


def test_a_new_job_in_the_same_slot_starts_anew() -> None:
    reader = LoadReader()
    reader.read(spec(Measure.TOKENS), [replica(0, job="1")], answers(tokens(100, 50, 0)))
    assert reader.read(spec(Measure.TOKENS), [replica(0, job="2")], answers(tokens(900, 50, 10))).reading is None


def test_a_starting_replica_primes_its_counter() -> None:
    reader = LoadReader()
    reader.read(spec(Measure.TOKENS), [replica(0, STARTING)], answers(tokens(0, 0, 0)))
    assert reader.read(spec(Measure.TOKENS), [replica(0)], answers(tokens(50, 50, 10))).reading == Reading(10.0, 10.0)


def test_wall_clock_jumps_do_no_harm() -> None:
    reader = LoadReader()
    reader.read(spec(Measure.TOKENS), [replica(0)], answers(tokens(0, 0, 10, at=5000.0)))
    found = reader.read(spec(Measure.TOKENS), [replica(0)], answers(tokens(50, 50, 20, at=1000.0)))
    assert found.reading == Reading(10.0, 1000.0)


def test_gaps_too_short_or_too_long() -> None:
    reader = LoadReader(min_gap=1.0, max_gap=60.0)

    def read(sample: Answer) -> float | None:
        found = reader.read(spec(Measure.TOKENS), [replica(0)], answers(sample)).reading
        return None if found is None else found.value

    assert read(tokens(0, 0, 0)) is None
    assert read(tokens(10, 0, 0.5)) is None
    assert read(tokens(20, 0, 2)) == 10.0
    assert read(tokens(9000, 0, 2.1)) == 10.0
    assert read(DEAD) is None
    assert read(tokens(80, 0, 62)) == 1.0
    assert read(tokens(90, 0, 123)) is None
    assert read(tokens(100, 0, 50)) is None
    assert read(tokens(110, 0, 60)) == 1.0


def test_a_missing_counter_is_unknown() -> None:
    reader = LoadReader()
    reader.read(spec(Measure.TOKENS), [replica(0)], answers(tokens(0, None, 0)))
    found = reader.read(spec(Measure.TOKENS), [replica(0)], answers(tokens(10, 10, 10)))
    assert found.reading is None
    assert "a counter was missing" in found.problems[0]


def test_what_is_gone_is_forgotten() -> None:
    reader = LoadReader()
    reader.read(spec(Measure.TOKENS), [replica(0)], answers(tokens(0, 0, 0)))
    reader.read(spec(Measure.TOKENS), [], {})
    assert reader.read(spec(Measure.TOKENS), [replica(0)], answers(tokens(10, 10, 10))).reading is None
    reader.forget("chat")
    assert reader.read(spec(Measure.TOKENS), [replica(0)], answers(tokens(20, 20, 20))).reading is None


counts = st.none() | st.floats(0, 1e15)
steps = st.tuples(counts, counts, st.floats(-5, 400), st.sampled_from(["1", "2"]))


@given(st.lists(steps, max_size=8), st.sampled_from(Measure))
def test_load_is_never_negative(history: list[tuple[float | None, float | None, float, str]], measure: Measure) -> None:
    reader, tick = LoadReader(), 0.0
    for prompt, generated, step, job in history:
        tick += step
        sample = tokens(prompt, generated, tick)
        found = reader.read(spec(measure), [replica(0, job=job)], answers(sample))
        assert found.reading is None or found.reading.value >= 0
        assert (found.reading is None) == bool(found.problems)


def test_urls_of_replicas() -> None:
    mine = spec()
    replicas = [replica(0), replica(3, STARTING, node="n2"), replica(4, GONE), replica(5, node="n9")]
    addresses = {"n1": "10.0.0.1", "n2": "2001:db8::2"}
    targets = load_targets(mine, replicas, addresses)
    assert {target.key: target.url for target in targets} == {
        ("chat", 0): "http://10.0.0.1:8000/metrics",
        ("chat", 3): "http://[2001:db8::2]:8003/metrics",
    }
    assert load_targets(spec(url="http://g/m"), [], {})[0].key == ("chat", None)
    assert ready_urls(mine, replicas, addresses) == {}
    checked = msgspec.structs.replace(mine, ready=Ready(url="http://{address}:{port}/health"))
    assert ready_urls(checked, replicas, addresses) == {("chat", 3): "http://[2001:db8::2]:8003/health"}, (
        "once is enough"
    )
    assert fill_url("http://{node}/{slot}", mine, replica(3), "x") == "http://n1/3"
