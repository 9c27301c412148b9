"""The fair queue: who goes first, that nothing starves, what is guessed of run times, classes."""

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, view

from colocd.core.actions import Release
from colocd.core.plan import plan
from colocd.core.policy import JobClass, Policy, Share
from colocd.core.queueing import CREDIT, LEAST, FairClock, advance, chain, overtaking, place_of
from colocd.core.runtimes import KEPT, UNHEARD, expected_works, kind_of, learn, remaining, run_times
from colocd.core.view import Checkpoint, Job, JobFacts


def waits(number: int, user: str, at: float = AT, gpus: int = 1, **facts: object) -> Job:
    return batch(number, user=user, submitted=at, gpus_requested=gpus, **facts)  # type: ignore[arg-type]


def order(jobs: list[Job], policy: Policy | None = None, gpus: int = 8) -> list[str]:
    """The queue after these jobs arrived, each at its time, and none was started."""
    policy = policy or Policy()
    clock = FairClock(at=AT)
    floors: dict[str, float] = {}
    users: set[str] = set()
    for job in sorted(jobs, key=lambda j: (j.submitted or 0, j.order)):
        users.add(job.user)
        clock = advance(clock, job.submitted or 0, gpus, dict.fromkeys(users, 0), users, policy)
        floors[job.ref] = clock.floor
    tags = chain(clock, jobs, expected_works(jobs, {}, clock.at), floors, policy)
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
    big = [waits(1, "ann", gpus=8), waits(3, "ann", AT + 1)]
    tasks = [msgspec.structs.replace(waits(2, "bob"), ref=f"2_{i}") for i in range(16)]
    found = order([*big, *tasks])
    assert found[0] == "1", "a long job of somebody who took nothing is not put back for its length"
    assert found.index("3") == 10  # eight tasks of one GPU each are as much work as her first, and the ninth is older


def test_what_was_received_counts_and_nobody_loses_a_debt_by_leaving() -> None:
    policy, both = Policy(), {"ann": 8, "bob": 0}
    clock = advance(FairClock(at=AT), AT, 8, both, {"bob"}, policy)
    assert clock.served == {"ann": 0, "bob": 0}
    clock = advance(clock, AT + 1000, 8, both, {"bob"}, policy)
    assert clock.served["ann"] == 8000
    assert advance(clock, AT, 8, both, {"bob"}, policy).virtual == clock.virtual
    tags = chain(clock, [waits(1, "ann"), waits(2, "bob")], {"1": 50.0, "2": 50.0}, {"1": -9e9, "2": -9e9}, policy)
    assert tags == {"1": 8000, "2": 0}
    assert FairClock(at=AT, virtual=9e6, gpus=8).floor == 9e6 - 8 * CREDIT
    gone = advance(clock, AT + 1001, 8, {"bob": 8}, (), policy)
    assert "ann" not in gone.served or gone.served["ann"] > gone.floor
    heavy = msgspec.structs.replace(clock, served={"ann": 1e9, "bob": 0.0, "cid": -1e9})
    later = advance(heavy, AT + 1002, 8, {"bob": 8}, {"bob"}, policy).served
    assert later["ann"] == 1e9
    assert "cid" not in later
    assert advance(clock, AT + 2000, 8, {}, (), policy).virtual == clock.virtual


def test_virtual_time_waits_for_whom_it_owes_but_never_stands_still() -> None:
    policy = Policy()
    owes = FairClock(at=AT, virtual=1000.0, served={"ann": 1010.0, "bob": 5000.0})
    users = {"ann": 0, "bob": 8}
    assert advance(owes, AT + 100, 8, users, users, policy).virtual == 1000 + LEAST * 400
    assert advance(owes, AT + 10, 8, users, users, policy).virtual == 1010
    assert advance(owes, AT + 100, 8, users, {"bob"}, policy).virtual == 1400


@settings(max_examples=100, deadline=None)
@example([(0.0, "a", 1, 60.0), (16.0, "b", 1, 60.0), (244.0, "a", 1, 60.0)], [(0, 5, 0), (0, 0, 0)], 0.0625)
@example([(0.0, "a", 8, 60.0), *[(3600.0, "b", 8, 60.0)] * 20], [(0, 0, 0), (8, 0, 0)], 1.0)
@given(
    st.lists(
        st.tuples(st.floats(0, 3600), st.sampled_from("abc"), st.integers(1, 64), st.floats(60, 86400)),
        min_size=2,
        max_size=25,
    ),
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=5),
    st.floats(0.01, 10),
)
def test_nothing_starves(
    arrivals: list[tuple[float, str, int, float]], held: list[tuple[int, int, int]], ageing: float
) -> None:
    """No job is behind one that comes later than the bound says, whoever submits what and gets which GPUs meanwhile."""
    policy, gpus = Policy(ageing=ageing), 8
    clock, now = FairClock(at=AT), AT
    jobs: list[Job] = []
    floors: dict[str, float] = {}
    least: dict[str, float] = {}
    for number, (pause, user, size, limit) in enumerate(arrivals, start=1):
        now += pause
        jobs.append(waits(number, user, now, size, time_limit=limit))
        receive = dict(zip("abc", held[number % len(held)], strict=True))
        clock = advance(clock, now, gpus, receive, {j.user for j in jobs}, policy)
        floors[str(number)] = clock.floor
        least[str(number)] = clock.virtual - CREDIT * gpus
        tags = chain(clock, jobs, expected_works(jobs, {}, now), floors, policy)
        place = {j.ref: place_of(j, JobFacts(tag=tags[j.ref]), policy) for j in jobs}
        for first in jobs:
            bound = overtaking(tags[first.ref], least[first.ref], LEAST * gpus / 3, policy)
            for later in jobs:
                if (later.submitted or 0) > (first.submitted or 0) + bound + 1e-3:
                    assert place[first.ref] < place[later.ref]


def test_an_evicted_job_keeps_its_turn_among_its_users_jobs() -> None:
    old = msgspec.structs.replace(
        waits(1, "ann", AT + 900), restarts=1
    )  # Slurm tells the requeue as its time of submission
    tags = chain(FairClock(at=AT), [waits(2, "ann"), old], {"1": 5.0, "2": 5.0}, {"1": 0.0, "2": 0.0}, Policy())
    assert tags == {"1": 0.0, "2": 5.0}


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


def test_work_is_expected_by_its_mean() -> None:
    runs = {"ann/job#": (60.0, 60.0, 60.0, 60.0, 9760.0)}
    job = batch(7, gpus_requested=2)
    assert expected_works([job], runs, AT) == {"7": 2 * 2000}
    assert expected_works([msgspec.structs.replace(job, time_limit=100.0)], runs, AT) == {"7": 200}
    assert expected_works([job], {"ann/": (5.0, 6.0, 7.0)}, AT) == {"7": 12}
    assert expected_works([job], {}, AT) == {"7": 2 * UNHEARD}


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
