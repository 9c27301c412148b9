import pytest
from tests.slurm.contract.harness import OTHER, USER, Harness

from colocd.core.view import Held, JobState
from colocd.errors import SlurmRefused
from colocd.sim.program import Program
from colocd.slurm.port import JobUpdate

R, P = JobState.RUNNING, JobState.PENDING


def test_two_victims_requeued_and_held_in_one_call(h: Harness) -> None:
    *refs, stays = h.start_all(4, 2, 2)
    before = h.job(refs[0])
    h.back.advance(1.0)
    h.slurm.requeue(refs, hold=True)
    h.until_state(P, *refs)
    for job in h.slurm.jobs(refs).values():
        assert (job.held, job.restarts, job.gpus, job.started) == (Held.ADMIN, 1, {}, None)
    after = h.job(refs[0])
    assert before.submitted is not None
    assert after.submitted is not None
    assert after.submitted > before.submitted, "Slurm sets it anew"
    assert h.slurm.node("n1").used == h.mask(stays)
    assert h.states([stays]) == [R]
    h.back.advance(2.0)  # Slurm fails a job that starts in the second of its requeue ("job credential revoked")
    h.slurm.release(refs)
    assert {job.held for job in h.slurm.jobs(refs).values()} == {Held.NO}
    for ref in refs:
        h.slurm.update(ref, JobUpdate(start_now=True))
    h.until_state(R, *refs)
    assert {job.restarts for job in h.slurm.jobs(refs).values()} == {1}


def test_nothing_starts_on_a_node_where_a_job_still_dies(h: Harness) -> None:
    """Slurm counts the GPUs as free at once, and leaves the whole node alone until the processes have gone."""
    dying = h.start(Program(dies_after=2.5), gpus=3, nodes=("n1",))
    waiting = h.submit(gpus=6, nodes=("n1",), name="waiting", partition="online")
    h.slurm.requeue([dying], hold=True)
    small = h.submit(gpus=1, nodes=("n1",), name="small", partition="online")
    job = h.until(lambda: found if (found := h.job(dying)).state is JobState.COMPLETING else None)
    assert (job.gpus, job.restarts, job.held) == (None, 1, Held.NO)
    node = h.slurm.node("n1")
    assert (node.used, node.up) == (0, True)
    h.back.advance(1.0)
    assert h.states([dying, waiting, small]) == [JobState.COMPLETING, P, P]
    h.until_state(R, waiting, small)
    assert h.job(dying).state is P
    assert h.job(dying).held is Held.ADMIN


def test_kill_comes_after_kill_wait(h: Harness) -> None:
    ref = h.start(Program(dies_after=60.0), gpus=1)
    h.slurm.cancel([ref])
    h.until(lambda: h.job(ref).state is JobState.COMPLETING)
    h.until(lambda: h.job(ref).state is JobState.FAILED, timeout=9.0)


def test_requeue_without_hold_waits_for_its_delay(h: Harness) -> None:
    ref = h.start(gpus=1)
    h.slurm.requeue([ref], hold=False)
    h.until_state(P, ref)
    assert (h.job(ref).held, h.job(ref).restarts) == (Held.NO, 1)
    h.back.advance(2.0)
    assert h.job(ref).state is P
    h.until_state(R, ref)


def test_who_may_not_be_requeued(h: Harness) -> None:
    ref = h.start(gpus=1, requeue=False)
    waiting = h.submit(held=True)
    for hold in (True, False):
        with h.refused():
            h.slurm.requeue([ref], hold=hold)
        with h.refused():
            h.slurm.requeue([waiting], hold=hold)
        with h.refused():
            h.slurm.requeue(["99999"], hold=hold)
    assert h.job(ref).state is R
    h.slurm.update(ref, JobUpdate(requeue=True))
    h.slurm.requeue([ref], hold=True)
    h.until_state(P, ref)


def test_a_job_that_has_ended_is_revived(h: Harness) -> None:
    """A surprise of Slurm's that every requeue must reckon with: a victim may end just before it."""
    ref = h.submit(Program(duration=0.1))
    h.until_state(JobState.DONE, ref)
    h.slurm.requeue([ref], hold=True)
    job = h.job(ref)
    assert (job.state, job.held, job.restarts) == (P, Held.ADMIN, 1)


def test_hold_of_a_running_job_counts_after_its_requeue(h: Harness) -> None:
    ref = h.start(gpus=1)
    h.slurm.hold([ref])
    assert (h.job(ref).state, h.job(ref).held) == (R, Held.NO)
    h.slurm.requeue([ref], hold=False)
    h.until_state(P, ref)
    assert h.job(ref).held is Held.ADMIN


def test_cancel(h: Harness) -> None:
    running, waiting = h.start(gpus=1), h.submit(held=True)
    h.slurm.cancel([running, waiting])
    h.until_state(JobState.FAILED, running, waiting)
    h.slurm.cancel([running, waiting])
    h.slurm.cancel(["99999"])
    h.slurm.cancel([])
    assert h.states([running, waiting]) == [JobState.FAILED, JobState.FAILED]


def test_comments_belong_to_owner_and_operator(h: Harness) -> None:
    ref = h.submit(held=True, comment="old")
    h.back.comment_by(USER, ref, "by owner")
    assert h.job(ref).comment == "by owner"
    with pytest.raises(SlurmRefused, match="user id"):
        h.back.comment_by(OTHER, ref, "by somebody")
    text = "quote \" ' $(id) [coloc v=1 signal=USR2 to=all]"
    h.slurm.update(ref, JobUpdate(comment=text))
    assert h.job(ref).comment == text
    h.slurm.update(ref, JobUpdate(comment=""))
    assert h.job(ref).comment == ""


def test_a_node_that_fails(h: Harness) -> None:
    ref, dear = h.submit(gpus=1, nodes=("n4",)), h.submit(gpus=1, nodes=("n4",), requeue=False)
    h.until_state(R, ref, dear)
    h.back.fail_node("n4")
    h.until_state(JobState.FAILED, dear)
    h.until_state(P, ref)
    assert (h.job(ref).restarts, h.job(ref).held) == (1, Held.NO)
    h.until(lambda: not h.slurm.node("n4").up)
    assert h.slurm.node("n4").free == 0
    h.back.resume("n4")
    h.until(lambda: h.slurm.node("n4").up)
    h.until_state(R, ref)


def test_a_drained_node_takes_nothing_new(h: Harness) -> None:
    ref = h.start(gpus=1, nodes=("n3",))
    h.back.drain("n3")
    waiting = h.submit(gpus=1, nodes=("n3",))
    h.until(lambda: not h.slurm.node("n3").up)
    h.back.advance(1.0)
    assert h.states([ref, waiting]) == [R, P]
    h.back.resume("n3")
    h.until_state(R, waiting)
