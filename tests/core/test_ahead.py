"""Planned reclaims: the moment of least loss, short grace when nobody saw it coming, expected starts."""

import msgspec
from tests.helpers.views import AT, batch, replica, service, view

from colocd.core.actions import Drain, Place, Release
from colocd.core.outlook import windows
from colocd.core.plan import plan
from colocd.core.policy import Policy
from colocd.core.view import Checkpoint, Forecast, JobFacts, Quantiles, Reading, ReplicaState, ServiceView, View

POLICY = Policy(plan_ahead=1800.0, protected_runtime=0.0)


def rising(at: float, load: float = 15.0) -> Forecast:
    """Load 5 until `at` seconds ahead, then `load`; a point a minute."""
    points = tuple(
        Quantiles(60.0 * i, dict.fromkeys(("0.5", "0.9", "0.95"), 5.0 if 60.0 * i < at else load)) for i in range(240)
    )
    return Forecast(points=points, step=60.0, trust=1.0, basis="test")


def seen(at: float, *, load: float = 5.0) -> ServiceView:
    spec = service(gpus_per_replica=4, lead_time=120.0)
    running = (replica(0, ReplicaState.READY, job="90", node="n1", places={"n1": 0x0F}),)
    return ServiceView(spec=spec, replicas=running, load=Reading(load, AT), forecast=rising(at))


def world(job_mark: Checkpoint, at: float = 1200.0, load: float = 5.0, **job: object) -> View:
    mine = batch(1, {"n1": 0xF0}, checkpoint=job_mark, started=AT - 5000, **job)  # type: ignore[arg-type]
    return view(mine, batch(90, {"n1": 0x0F}, checkpoint=None), services=(seen(at, load=load),), policy=POLICY)


def note(v: View) -> str:
    return " ".join(n.text for n in plan(v).notes if n.subject == "job:1")


def places(v: View) -> list[Place]:
    return [a for a in plan(v).actions if isinstance(a, Place)]


def test_a_job_that_cannot_be_asked_goes_right_after_its_own_checkpoint() -> None:
    """It saves every 600 s, the reclaim must begin within 1020 s: of the saves at 300 and 900 s the last one is best."""
    v = world(Checkpoint(interval=600.0, saved=AT - 300))
    assert places(v) == []
    assert "in about 900 s" in note(v)
    assert "next checkpoint of job 1" in note(v)
    just = world(Checkpoint(interval=600.0, saved=AT - 3), at=600.0)
    (place,) = places(just)
    assert place.victims == ("1",)
    assert not place.emergency
    assert "foreseen" in place.why


def test_a_job_that_saves_when_asked_is_asked_as_late_as_possible() -> None:
    v = world(Checkpoint(signal="USR1", cost=10.0, saved=AT - 3000))
    assert places(v) == []
    assert "until the service needs it" in note(v)
    assert "then 80 GPU-seconds are lost" in note(v)  # a save and a restart like it, of four GPUs


def test_a_job_that_ends_in_time_is_waited_for() -> None:
    v = world(Checkpoint(saved=None), time_limit=5600.0)
    assert places(v) == []
    assert "for the end of job 1: then 0 GPU-seconds" in note(v)


def test_nothing_is_begun_early_without_a_forecast_or_when_switched_off() -> None:
    v = world(Checkpoint(interval=600.0, saved=AT - 3), at=600.0)
    off = msgspec.structs.replace(v, policy=msgspec.structs.replace(POLICY, plan_ahead=0.0))
    blind = msgspec.structs.replace(v, services=(msgspec.structs.replace(v.services[0], load=None),))
    assert places(off) == places(blind) == []


def test_what_waits_for_its_moment_leaves_the_free_gpus_to_batch_jobs() -> None:
    v = world(Checkpoint(interval=600.0, saved=AT - 300))
    jobs = (*v.jobs, batch(7, {"n2": 0x01}), batch(8, gpus_requested=1))
    nodes = (*v.nodes, msgspec.structs.replace(v.nodes[0], name="n2", used=0x01, partitions=("batch",)))
    more = msgspec.structs.replace(v, jobs=jobs, nodes=nodes)
    assert [a.job for a in plan(more).actions if isinstance(a, Release)] == ["8"]


def test_a_replica_begun_early_is_not_drained_before_it_is_needed() -> None:
    v = world(Checkpoint(interval=600.0, saved=AT - 3), at=900.0)
    two = (*v.services[0].replicas, replica(1, ReplicaState.READY, node="n1", places={"n1": 0xF0}))
    early = msgspec.structs.replace(v.services[0], replicas=two, low_since=AT - 9999)
    assert not [a for a in plan(msgspec.structs.replace(v, services=(early,))).actions if isinstance(a, Drain)]


def test_load_that_is_there_already_is_an_emergency() -> None:
    (place,) = places(world(Checkpoint(signal="USR1"), at=9e9, load=15.0))
    assert place.emergency
    (foreseen,) = places(world(Checkpoint(signal="USR1"), at=100.0))
    assert not foreseen.emergency


def test_expected_starts_follow_the_queue_and_the_tide() -> None:
    running = batch(1, {"n1": 0xFF}, time_limit=3600.0, started=AT - 600)
    jobs = [batch(n, gpus_requested=8, time_limit=1200.0, submitted=AT - 100 + n) for n in (2, 3)]
    parked = batch(4, gpus_requested=1)
    v = view(running, *jobs, parked, facts={"4": JobFacts(parked="it died twice")})
    assert windows(v) == {"2": (AT + 3000, AT + 3000), "3": (AT + 4200, AT + 4200)}
    tide = ServiceView(
        spec=service(gpus_per_replica=8, min_replicas=0), load=Reading(0.0, AT), forecast=rising(1800.0, 5.0)
    )
    ebb = msgspec.structs.replace(v, services=(tide,))
    first, last = windows(ebb)["2"]
    assert first is None or first >= AT + 3000
    assert last is None
