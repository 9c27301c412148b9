"""Slurm's own delays in the planner's times, and when waiting jobs are told to start: never "now" when they do not."""

import msgspec
import pytest
from tests.helpers.views import AT, batch, replica, service, view

from colocd.core.actions import Place
from colocd.core.delays import Delays, delays_of
from colocd.core.lead import ENOUGH, Start, lead_of
from colocd.core.outlook import foreseen_until, windows
from colocd.core.plan import explain, plan
from colocd.core.policy import Policy
from colocd.core.view import Checkpoint, Forecast, Held, Quantiles, Reading, ReplicaState, ServiceView, View


@pytest.mark.parametrize(
    ("said", "kill_wait", "requeue"),
    [
        ({"KillWait": "30 sec", "AuthInfo": ""}, 30.0, 121.0),
        ({"KillWait": "5 sec", "AuthInfo": "socket=/run/m,cred_expire=5"}, 5.0, 6.0),
        ({"AuthInfo": "", "SchedulerParameters": "bf_interval=2,requeue_delay=7"}, None, 7.0),
        ({}, None, None),
    ],
)
def test_slurms_delays_are_read(said: dict[str, str], kill_wait: float | None, requeue: float | None) -> None:
    assert delays_of(said) == Delays(kill_wait=kill_wait, requeue=requeue)


def test_the_lead_time_has_room_for_victims_that_ignore_term() -> None:
    spec = service(lead_time=100.0)
    assert lead_of((), spec).seconds == 100.0
    lead = lead_of((), spec, 30.0)
    assert lead.seconds == 130.0
    assert "configured: 100 s, and Slurm's KillWait of 30 s" in lead.why
    # Its victims had gone 2 s after their requeue: the next ones may take 30. Without victims there is nothing to wait for.
    quick = Start(at=0.0, reclaim=20.0, start=5.0, ready=75.0, ending=2.0)
    assert lead_of([quick] * ENOUGH, spec, 30.0).seconds == 128.0
    assert lead_of([quick] * ENOUGH, spec).seconds == 100.0
    assert lead_of([msgspec.structs.replace(quick, ending=30.0)] * ENOUGH, spec, 30.0).seconds == 100.0
    assert lead_of([msgspec.structs.replace(quick, ending=None)] * ENOUGH, spec, 30.0).seconds == 100.0


POINT = 60.0


def rising(at: float, until: float = 1e9, load: float = 15.0) -> Forecast:
    """Load 5, from `at` to `until` seconds ahead higher; a point a minute for four hours."""
    points = tuple(
        Quantiles(POINT * i, dict.fromkeys(("0.5", "0.9", "0.95"), load if at <= POINT * i < until else 5.0))
        for i in range(241)
    )
    return Forecast(points=points, step=POINT, trust=1.0, basis="test")


def world(forecast: Forecast, interval: float, *, kill_wait: float | None = None, free: int = 4) -> View:
    """Two nodes: a replica of 4 GPUs, a running job that has just saved on the others but `free`, and two that wait."""
    spec = service(gpus_per_replica=4, lead_time=120.0)
    running = (replica(0, ReplicaState.READY, job="90", node="n1", places={"n1": 0x0F}),)
    seen = ServiceView(
        spec=spec, replicas=running, load=Reading(5.0, AT), forecast=forecast, lead=lead_of((), spec, kill_wait)
    )
    saved = Checkpoint(interval=600.0, saved=AT - 3)
    jobs = (
        batch(1, {"n1": 0xF0, "n2": 0xFF >> free}, checkpoint=saved, started=AT - 5000, time_limit=1e6),
        batch(90, {"n1": 0x0F}, checkpoint=None),
        batch(2, gpus_requested=4, checkpoint=Checkpoint(interval=interval), submitted=AT - 50),
        batch(3, gpus_requested=1, time_limit=300.0, submitted=AT - 40),
    )
    policy = Policy(plan_ahead=1800.0, protected_runtime=0.0, min_useful=600.0)
    return view(*jobs, nodes=2, services=(seen,), policy=policy, delays=Delays(kill_wait=kill_wait, requeue=121.0))


