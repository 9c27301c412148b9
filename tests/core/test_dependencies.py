"""What a job depends on: in words, by Slurm's word and by what the view shows; such a job is not released."""

import msgspec
import pytest
from tests.helpers.views import AT, batch, view

from colocd.answers_job import job_story, queue_rows
from colocd.core.actions import Release
from colocd.core.dependencies import Dependencies, begin_of, never, waits_for
from colocd.core.fill import waiting
from colocd.core.outlook import windows
from colocd.core.plan import plan
from colocd.core.view import Checkpoint, Held, Job, JobFacts, JobState, View
from colocd.slurm.values import dependency


def after(text: str, **more: object) -> Job:
    return batch(20, dependency=dependency(text), **more)  # type: ignore[arg-type]


def note(seen: View, ref: str = "20") -> str | None:
    return next((n.text for n in plan(seen).notes if n.subject == f"job:{ref}"), None)


def released(seen: View) -> list[str]:
    return [a.job for a in plan(seen).actions if isinstance(a, Release)]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("afterok:17(unfulfilled)", "job 17 to end (afterok)"),
        ("afternotok:17_3(unfulfilled)", "job 17_3 to fail (afternotok)"),
        ("afterany:6_*(unfulfilled)", "all tasks of array 6 to end (afterany)"),
        ("aftercorr:6_*(unfulfilled)", "the same task of array 6 to end (aftercorr)"),
        ("after:1+5(unfulfilled)", "job 1 to start and 5 min to pass (after)"),
        ("afterok:1(unfulfilled)?afterany:4(unfulfilled)", "job 4 to end (afterany) or job 1 to end (afterok)"),
        ("singleton(unfulfilled)", "its user's other jobs of the same name to end (singleton)"),
        ("newkind:5{odd}", "newkind:5{odd}"),
        (",".join(f"afterok:{n}(unfulfilled)" for n in range(1, 7)), "job 3 to end (afterok) and 3 more"),
    ],
)
def test_words(told: str, words: str) -> None:
    assert (waits_for(after(told)) or "").endswith(words)
    assert never(after(told)) is None


@pytest.mark.parametrize("nothing", ["(null)", "N/A", "", "Unknown"])
def test_unknown_is_no_dependency(nothing: str) -> None:
    """A Slurm, or a recording, that tells nothing of dependencies: as it was before."""
    job = after(nothing)
    assert job.dependency is None
    assert (waits_for(job), never(job)) == (None, None)
    assert released(view(job)) == ["20"]


@pytest.mark.parametrize(
    ("told", "state", "true"),
    [
        ("afterok:17(unfulfilled)", JobState.DONE, True),
        ("afterok:17(unfulfilled)", JobState.FAILED, False),
        ("afterok:17(failed)", JobState.DONE, False),
        ("afterok:17(unfulfilled)", JobState.COMPLETING, False),
        ("afterok:17(unfulfilled)", JobState.PENDING, False),
        ("afternotok:17(unfulfilled)", JobState.FAILED, True),
        ("afternotok:17(unfulfilled)", JobState.DONE, False),
        ("afterany:17(unfulfilled)", JobState.FAILED, True),
        ("afterany:17(unfulfilled)", JobState.RUNNING, False),
        ("after:17(unfulfilled)", JobState.RUNNING, True),
        ("after:17(unfulfilled)", JobState.PENDING, False),
        ("after:17+5(unfulfilled)", JobState.RUNNING, True),
        ("after:17+50(unfulfilled)", JobState.RUNNING, False),
        ("afterany:17_*(unfulfilled)", JobState.DONE, False),
        ("afterok:18(unfulfilled)", JobState.DONE, False),
        ("afterok:17(unfulfilled)?afterok:18(unfulfilled)", JobState.DONE, True),
        ("afterok:17(unfulfilled),afterok:18(unfulfilled)", JobState.DONE, False),
        ("afterburstbuffer:17(unfulfilled)", JobState.DONE, False),
        ("newkind", JobState.DONE, False),
    ],
)
def test_what_the_view_shows(told: str, state: JobState, true: bool) -> None:
    other = batch(17, state=state, started=AT - 600, held=Held.NO)
    seen = view(other, after(told))
    assert Dependencies(seen.jobs, seen.at).fulfilled(seen.jobs[1]) is true
    assert ("20" in released(seen)) is true


