"""What is remembered of batch jobs: runs, evictions, run times, the fair clock, parking; all of it outlives the daemon."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.helpers.views import AT, batch

from colocd.core.policy import Policy
from colocd.core.view import Checkpoint, Held, Job, JobState
from colocd.memory import Memory, Remembered
from colocd.store import open_store
from colocd.store.records import BatchJob, Handover
from colocd.store.schema import upgrade
from colocd.store.sql import SqlStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    upgrade(f"sqlite:///{tmp_path}/coloc.db")
    store = open_store(f"sqlite:///{tmp_path}/coloc.db")
    yield store
    store.close()


def look(memory: Memory, now: float, *jobs: Job, victim: str = "", acked: bool = False) -> Remembered:
    handovers = [
        Handover(
            service="c", slot=0, places={"n1": 1}, level="SYS", victims=(victim,), created_at=now, updated_at=now,
            data={"acked": [victim] if acked else []},
        )
    ]  # fmt: skip
    return memory.look(jobs, handovers if victim else [], Policy(), 8, now)


def running(at: float = AT, **facts: object) -> Job:
    return batch(1, {"n1": 0x0F}, started=at, **facts)  # type: ignore[arg-type]


def pending(restarts: int, held: Held = Held.ADMIN) -> Job:
    return batch(1, restarts=restarts, held=held, gpus_requested=4)


@pytest.mark.parametrize(("acked", "saved"), [(False, AT + 50), (True, AT + 100)])
def test_an_eviction_is_a_run_with_what_was_saved(store: SqlStore, acked: bool, saved: float) -> None:
    memory = Memory(store)
    look(memory, AT + 1, running())
    look(memory, AT + 60, running(checkpoint=Checkpoint(signal="USR1", saved=AT + 50)))
    seen = look(memory, AT + 100, pending(1), victim="1", acked=acked)
    (run,) = store.runs(0.0)
    assert (run.started, run.ended, run.gpus, run.end) == (AT, AT + 100, 4, "evicted")
    assert run.saved == saved
    assert seen.evicted == {"ann": 1}
    assert seen.facts["1"].ran == 100
    again = look(Memory(store), AT + 110, running(AT + 105))
    assert again.facts["1"].ran == 100
    assert [r.end for r in store.runs(0.0)] == [None, "evicted"]
    assert look(memory, AT + 4000, running(AT + 105)).evicted == {}


def test_a_restart_between_two_looks_is_seen_by_its_start(store: SqlStore) -> None:
    memory = Memory(store)
    look(memory, AT + 1, running())
    look(memory, AT + 100, running(AT + 90, restarts=1))
    assert [(r.started, r.end) for r in store.runs(0.0)] == [(AT + 90, None), (AT, "requeued")]


def test_run_times_are_learnt_from_ended_jobs_and_by_a_new_process(store: SqlStore) -> None:
    memory = Memory(store)
    look(memory, AT + 1, running())
    look(memory, AT + 100, pending(1), victim="1")
    look(memory, AT + 210, running(AT + 200))
    done = msgspec.structs.replace(running(AT + 200), state=JobState.DONE, gpus={}, ends=AT + 500)
    look(memory, AT + 510, done)
    waiting = batch(2, name="job7")
    for one in (memory, Memory(store)):
        seen = look(one, AT + 520, done, waiting)
        assert seen.runs == {"ann/": (400.0,), "ann/job#": (400.0,)}
    assert store.jobs(unended=False)[0].ended == "done"


def test_a_job_that_dies_on_resume_twice_is_parked_and_one_that_saves_is_not(store: SqlStore) -> None:
    def die(start: float, restarts: int, saved: float | None = None) -> Remembered:
        mark = Checkpoint(signal="USR1", saved=saved)
        look(memory, start + 5, running(start, restarts=restarts, checkpoint=mark))
        return look(memory, start + 20, pending(restarts + 1, Held.NO))

    memory = Memory(store)
    assert die(AT, 0).facts["1"].deaths == 0, "the first run resumes nothing"
    assert die(AT + 100, 1).facts["1"].deaths == 1
    assert die(AT + 200, 2, saved=AT + 203).facts["1"].deaths == 0
    assert die(AT + 300, 3).facts["1"].deaths == 1
    parked = die(AT + 400, 4).facts["1"]
    assert parked.parked is not None
    assert "2 times in a row" in parked.parked
    assert store.jobs()[0].parked_at == AT + 420
    mark = Checkpoint(signal="USR1", unparked=AT + 430)
    free = look(memory, AT + 440, msgspec.structs.replace(pending(5), checkpoint=mark)).facts["1"]
    assert (free.parked, free.deaths) == (None, 0)


def test_one_that_fails_on_resume_and_is_requeued_by_somebody_is_parked_the_second_time(store: SqlStore) -> None:
    def fail(start: float, restarts: int) -> Remembered:
        look(memory, start + 5, running(start, restarts=restarts))
        over = msgspec.structs.replace(
            running(start, restarts=restarts), state=JobState.FAILED, gpus={}, ends=start + 20
        )
        return look(memory, start + 25, over)

    memory = Memory(store)
    assert fail(AT, 0).facts["1"].deaths == 0, "the first run resumes nothing"
    look(memory, AT + 40, pending(1, Held.NO))
    assert fail(AT + 100, 1).facts["1"].deaths == 1
    back = look(memory, AT + 140, pending(2, Held.NO)).facts["1"]
    assert (back.deaths, back.parked) == (1, None)
    assert fail(AT + 200, 2).facts["1"].parked is not None
    assert look(Memory(store), AT + 240, pending(3, Held.NO)).facts["1"].parked is not None


def test_resumes_that_are_over_before_the_next_look_are_counted_by_its_restarts(store: SqlStore) -> None:
    """A run of a second between two looks: nobody ever sees it run."""
    memory = Memory(store)
    look(memory, AT + 1, running())
    look(memory, AT + 100, pending(1), victim="1")
    assert look(memory, AT + 110, pending(1, Held.NO)).facts["1"].deaths == 0
    assert look(memory, AT + 120, pending(2, Held.NO)).facts["1"].deaths == 1
    parked = look(memory, AT + 130, pending(3, Held.NO)).facts["1"]
    assert parked.parked is not None
    assert "2 times in a row" in parked.parked
    assert store.jobs()[0].parked_at == AT + 130


def test_unseen_resumes_that_saved_or_came_first_or_may_have_been_long_are_no_deaths(store: SqlStore) -> None:
    first = Memory(store)
    look(first, AT, pending(0))
    assert look(first, AT + 5, pending(1)).facts["1"].deaths == 0, "its first run resumed nothing"
    saved = Checkpoint(signal="USR1", saved=AT + 8)
    again = msgspec.structs.replace(pending(2), checkpoint=saved)
    assert look(first, AT + 10, again).facts["1"].deaths == 0, "it saved"
    late = msgspec.structs.replace(again, restarts=4)
    assert look(first, AT + 10 + 700, late).facts["1"].deaths == 0, "colocd was away"
    assert look(Memory(store), AT + 711, msgspec.structs.replace(late, restarts=9)).facts["1"].deaths == 0, (
        "a new process"
    )
    seen = Memory(store)
    look(seen, AT + 720, running(AT + 719, restarts=9, checkpoint=saved))
    twice = look(seen, AT + 730, msgspec.structs.replace(running(AT + 729, restarts=11), checkpoint=saved))
    assert twice.facts["1"].parked is not None, "one was seen, another was not"


def test_evictions_are_no_deaths(store: SqlStore) -> None:
    memory = Memory(store)
    for n in range(4):
        look(memory, AT + 100 * n + 5, running(AT + 100 * n, restarts=n))
        seen = look(memory, AT + 100 * n + 20, pending(n + 1), victim="1")
    assert seen.facts["1"].deaths == 0


def test_places_in_the_queue_outlive_the_daemon_and_count_what_was_received(store: SqlStore) -> None:
    def order(seen: Remembered) -> list[str]:
        tags = {ref: facts.tag for ref, facts in seen.facts.items() if facts.tag is not None}
        return sorted(tags, key=lambda ref: (tags[ref], ref))

    memory = Memory(store)
    mine = [batch(n, time_limit=100.0) for n in (1, 2, 3)]
    bob = batch(9, user="bob", time_limit=100.0)
    assert order(look(memory, AT, *mine, bob)) == ["1", "9", "2", "3"]
    assert order(look(Memory(store), AT + 5, *mine, bob)) == ["1", "9", "2", "3"]
    runs = msgspec.structs.replace(mine[0], state=JobState.RUNNING, gpus={"n1": 0xFF}, started=AT + 5)
    look(memory, AT + 5, runs, *mine[1:], bob)
    assert order(look(memory, AT + 50, runs, *mine[1:], bob)) == ["9", "2", "3"], "she has received 360 GPU-seconds"
    late = batch(10, user="bob", time_limit=100.0)
    assert order(look(Memory(store), AT + 60, runs, *mine[1:], bob, late)) == ["9", "10", "2", "3"]


def test_jobs_that_are_parked_or_held_by_wish_stand_in_nobodys_way(store: SqlStore) -> None:
    wish = batch(1, held=Held.USER, checkpoint=Checkpoint(signal="USR1", hold="user"))
    seen = look(Memory(store), AT, wish, batch(2))
    assert seen.facts["1"].tag is None
    assert seen.facts["2"].tag == look(Memory(store), AT, batch(2)).facts["2"].tag


def test_the_first_deadline_counts(store: SqlStore) -> None:
    memory = Memory(store)
    for n, deadline in enumerate((None, AT + 900, AT + 9000)):
        seen = look(memory, AT + n, batch(1, checkpoint=Checkpoint(deadline=deadline)))
    assert seen.facts["1"].deadline == AT + 900


def test_many_evictions_lower_the_quota(store: SqlStore) -> None:
    memory = Memory(store)
    look(memory, AT)
    for n in range(6):
        look(memory, AT + 100 * n + 5, running(AT + 100 * n, restarts=n))
        look(memory, AT + 100 * n + 20, pending(n + 1), victim="1")
    seen = look(memory, AT + 700, pending(6))
    assert seen.quota.share == Policy().quota_min
    assert "6 of 6 runs" in seen.quota.why
    assert look(Memory(store), AT + 710, pending(6)).quota == seen.quota


def test_nonsense_in_the_settings_counts_as_nothing(store: SqlStore) -> None:
    store.put_setting("fair-clock", "{")
    store.put_setting("quota", '{"share": "all"}')
    assert look(Memory(store), AT, batch(1)).quota.share == 1.0


def test_hostile_names_and_ten_thousand_tasks(store: SqlStore) -> None:
    """Names with quotes, line ends and shell text are data; every task of a large array is remembered and tagged."""
    name = "a'b\"c\n$(touch /tmp/x)`id` \x00/%s"
    tasks = [msgspec.structs.replace(batch(5, name=name), ref=f"5_{n}") for n in range(10_000)]
    seen = look(Memory(store), AT, *tasks, batch(6, user="bob", name=name))
    assert len(seen.facts) == 10_001
    assert len({facts.tag for facts in seen.facts.values()}) == 10_000
    again = Memory(store)
    done = msgspec.structs.replace(tasks[0], state=JobState.RUNNING, started=AT, gpus={"n1": 1})
    look(again, AT + 1, done, *tasks[1:])
    ended = msgspec.structs.replace(done, state=JobState.FAILED, gpus={}, ends=AT + 9)
    seen = look(again, AT + 10, ended, *tasks[1:])
    assert [times for kind, times in seen.runs.items() if kind != "ann/"] == [(9.0,)]
    known: list[BatchJob] = [r for r in store.jobs(unended=False) if r.ref == "5_0"]
    assert known[0].ended == "failed"


def test_a_job_that_waits_for_another_has_no_turn_yet(store: SqlStore) -> None:
    """It delays neither its user's other jobs nor the clock; once it could start it has its place, by when it was first seen."""
    first = batch(1, {"n1": 0x0F})
    chained = batch(2, dependency="afterok:1(unfulfilled)", submitted=AT - 900)
    later = batch(3, begins=AT + 500, submitted=AT - 900)
    own, other = batch(4, submitted=AT - 800), batch(5, user="bob", submitted=AT - 700)
    memory = Memory(store)
    facts = look(memory, AT, first, chained, later, own, other).facts
    assert (facts["2"].tag, facts["3"].tag) == (None, None)
    assert facts["4"].tag == facts["5"].tag == 0.0
    ended = batch(1, state=JobState.DONE, held=Held.NO)
    facts = look(memory, AT + 600, ended, chained, later, own, other).facts
    assert all(facts[ref].tag is not None for ref in ("2", "3", "4", "5"))
    assert (facts["4"].tag or 0.0) > (facts["2"].tag or 0.0), "one after the other again"


@pytest.mark.parametrize("reason", ["JobArrayTaskLimit", "Dependency", "BeginTime"])
def test_the_time_to_start_begins_when_slurm_may_start_it(store: SqlStore, reason: str) -> None:
    """Else a task that waited long for its array's limit would be taken back in the very moment in which it may start."""
    store.put_jobs(
        [BatchJob(ref="1", user="ann", name="job1", first_seen=AT, last_seen=AT, released_at=AT, ever_released=True)]
    )
    memory = Memory(store)
    kept_back, free = (batch(1, held=Held.NO, reason=word) for word in (reason, "Resources"))
    assert look(memory, AT + 5, batch(1, held=Held.NO, reason="None")).facts["1"].released_at == AT
    facts = look(memory, AT + 5000, kept_back).facts["1"]
    assert (facts.released_at, facts.ever_released) == (None, True)
    assert look(memory, AT + 5010, free).facts["1"].released_at == AT + 5010
    assert look(memory, AT + 5020, free).facts["1"].released_at == AT + 5010
