"""Budgets of evictions, classes of victims, the operator's override; admission, quota and reservation."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, service, view

from colocd.core import admission
from colocd.core.actions import Hold, Place, Release
from colocd.core.admission import useful_time
from colocd.core.plan import explain, plan
from colocd.core.policy import JobClass, Policy
from colocd.core.quota import ENOUGH, Quota, steer
from colocd.core.reclaim import ground
from colocd.core.view import Checkpoint, Held, Job, JobFacts, JobState, Reading, ServiceView, View

HUNGRY = ServiceView(spec=service(gpus_per_replica=4, max_replicas=1), load=Reading(5.0, AT))
FULL = (batch(1, {"n1": 0x0F}), batch(2, {"n1": 0xF0}, user="bob"))


def places(v: View) -> list[Place]:
    return [a for a in plan(v).actions if isinstance(a, Place)]


def told(v: View) -> str:
    return " ".join(n.text for n in plan(v).notes)


def test_a_users_hourly_budget_sends_the_reclaim_elsewhere_and_is_named() -> None:
    policy = Policy(user_evictions_per_hour=2)
    (place,) = places(view(*FULL, services=(HUNGRY,), policy=policy, evicted={"ann": 2}))
    assert place.victims == ("2",)
    both = view(*FULL, services=(HUNGRY,), policy=policy, evicted={"ann": 2, "bob": 3})
    assert places(both) == []
    assert "policy.user_evictions_per_hour" in told(both)
    assert "2 jobs of ann were evicted" in " ".join(explain("job:1", both, plan(both)))


def test_the_budget_of_all_and_what_one_plan_uses_up_itself() -> None:
    two = msgspec.structs.replace(HUNGRY, spec=service(gpus_per_replica=4, max_replicas=2), load=Reading(20.0, AT))
    jobs = (*FULL, batch(3, {"n2": 0x0F}), batch(4, {"n2": 0xF0}))
    wide = view(*jobs, nodes=2, services=(two,), policy=Policy())
    assert len(places(wide)) == 2
    for policy in (Policy(evictions_per_hour=1), Policy(evictions_per_hour=4)):
        v = view(*jobs, nodes=2, services=(two,), policy=policy, evicted={"zoe": policy.evictions_per_hour - 1})
        assert len(places(v)) == 1
        assert "policy.evictions_per_hour" in told(v)
    v = view(*jobs, nodes=2, services=(two,), policy=Policy(user_evictions_per_hour=1))
    assert sorted(r for p in places(v) for r in p.victims)[0] in ("1", "2", "3", "4")
    users = [j.user for p in places(v) for r in p.victims for j in jobs if j.ref == r]
    assert len(set(users)) == len(users)


def test_a_deadline_protects_for_a_while_and_only_if_it_can_be_met() -> None:
    def victims(deadline: float, limit: float) -> tuple[str, ...]:
        jobs = (
            batch(1, {"n1": 0x0F}, time_limit=limit, started=AT - 400),
            batch(2, {"n1": 0xF0}, user="bob", started=AT - 4000),
        )
        v = view(*jobs, services=(HUNGRY,), facts={"1": JobFacts(deadline=deadline)})
        (place,) = places(v)
        return place.victims

    assert victims(AT + 1800, 1000.0) == ("2",)
    assert victims(AT + 1800, 100_000.0) == ("1",)  # it would not be met anyway
    assert victims(AT - 1, 1000.0) == ("1",)
    assert victims(AT + 7200, 1000.0) == ("1",)  # not yet


def test_lower_classes_are_evicted_first_whatever_they_lose() -> None:
    policy = Policy(classes=(JobClass(name="dear", level=1, qos=("gold",)), JobClass(name="low", level=-1, open=True)))
    ordinary = batch(1, {"n1": 0x0F}, started=AT - 4000)
    gold = batch(2, {"n1": 0xF0}, started=AT - 400, qos="gold")
    (place,) = places(view(ordinary, gold, services=(HUNGRY,), policy=policy))
    assert place.victims == ("1",)
    low = batch(2, {"n1": 0xF0}, started=AT - 90_000, checkpoint=Checkpoint(rank="low"))
    fresh = msgspec.structs.replace(ordinary, started=AT - 301)
    (place,) = places(view(fresh, low, services=(HUNGRY,), policy=policy))
    assert place.victims == ("2",)
    assert place.cost == ground(view(fresh, low, policy=policy)).costs["2"], "what is told is the plain cost"


def test_an_operator_may_override_the_budgets_for_one_replica() -> None:
    policy = Policy(evictions_per_hour=1, max_evictions_per_job=1)
    two = msgspec.structs.replace(HUNGRY, spec=service(gpus_per_replica=4, max_replicas=2), load=Reading(20.0, AT))
    spent = {"1": JobFacts(evictions=5), "2": JobFacts(evictions=5)}
    v = view(*FULL, services=(two,), policy=policy, evicted={"ann": 9}, facts=spent)
    assert places(v) == []
    (place,) = places(msgspec.structs.replace(v, overrides={"chat": "root: launch"}))
    assert place.override
    assert "root: launch" in place.why
    foreign = msgspec.structs.replace(v, jobs=(msgspec.structs.replace(v.jobs[0], checkpoint=None), v.jobs[1]))
    (place,) = places(msgspec.structs.replace(foreign, overrides={"chat": "root: launch"}))
    assert place.victims == ("2",), "other people's jobs are never touched"


def test_useful_time() -> None:
    policy = Policy(useful_intervals=2.0)
    assert useful_time(batch(1, checkpoint=Checkpoint(interval=100.0, cost=10.0, restart=30.0)), policy) == 250
    assert useful_time(batch(1), policy) == policy.min_useful
    mute = batch(1, checkpoint=Checkpoint(), time_limit=7200.0)
    v = view(mute)
    assert useful_time(mute, v.policy, v) == 7200.0
    assert useful_time(msgspec.structs.replace(mute, time_limit=1e6), v.policy, v) == v.policy.longest_valley
    assert useful_time(msgspec.structs.replace(mute, time_limit=10.0), v.policy, v) == v.policy.min_useful


def test_a_large_job_gets_a_reservation_and_only_short_jobs_pass_it() -> None:
    """Two of n1's four-GPU jobs end soon; the eight-GPU job must not be overtaken for ever by one-GPU jobs."""
    running = [
        batch(1, {"n1": 0x0F}, time_limit=1800.0, started=AT - 600),
        batch(2, {"n2": 0xFF}, time_limit=90_000.0),
    ]
    large = batch(10, gpus_requested=8, submitted=AT - 5000)
    long = batch(11, gpus_requested=1, submitted=AT - 10, time_limit=90_000.0)
    short = batch(12, gpus_requested=1, submitted=AT - 5, time_limit=600.0)
    v = view(*running, large, long, short, nodes=2)
    result = plan(v)
    assert [a.job for a in result.actions if isinstance(a, Release)] == ["12"]
    notes = {n.subject: n.text for n in result.notes}
    assert "reserved for it: n1" in notes["job:10"]
    assert "reserved for job 10" in notes["job:11"]
    never = msgspec.structs.replace(v, policy=Policy(reserve_within=0.0))
    assert {a.job for a in plan(never).actions if isinstance(a, Release)} == {"11", "12"}