def test_a_task_follows_its_own_task() -> None:
    tasks = [batch(6, state=JobState.DONE), batch(6, state=JobState.FAILED)]
    others = [msgspec.structs.replace(job, ref=f"6_{n}", held=Held.NO) for n, job in enumerate(tasks)]
    mine = [msgspec.structs.replace(after("aftercorr:6_*(unfulfilled)"), ref=f"20_{n}") for n in range(3)]
    assert released(view(*others, *mine)) == ["20_0"]


def test_one_at_a_time() -> None:
    jobs = [batch(n, name="same", dependency="singleton(unfulfilled)") for n in (20, 21, 22)]
    seen = view(batch(19, {"n1": 1}, name="same"), *jobs)
    assert released(seen) == []
    assert "jobs of the same name to end (singleton)" in (note(seen, "21") or "")
    assert released(view(*jobs)) == ["20"]
    assert released(view(batch(19, {"n1": 1}, name="same", user="bob"), *jobs)) == ["20"]


def test_it_stays_held_and_says_why() -> None:
    running = batch(17, {"n1": 1})
    seen = view(running, after("afterok:17(unfulfilled)"))
    assert released(seen) == []
    assert note(seen) == "waits for job 17 to end (afterok)"
    assert "20" not in windows(seen)
    rows = queue_rows(seen, plan(seen), windows(seen), ())
    assert next(r["reason"] for r in rows if r["ref"] == "20") == "waits for job 17 to end (afterok)"


def test_one_that_was_released_says_so_too_and_is_not_taken_back() -> None:
    job = after("afterok:17(unfulfilled)", held=Held.NO, reason="Dependency")
    lost = after("afterok:17(failed)", held=Held.NO, reason="DependencyNeverSatisfied")
    for one, words in ((job, "waits for job 17 to end (afterok)"), (lost, "can never start: job 17 did not end well")):
        seen = view(one, facts={"20": JobFacts(released_at=AT - 10_000, ever_released=True)})
        assert plan(seen).actions == ()
        assert words in queue_rows(seen, plan(seen), {}, ())[0]["reason"]
        assert words in "; ".join(job_story(one, seen, None, (), ()))


def test_a_lost_dependency_is_told_with_the_next_step() -> None:
    """Slurm writes an administrator's hold over the user's when a dependency fails; that is nobody's wish."""
    for held in (Held.USER, Held.ADMIN):
        seen = view(batch(17, state=JobState.FAILED, held=Held.NO), after("afterok:17(failed)", held=held))
        text = note(seen) or ""
        assert text.startswith("can never start: job 17 did not end well (afterok); `scancel 20`")
        assert released(seen) == []
        assert "20" not in windows(seen)
    assert never(after("afterok:1(failed)?afterok:2(unfulfilled)")) is None
    assert never(after("afterok:1(failed)?afternotok:2(failed)")) is not None
    own = after("afterok:17(failed)", held=Held.ADMIN, checkpoint=Checkpoint(hold="user"))
    assert not waiting(own, JobFacts(), view().policy)
    assert not waiting(after("(null)", held=Held.ADMIN), JobFacts(), view().policy)


def test_a_begin_time() -> None:
    later = batch(20, begins=AT + 600)
    seen = view(later)
    assert released(seen) == []
    assert note(seen) == "waits for its begin time, in 600 s"
    assert released(view(batch(20, begins=AT - 1))) == ["20"]
    again = msgspec.structs.replace(later, restarts=1)
    assert begin_of(again, AT) is None, "after a requeue it is Slurm's own delay, which coloc cuts short"
    first, _ = windows(seen)["20"]
    assert first is None or first >= AT + 600


def test_an_array_that_lets_few_of_its_tasks_run() -> None:
    full = [batch(20, held=Held.NO, reason="JobArrayTaskLimit"), batch(20), batch(30)]
    jobs = [msgspec.structs.replace(job, ref=ref) for job, ref in zip(full, ("20_3", "20_4", "30_4"), strict=True)]
    seen = view(*jobs)
    assert released(seen) == ["30_4"]
    assert "as its owner lets run at once" in (note(seen, "20_4") or "")