def test_a_planned_reclaim_begins_kill_wait_earlier() -> None:
    """The job has saved just now and saves again in 600 s, so whether that is waited for shows the latest moment."""
    late = world(rising(810.0), 60.0, free=0)
    early = world(rising(810.0), 60.0, free=0, kill_wait=90.0)
    for v, waits in ((late, True), (early, False)):
        told = " ".join(n.text for n in plan(v).notes if n.subject == "job:1")
        assert ("in about 597 s" in told) == waits, told
    assert any("KillWait of 90 s" in text for text in explain("service:chat", early, plan(early)))


def test_a_victim_is_told_why_it_and_no_other() -> None:
    """Job 1 has just saved, job 4 saved long ago: what evicting that one instead would have cost stands in the reason."""
    v = world(rising(60.0), 60.0, free=0)
    old = batch(4, {"n3": 0xFF}, checkpoint=Checkpoint(interval=600.0, saved=AT - 500), started=AT - 5000)
    more = msgspec.structs.replace(v.nodes[0], name="n3", used=0xFF)
    for nodes, jobs, told in (
        ((*v.nodes, more), (*v.jobs, old), "for 636 GPU-seconds; the next best place is on n3 for 4600"),
        (v.nodes, v.jobs, "for 636 GPU-seconds; there is no other place for it"),
    ):
        (place,) = (a for a in plan(msgspec.structs.replace(v, nodes=nodes, jobs=jobs)).actions if isinstance(a, Place))
        assert place.victims == ("1",)
        assert told in place.why


def test_before_a_peak_nothing_starts_now() -> None:
    """4 of 16 GPUs are free, and the service will need them in ten minutes: a job that saves every hour cannot use them."""
    v = world(rising(600.0, 7200.0), 3600.0)
    starting = frozenset(a.job for a in plan(v).actions if hasattr(a, "job"))
    assert "2" not in starting
    first, last = windows(v, starting)["2"]
    assert first is not None
    assert first >= AT + 7200.0  # after the peak
    assert last is None or last >= first


def test_no_valley_is_told_as_such() -> None:
    v = world(rising(600.0), 3600.0)
    assert windows(v, frozenset())["2"] == (None, None)
    assert foreseen_until(v) == AT + 14_400.0
    blind = msgspec.structs.replace(v, services=(msgspec.structs.replace(v.services[0], load=None),))
    assert foreseen_until(blind) is None


def test_one_that_waits_for_a_long_valley_keeps_nobody_back() -> None:
    v = world(rising(600.0), 3600.0)
    quick = [msgspec.structs.replace(j, checkpoint=Checkpoint(interval=60.0)) if j.ref == "3" else j for j in v.jobs]
    found = windows(msgspec.structs.replace(v, jobs=tuple(quick)))
    assert found["2"][0] is None
    assert found["3"] == (AT, AT)


def test_what_the_plan_does_not_release_does_not_start_now() -> None:
    v = world(rising(1e9), 60.0)
    assert windows(v)["2"] == (AT, AT)
    first, _ = windows(v, frozenset({"3"}))["2"]
    assert first is None or first > AT
    assert windows(v, frozenset({"2", "3"}))["3"] == (AT, AT)


def test_slurms_delay_after_a_requeue_counts_where_coloc_does_not_cut_it() -> None:
    """Its own requeue leaves a job in Slurm's hands; one that coloc holds starts as soon as it is settled."""
    own = batch(2, gpus_requested=1, held=Held.NO, reason="BeginTime", restarts=1, submitted=AT - 21.0)
    v = view(own, nodes=1, delays=Delays(requeue=121.0))
    assert windows(v, frozenset())["2"] == (AT + 100.0, AT + 100.0)
    held = msgspec.structs.replace(own, held=Held.USER, submitted=AT - 0.5)
    assert windows(msgspec.structs.replace(v, jobs=(held,)))["2"] == (AT + 1.5, AT + 1.5)
