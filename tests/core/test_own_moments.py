"""Each victim of a planned reclaim at its own moment, and when a handover is not to wait for them any longer."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.core.test_ahead import POLICY, rising, seen
from tests.helpers.views import AT, batch, replica, service, view

from colocd.core.actions import Hasten, Place
from colocd.core.ahead import IDLE_WORTH, Moment, moments
from colocd.core.brief import HandoverBrief
from colocd.core.joint import Spot
from colocd.core.plan import plan
from colocd.core.view import Checkpoint, Job, Node, Reading, ReplicaState, ServiceView, View

FRESH = Checkpoint(interval=600.0, saved=AT - 1)
LATER = Checkpoint(interval=600.0, saved=AT - 300)
ASKED = Checkpoint(signal="USR1", cost=10.0, saved=AT - 3000)


def world(first: Checkpoint, second: Checkpoint, other: int = 0x0F, at: float = 600.0) -> View:
    """Two jobs on the four GPUs that the forecast wants within 420 s; `other`: GPUs of the first replica, or of a job."""
    jobs = tuple(
        batch(ref, {"n1": mask}, checkpoint=mark, started=AT - 5000)
        for ref, mask, mark in ((1, 0x30, first), (2, 0xC0, second))
    )
    return view(*jobs, batch(90, {"n1": other}, checkpoint=None), services=(seen(at),), policy=POLICY)


def begun(v: View) -> Place:
    (place,) = [a for a in plan(v).actions if isinstance(a, Place)]
    return place


def test_each_goes_right_after_its_own_checkpoint() -> None:
    v = world(FRESH, LATER)
    place = begun(v)
    assert place.victims == ("1", "2")
    assert (place.moments, place.latest) == ({"2": 300.0}, 420.0)
    assert "now job 1 loses least" in place.why
    (told,) = [n.text for n in plan(v).notes if n.subject == "job:2"]
    assert "in about 300 s its GPUs are wanted for chat; coloc waits for the next checkpoint of job 2" in told


def test_who_can_be_asked_goes_last() -> None:
    assert begun(world(FRESH, ASKED)).moments == {"2": 420.0}
    assert begun(world(ASKED, FRESH)).moments == {"1": 420.0}


def test_all_at_once_where_that_is_best() -> None:
    assert (begun(world(FRESH, FRESH)).moments, begun(world(FRESH, FRESH)).latest) == ({}, None)


def test_a_fence_that_costs_others_more_is_not_kept_up() -> None:
    """Three free GPUs of the node would wait 300 s for 300 s of two GPUs' work: they go together, at the second's checkpoint."""
    v = world(FRESH, LATER, other=0x08)
    assert [a for a in plan(v).actions if isinstance(a, Place)] == []
    texts = {n.subject: n.text for n in plan(v).notes if n.subject.startswith("job:")}
    for ref in ("1", "2"):
        assert "in about 300 s" in texts[f"job:{ref}"], texts


def test_no_node_is_fenced_for_longer_than_needed_while_somebody_lacks_a_place() -> None:
    """The other service can never have its place: whoever began early then would only be hastened."""
    v = world(FRESH, LATER)
    other = ServiceView(spec=service("code", gpus_per_replica=16, min_replicas=1), load=Reading(5.0, AT))
    short = msgspec.structs.replace(v, services=(*v.services, other))
    assert all(a.moments == {} for a in plan(short).actions if isinstance(a, Place))
    assert {n.subject for n in plan(short).notes if "in about 300 s" in n.text} == {"job:1", "job:2"}


marks = st.builds(
    Checkpoint,
    signal=st.sampled_from([None, "USR1"]),
    interval=st.sampled_from([None, 60.0, 400.0, 2000.0]),
    saved=st.one_of(st.none(), st.floats(0.0, 4000.0).map(lambda ago: AT - ago)),
    cost=st.sampled_from([None, 5.0]),
)


@given(st.lists(st.tuples(marks, st.sampled_from([None, 1100.0, 9000.0])), min_size=1, max_size=4), st.floats(0, 1800))
def test_nobody_waits_beyond_the_latest_moment_and_together_is_never_cheaper(
    kinds: list[tuple[Checkpoint, float | None]], latest: float
) -> None:
    jobs = tuple(
        batch(i, {"n1": 1 << i}, checkpoint=mark, time_limit=limit, started=AT - 1000)
        for i, (mark, limit) in enumerate(kinds)
    )
    v = view(*jobs)
    node = v.nodes[0]
    spot = Spot(0, (1 << len(jobs)) - 1, jobs, 0, False)
    found = moments(spot, node, latest, v)
    assert set(found) == {job.ref for job in jobs}
    assert all(0 <= moment.ahead <= latest for moment in found.values())
    asked = {found[j.ref].ahead for j in jobs if j.checkpoint is not None and j.checkpoint.signal is not None}
    assert len(asked) <= 1
    for i, job in enumerate(jobs):
        alone = moments(Spot(0, 1 << i, (job,), 0, False), full(node), latest, v)[job.ref]
        if job.checkpoint is not None and job.checkpoint.signal is None:
            assert price(alone, job, latest) <= price(found[job.ref], job, latest) + 1e-6


def full(node: Node) -> Node:
    return msgspec.structs.replace(node, used=0xFF)


def price(moment: Moment, job: Job, latest: float) -> float:
    return moment.lost + IDLE_WORTH * (latest - moment.ahead)


# -- no longer ----------------------------------------------------------------------------------------------------------


def waiting(load: float, at: float = 900.0, *more: ServiceView) -> View:
    """Handover 3 waits for job 2 until 400 s from now; the forecast needs its replica within 720 s."""
    spec = service(gpus_per_replica=4, lead_time=120.0)
    rows = (
        replica(0, ReplicaState.READY, job="90", node="n1", places={"n1": 0x0F}),
        replica(1, ReplicaState.PLACING, node="n1", places={"n1": 0xF0}),
    )
    chat = ServiceView(spec=spec, replicas=rows, load=Reading(load, AT), forecast=rising(at))
    brief = HandoverBrief(
        id=3, service="chat", slot=1, places={"n1": 0xF0}, victims=("1", "2"), state="fenced", waits_until=AT + 400
    )
    jobs = (batch(2, {"n1": 0xC0}, checkpoint=LATER), batch(90, {"n1": 0x0F}, checkpoint=None))
    return view(*jobs, services=(chat, *more), policy=POLICY, handovers=(brief,))


def hastened(v: View) -> list[Hasten]:
    return [a for a in plan(v).actions if isinstance(a, Hasten)]


def test_it_may_wait_while_nobody_needs_its_gpus() -> None:
    assert hastened(waiting(5.0)) == []
    # What keeps a replica that is there (`scale_down_margin`) is no reason to hurry for one that is not.
    assert hastened(waiting(9.5)) == []


def test_a_load_that_is_there_is_an_emergency() -> None:
    (one,) = hastened(waiting(15.0))
    assert (one.service, one.slot, one.emergency) == ("chat", 1, True)
    assert "needed now: load 15" in one.why


def test_a_need_within_the_lead_time_is_none() -> None:
    (one,) = hastened(waiting(5.0, at=100.0))
    assert not one.emergency


def test_nobody_waits_while_another_service_lacks_a_place() -> None:
    other = ServiceView(spec=service("code", gpus_per_replica=4, min_replicas=1), load=Reading(5.0, AT))
    (one,) = hastened(waiting(5.0, 900.0, other))
    assert one.why == "code lacks a place, and it keeps a node fenced"


def test_an_unknown_load_hurries_nobody() -> None:
    v = waiting(15.0)
    blind = msgspec.structs.replace(v.services[0], load=None)
    assert hastened(msgspec.structs.replace(v, services=(blind,))) == []
