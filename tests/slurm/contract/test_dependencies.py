"""What a job depends on, while it is held and after it was released."""

from tests.slurm.contract.harness import USER, Harness

from colocd.core.dependencies import Dependencies, never, waits_for
from colocd.core.view import Held, JobState
from colocd.sim.program import Program
from colocd.slurm.port import Submission

R, P = JobState.RUNNING, JobState.PENDING


def job(name: str) -> Submission:
    return Submission(name=name, script="#!/bin/sh\n", partition="batch", gpus=1, user=USER)


def test_a_held_job_tells_what_it_waits_for(h: Harness) -> None:
    first = h.start(gpus=1, name="first")
    tasks = h.back.array("1-2", job("tasks"))
    refs = {
        words: h.back.held([words], job("then"))
        for words in (
            f"--dependency=afterok:{first}",
            f"--dependency=afternotok:{first},afterany:{tasks}_2",
            f"--dependency=after:{first}+5?afterany:{tasks}_1",
            "--dependency=singleton",
            "--begin=now+300",
            "--nice=1",
        )
    }
    found = {job.ref: job for job in h.slurm.read().jobs}
    assert found[first].dependency is None
    ok, several, either, alone, later, plain = (found[ref] for ref in refs.values())
    assert {job.held for job in (ok, several, either, alone, later, plain)} == {Held.USER}
    assert ok.dependency == f"afterok:{first}(unfulfilled)"
    assert waits_for(ok) == f"job {first} to end (afterok)"
    assert several.dependency == f"afterany:{tasks}_2(unfulfilled),afternotok:{first}(unfulfilled)"
    assert either.dependency == f"after:{first}+5(unfulfilled)?afterany:{tasks}_1(unfulfilled)"
    assert alone.dependency == "singleton(unfulfilled)"
    assert (later.dependency, plain.dependency) == (None, None)
    assert later.begins is not None
    assert abs(later.begins - h.back.now() - 300) < 10
    told = Dependencies(tuple(found.values()), h.back.now())
    assert [told.keeps(job) is None for job in (ok, several, either, alone, plain)] == [False] * 4 + [True]
    assert "begin time" in (told.keeps(later) or "")


def test_a_released_job_waits_until_it_may(h: Harness) -> None:
    first = h.start(Program(duration=4.0), gpus=1)
    second = h.back.held([f"--dependency=afterok:{first}"], job("second"))
    third = h.back.held([f"--dependency=afternotok:{first}"], job("third"))
    h.slurm.release([second, third])
    h.until(lambda: h.job(second).reason == "Dependency")
    assert h.job(second).held is Held.NO
    assert never(h.job(third)) is None
    h.until_state(JobState.DONE, first)
    h.until_state(R, second)
    assert h.job(second).dependency is None
    h.until(lambda: h.job(third).reason == "DependencyNeverSatisfied")
    assert h.states([third]) == [P]
    assert f"job {first} did not fail" in (never(h.job(third)) or "")


def test_what_the_view_shows_is_enough_for_slurm(h: Harness) -> None:
    """Slurm looks at held jobs once a minute: coloc releases as soon as it sees the end itself, and Slurm agrees."""
    first = h.start(Program(duration=3.0), gpus=1)
    second = h.back.held([f"--dependency=afterok:{first}"], job("second"))
    assert not Dependencies(h.slurm.read().jobs, h.back.now()).fulfilled(h.job(second))
    h.until_state(JobState.DONE, first)
    assert Dependencies(h.slurm.read().jobs, h.back.now()).fulfilled(h.job(second))
    h.slurm.release([second])
    h.until_state(R, second)
