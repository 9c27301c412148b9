"""A job's word that it saves when it is asked: worth what its answers have shown, and nothing before."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, filled_views, habits, replica, service, view

from colocd.core.actions import Place
from colocd.core.admission import useful_time
from colocd.core.ahead import moments
from colocd.core.index import PlannerIndex
from colocd.core.joint import Spot
from colocd.core.plan import explain, plan
from colocd.core.policy import Policy
from colocd.core.reclaim import ground
from colocd.core.victims import dearness, eviction_cost, expected_loss
from colocd.core.view import Checkpoint, JobFacts, Reading, ReplicaState, ServiceView, View
from colocd.core.why import why_node

PROVEN = JobFacts(evictions=1, answered=1, took=12.0)
NEVER = JobFacts()


def cost(facts: JobFacts, **mark: object) -> float:
    job = batch(1, {"n1": 0x0F}, checkpoint=Checkpoint(**{"signal": "USR1", **mark}))  # type: ignore[arg-type]
    return eviction_cost(job, facts, view(job, policy=Policy(eviction_cost=0.0)))


def test_one_that_answered_costs_one_save_and_one_that_only_says_so_what_it_did_since_its_last() -> None:
    assert cost(NEVER) == cost(JobFacts(silent=1)) == 4 * 1000
    assert cost(PROVEN) == 4 * 12
    assert cost(JobFacts(answered=2, silent=1, took=12.0)) == 4 * 12
    assert cost(JobFacts(answered=1, silent=1, took=12.0)) == 4 * 1000, "not oftener than it was silent"
    assert cost(JobFacts(answered=5, silent=1)) == 4 * 1000, "it was silent the last time"
    assert cost(JobFacts(answered=1, took=61.0)) == 4 * 1000, "longer than the grace of an emergency"
    assert cost(PROVEN, saved=AT - 5) == 4 * 5, "never dearer than without the proof"
    assert cost(PROVEN, signal=None) == 4 * 1000
    assert cost(PROVEN, restart=30.0, cost=5000.0) == 4 * (12 + 30)


@given(habits(), st.floats(0, 1e6) | st.none(), st.floats(0, 1e6) | st.none())
def test_no_claim_moves_the_loss_and_no_answer_raises_it(
    facts: JobFacts, told: float | None, ago: float | None
) -> None:
    saved = None if ago is None else AT - ago
    assert cost(facts, cost=told, restart=1.0, saved=saved) == cost(facts, restart=1.0, saved=saved)
    assert cost(facts, restart=1.0, saved=saved) <= cost(NEVER, restart=1.0, saved=saved)
    assert cost(JobFacts(silent=facts.silent), saved=saved) == cost(NEVER, saved=saved), "silence changes nothing here"


@settings(max_examples=60, deadline=None)
@given(filled_views(), filled_views())
def test_the_arrays_say_the_same_afresh_and_brought_up_to_date(before: View, now: View) -> None:
    index = PlannerIndex()
    index.update(before)
    changed = msgspec.structs.replace(before, facts={ref: now.facts.get(ref, NEVER) for ref in before.facts})
    for land in (ground(changed, index), ground(changed)):
        for ref, job in land.victims.items():
            assert land.cost([job]) == pytest.approx(land.costs[ref], abs=1e-3)
            assert land.index.dear[land.index.job_row[ref]] == dearness(job, changed.facts.get(ref, NEVER), changed)


def test_the_proven_one_is_taken_and_the_user_is_told_by_what_it_was_weighed() -> None:
    mine = [batch(1, {"n1": 0x03}), batch(2, {"n1": 0x0C}), batch(3, {"n1": 0xF0}, checkpoint=None)]
    shop = ServiceView(spec=service(), replicas=(replica(0, ReplicaState.READY, job="3"),), load=Reading(15.0, AT))
    v = view(*mine, services=(shop,), facts={"1": NEVER, "2": PROVEN})
    (place,) = (a for a in plan(v).actions if isinstance(a, Place))
    assert place.victims == ("2",)
    assert "by one save of 12 s, if that is less" in " ".join(explain("job:2", v, plan(v)))
    assert "(weighed by one save, as they answered when told: 2)" in why_node(shop.spec, ground(v), "n1")
    assert "it says that it saves when it is asked, which nobody has seen yet" in " ".join(explain("job:1", v, plan(v)))
    for facts, words in (
        (JobFacts(answered=2, silent=1), "it answered 2 of 3 times when told, and not the last time"),
        (JobFacts(answered=1, silent=1, took=1.0, alike=True), "jobs of its user and name answered 1 of 2 times"),
        (JobFacts(answered=1, took=90.0), "but took 90 s, longer than the grace of an emergency"),
    ):
        other = msgspec.structs.replace(v, facts={"1": facts})
        assert words in " ".join(explain("job:1", other, plan(other)))
    mute = view(batch(1, {"n1": 3}, checkpoint=Checkpoint()), services=(shop,))
    assert "it cannot be asked to save" in " ".join(explain("job:1", mute, plan(mute)))


def test_silence_does_not_pay_when_jobs_are_started_or_placed() -> None:
    job = batch(8, time_limit=7200.0)
    v = view(job)
    assert useful_time(job, v.policy, v, NEVER) == useful_time(job, v.policy, v, PROVEN) == v.policy.min_useful
    assert useful_time(job, v.policy, v, JobFacts(silent=1)) == 7200.0
    saves = batch(8, checkpoint=Checkpoint(signal="USR1", interval=900.0))
    assert useful_time(saves, v.policy, v, JobFacts(silent=1)) == 900.0, "what it saves by itself it still has"
    assert expected_loss(job, PROVEN, v) == 12.0
    assert expected_loss(job, JobFacts(silent=1), v) == expected_loss(job, NEVER, v) == v.policy.max_unsaved


def test_a_claimed_interval_counts_for_as_long_as_it_may_be_true() -> None:
    says = batch(8, checkpoint=Checkpoint(interval=60.0), time_limit=7200.0)
    v = view(says)
    assert useful_time(says, v.policy, v, NEVER) == useful_time(says, v.policy, v, JobFacts(ran=600.0)) == 60.0
    assert useful_time(says, v.policy, v, JobFacts(ran=601.0)) == 7200.0, "ten minutes without a save"
    rare = batch(8, checkpoint=Checkpoint(interval=1000.0), time_limit=7200.0)
    assert useful_time(rare, v.policy, v, JobFacts(ran=2900.0)) == 1000.0
    heard = batch(8, checkpoint=Checkpoint(interval=60.0, saved=AT - 9000), time_limit=7200.0)
    assert useful_time(heard, v.policy, v, JobFacts(ran=9000.0)) == 60.0
    asked = batch(8, checkpoint=Checkpoint(signal="USR1", interval=60.0), time_limit=7200.0)
    assert useful_time(asked, v.policy, v, JobFacts(ran=9000.0)) == v.policy.min_useful, "it can still be asked"


def test_one_that_was_silent_is_not_trusted_with_a_late_moment() -> None:
    """Whom nobody has told yet is asked as late as possible; of one that was silent each second later is lost, too."""
    job = batch(1, {"n1": 0x0F}, started=AT - 100)
    spot = Spot(0, 0x0F, (job,), 0, waits=False)

    def moment(facts: JobFacts) -> tuple[float, float]:
        v = view(job, facts={"1": facts})
        found = moments(spot, v.nodes[0], 600.0, v)["1"]
        return found.ahead, found.lost

    assert moment(NEVER) == (600.0, 0.0)
    assert moment(PROVEN) == (600.0, 48.0)
    assert moment(JobFacts(silent=1)) == (0.0, 400.0)