def test_a_reservation_is_on_the_nodes_that_lack_the_fewest_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a large cluster not every node is looked at; then it is those that lack the fewest GPUs."""
    running = [
        batch(n, {f"n{n}": 0xFF >> (4 if n == 3 else 0)}, time_limit=1800.0, started=AT - 600) for n in (1, 2, 3)
    ]
    monkeypatch.setattr(admission, "MOST_NODES", 1)
    notes = {n.subject: n.text for n in plan(view(*running, batch(10, gpus_requested=8), nodes=3)).notes}
    assert "reserved for it: n3" in notes["job:10"]


def test_no_reservation_for_what_can_never_start() -> None:
    giant = batch(10, gpus_requested=16, gpus_per_node=16)
    v = view(batch(1, {"n1": 0x0F}, time_limit=1800.0), giant, batch(11, gpus_requested=1))
    assert [a.job for a in plan(v).actions if isinstance(a, Release)] == ["11"]


def test_the_quota_limits_what_batch_jobs_hold_but_never_the_first() -> None:
    waiting = [batch(10 + i, gpus_requested=2) for i in range(4)]
    quota = Quota(share=0.5, why="many evictions")
    v = view(*waiting, quota=quota)
    assert len([a for a in plan(v).actions if isinstance(a, Release)]) == 2
    assert "quota of 50%" in told(v)
    v = view(batch(10, gpus_requested=8), quota=quota)
    assert len([a for a in plan(v).actions if isinstance(a, Release)]) == 1


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans()), max_size=30))
def test_the_quota_stays_in_its_bounds_and_moves_the_right_way(hours: list[tuple[int, int, bool]]) -> None:
    policy, state = Policy(), Quota(at=0.0)
    for n, (evicted, others, waiting) in enumerate(hours, start=1):
        new = steer(state, evicted, evicted + others, waiting, policy, n * policy.quota_period)
        assert policy.quota_min <= new.share <= 1.0
        rate = evicted / (evicted + others) if evicted + others >= ENOUGH else 0.0
        if rate >= 1.5 * policy.eviction_target:
            assert new.share <= state.share
        elif rate > 0.5 * policy.eviction_target or not waiting:
            assert new.share == state.share
        else:
            assert new.share >= state.share
        assert (new.share < 1.0) == bool(new.why)
        assert steer(new, 9, 9, True, policy, new.at + 1) == new, "not before the period is over"
        state = new


def test_a_parked_job_is_held_and_not_started() -> None:
    facts = {"7": JobFacts(parked="it ended twice", ever_released=True)}
    loose = batch(7, held=Held.NO, state=JobState.PENDING)
    assert [type(a) for a in plan(view(loose, facts=facts)).actions] == [Hold]
    delayed = msgspec.structs.replace(
        loose, reason="BeginTime"
    )  # Slurm's own delay after a requeue: it would start at its end
    assert [type(a) for a in plan(view(delayed, facts=facts)).actions] == [Hold]
    held: Job = batch(7, held=Held.ADMIN)
    v = view(held, facts={"7": msgspec.structs.replace(facts["7"], ours=True)})
    assert plan(v).actions == ()
    assert "coloc unpark 7" in told(v)
