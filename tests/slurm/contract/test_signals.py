import msgspec
import pytest
from tests.slurm.contract.harness import Harness

from colocd.core.view import JobState
from colocd.errors import SlurmRefused, SlurmUnreachable
from colocd.sim.program import ENDLESS, Program
from colocd.slurm.port import Submission

R, P = JobState.RUNNING, JobState.PENDING


@pytest.mark.parametrize("to", ["batch", "all"])
def test_a_job_saves_and_yields(h: Harness, to: str) -> None:
    ref = h.start(Program(acks_after=0.2), gpus=2, comment="[coloc v=1 signal=USR1 to=batch]")
    before = h.back.now()
    h.slurm.signal([ref], "USR1", to)
    facts = h.until(lambda: found if (found := h.job(ref).checkpoint) and found.yielded else None)
    assert facts.saved is not None
    assert facts.yielded is not None
    assert before - 1 <= facts.saved <= facts.yielded <= h.back.now()
    assert facts.signal in (None, "USR1")
    assert h.job(ref).state is R
    assert h.job(ref).gpus != {}


def test_those_who_do_not_listen(h: Harness) -> None:
    """An ignored signal, one to the steps of a job that has none, and one of two jobs that does not trap."""
    plain, deaf = h.submit(ENDLESS), h.start(Program(ignores=True))
    h.until_state(R, plain)
    h.slurm.signal([deaf], "USR1", "batch")
    h.slurm.signal([plain], "USR1", "steps")
    h.back.advance(1.0)
    assert h.states([deaf, plain]) == [R, R]
    h.slurm.signal([deaf, plain], "USR1", "batch")
    h.until_state(JobState.FAILED, plain)
    assert h.job(deaf).state is R
    assert h.job(deaf).checkpoint is None


def test_a_job_that_saves_and_ends(h: Harness) -> None:
    ref = h.start(Program(acks_after=0.1, exits_on_signal=True))
    h.slurm.signal([ref], "USR1", "batch")
    h.until_state(JobState.DONE, ref)
    facts = h.job(ref).checkpoint
    assert facts is not None
    assert facts.saved is not None


def test_signals_to_jobs_that_do_not_run(h: Harness) -> None:
    waiting, ended = h.submit(held=True), h.submit(Program(duration=0.0))
    h.until_state(JobState.DONE, ended)
    h.slurm.signal([waiting], "USR1", "batch")
    h.slurm.signal([], "USR1", "batch")
    for ref in (ended, "99999"):
        with h.refused():
            h.slurm.signal([ref], "USR1", "batch")
    assert h.states([waiting, ended]) == [P, JobState.DONE]


def test_submissions_that_are_refused(h: Harness) -> None:
    token = f"[coloc-own key=r{h.back.now():.0f}]"
    good = Submission(name="x", script="#!/bin/sh\n", partition="batch", comment=token)
    cases: tuple[dict[str, object], ...] = (
        {"partition": "nosuch"},
        {"gpus": 9},
        {"gpus": 1, "gpu_type": "b200"},
        {"nodes": ("n99",)},
        {"reservation": "nosuch"},
        {"script": "true\n"},
        {"user": "no-such-user"},
    )
    for case in cases:
        with pytest.raises(SlurmRefused):
            h.slurm.submit(msgspec.structs.replace(good, **case))
    # What no node can ever do leaves a failed job behind: whoever looks for an unknown submission must not take it for one.
    left = h.slurm.find(token)
    assert [(job.state, job.gpus, job.reason) for job in left] == [(JobState.FAILED, {}, "BadConstraints")] * 2


def test_a_typed_request(h: Harness) -> None:
    assert h.mask(h.start(gpus=2, gpu_type="h100", nodes=("n1",))).bit_count() == 2


def test_colocd_submits_as_itself(h: Harness) -> None:
    assert (h.job(ref := h.submit(user=None, held=True)).user, h.job(ref).uid) == ("root", 0)


def test_unreachable(h: Harness) -> None:
    slurm = h.back.unreachable()
    job = Submission(name="x", script="#!/bin/sh\n", partition="batch")
    for call in (slurm.reservations, lambda: slurm.submit(job), lambda: slurm.requeue(["1"], hold=True)):
        with pytest.raises(SlurmUnreachable):
            call()
