"""The fair queue: who goes first, that nothing starves, what is guessed of run times, classes."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, view

from colocd.core.actions import Release
from colocd.core.plan import plan
from colocd.core.policy import JobClass, Policy, Share
from colocd.core.queueing import FairClock, advance, overtaking, place_of, settle, stamp_all
from colocd.core.runtimes import KEPT, UNHEARD, kind_of, learn, remaining, run_times
from colocd.core.view import Checkpoint, Job, JobFacts


def waits(number: int, user: str, at: float = AT, gpus: int = 1, **facts: object) -> Job:
    return batch(number, user=user, submitted=at, gpus_requested=gpus, **facts)  # type: ignore[arg-type]


def order(jobs: list[Job], policy: Policy | None = None, gpus: int = 8) -> list[str]:
    """The queue after these jobs arrived, each at its time."""
    policy = policy or Policy()
    clock = FairClock(at=AT)
    tags: dict[str, float] = {}
    for job in sorted(jobs, key=lambda j: (j.submitted or 0, j.order)):
        users = {j.user for j in jobs if (j.submitted or 0) <= (job.submitted or 0)}
        clock = advance(clock, job.submitted or 0, gpus, users, policy)
        clock, new = stamp_all(clock, [job], {}, policy)
        tags |= new
    return [j.ref for j in sorted(jobs, key=lambda j: place_of(j, JobFacts(tag=tags[j.ref]), policy))]


def test_a_user_with_one_job_does_not_wait_behind_a_thousand_of_another() -> None:
    many = [waits(n, "ann") for n in range(1, 1001)]
    found = order([*many, waits(2000, "bob", AT + 5)])
    assert found.index("2000") <= 2


def test_twice_the_weight_passes_twice_as_fast() -> None:
    jobs = [waits(n, "ann") for n in range(1, 31)] + [waits(n, "bob") for n in range(101, 131)]
    found = order(jobs, Policy(shares=(Share(user="bob", weight=2.0),)))
    first = found[:12]
    assert sum(len(r) == 3 for r in first) == 8


def test_work_counts_not_jobs_and_array_tasks_are_jobs() -> None:
    big = waits(1, "ann", gpus=8)
    tasks = [msgspec.structs.replace(waits(2, "bob"), ref=f"2_{i}") for i in range(16)]
    found = order([big, *tasks])
    assert found.index("1") == 7  # a tie goes to the older job; eight tasks of one GPU each are as much work


def test_idle_users_save_nothing_up_and_a_clock_that_goes_back_stops_virtual_time() -> None:
    clock = advance(FairClock(at=AT), AT + 1000, 8, {"ann"}, Policy())
    assert clock.virtual == 8000
    assert advance(clock, AT, 8, {"ann"}, Policy()).virtual == 8000
    assert advance(clock, AT + 2000, 8, set(), Policy()).virtual == 8000
    clock, tags = stamp_all(clock, [waits(1, "bob", time_limit=60.0)], {}, Policy())
    assert tags["1"] == 8060
    assert advance(clock, AT + 1010, 8, {"bob"}, Policy()).last == {}


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 3600), st.sampled_from("abc"), st.integers(1, 64), st.floats(60, 86400)),
        min_size=2,
        max_size=25,
    ),
    st.floats(0.01, 10),
)
def test_nothing_starves(arrivals: list[tuple[float, str, int, float]], ageing: float) -> None:
    """No job is overtaken by one that comes later than the bound says, whoever submits what."""
    policy, gpus = Policy(ageing=ageing), 8
    jobs, now = [], AT
    for number, (pause, user, size, limit) in enumerate(arrivals, start=1):
        now += pause
        jobs.append(waits(number, user, now, size, time_limit=limit))
    clock = FairClock(at=AT)
    tags: dict[str, float] = {}
    virtual: dict[str, float] = {}
    for job in jobs:
        clock = advance(clock, job.submitted or 0, gpus, set("abc"), policy)
        virtual[job.ref] = clock.virtual
        clock, new = stamp_all(clock, [job], {}, policy)
        tags |= new
    place = {j.ref: place_of(j, JobFacts(tag=tags[j.ref]), policy) for j in jobs}
    for first in jobs:
        bound = overtaking(tags[first.ref], virtual[first.ref], gpus / 3, policy)
        for later in jobs:
            if (later.submitted or 0) > (first.submitted or 0) + bound + 1e-3:
                assert place[first.ref] < place[later.ref]


def test_run_times_are_guessed_from_the_same_kind_of_job_given_what_has_run() -> None:
    times: dict[str, list[float]] = {}
    for seconds in (100.0, 200.0, 300.0, 4000.0, 5000.0, 6000.0):
        learn(times, "ann", f"sweep-{seconds:.0f}", seconds)
    fresh = waits(1, "ann", name="sweep-7")
    runs = run_times(times, [fresh])
    assert kind_of("ann", "sweep-7") == "ann/sweep-#"
    assert set(runs) == {"ann/sweep-#", "ann/"}
    assert remaining(fresh, JobFacts(), runs, AT) == 4000.0
    assert remaining(fresh, JobFacts(ran=350.0), runs, AT) == 4650.0
    running = batch(2, {"n1": 1}, user="ann", name="sweep-8", started=AT - 350)
    assert remaining(running, JobFacts(), runs, AT) == 4650.0
    assert remaining(msgspec.structs.replace(running, time_limit=400.0), JobFacts(), runs, AT) == 50.0


def test_a_job_of_which_nothing_is_known_is_expected_to_run_on_as_long_as_it_has() -> None:
    job = waits(1, "zoe")
    assert remaining(job, JobFacts(), {}, AT) == UNHEARD
    assert remaining(job, JobFacts(ran=600.0), {}, AT) == UNHEARD - 600
    assert remaining(job, JobFacts(ran=86400.0), {}, AT) == 86400.0
    assert remaining(msgspec.structs.replace(job, time_limit=60.0), JobFacts(), {}, AT) == 60.0


def test_work_is_expected_by_its_mean_and_settled_when_it_is_known() -> None:
    runs = {"ann/job#": (60.0, 60.0, 60.0, 60.0, 9760.0)}
    job = batch(7, gpus_requested=2)
    clock, tags = stamp_all(FairClock(at=AT), [job], runs, Policy())
    assert tags["7"] == 2 * 2000
    assert settle(clock, "ann", 500.0, Policy()).last["ann"] == 4500
    assert settle(clock, "ann", -500.0, Policy(shares=(Share(user="ann", weight=2.0),))).last["ann"] == 3750
    limited = msgspec.structs.replace(job, time_limit=100.0)
    assert stamp_all(FairClock(at=AT), [limited], runs, Policy())[1]["7"] == 200


def test_only_the_newest_run_times_are_kept() -> None:
    times: dict[str, list[float]] = {}
    for n in range(3 * KEPT):
        learn(times, "ann", "x", float(n))
    assert times["ann/x"] == [float(n) for n in range(3 * KEPT - 1, 2 * KEPT - 1, -1)]


def test_plans_follow_the_tags_and_the_classes() -> None:
    jobs = [
        batch(1, gpus_requested=8),
        batch(2, gpus_requested=8, user="bob"),
        batch(3, gpus_requested=8, user="cid", checkpoint=Checkpoint(signal="USR1", rank="scavenger")),
        batch(4, gpus_requested=8, user="dan", checkpoint=Checkpoint(signal="USR1", rank="boss")),
    ]
    tags = {"1": 400.0, "2": 300.0, "3": 10.0, "4": 500.0}
    classes = (JobClass(name="scavenger", level=-1, open=True), JobClass(name="boss", level=2))
    v = view(
        *jobs,
        nodes=2,
        facts={ref: JobFacts(tag=tag) for ref, tag in tags.items()},
        policy=Policy(classes=classes),
    )
    # Nobody calls themselves boss; whoever calls themselves scavenger starts last.
    assert [a.job for a in plan(v).actions if isinstance(a, Release)] == ["2", "1"]
