from tests.slurm.contract.harness import USER, Harness

from colocd.core.view import Held, JobState
from colocd.slurm.port import JobUpdate, Submission

R, P = JobState.RUNNING, JobState.PENDING


def test_hold_and_release(h: Harness) -> None:
    born_held = h.submit(gpus=1, held=True, nodes=("n2",))
    later = h.submit(gpus=8, nodes=("n1",), partition="batch")
    h.until_state(R, later)
    waiting = h.submit(gpus=8, nodes=("n1",))
    assert h.job(born_held).held is not Held.NO
    h.slurm.hold([waiting])
    assert (h.job(waiting).held, h.job(waiting).state) == (Held.ADMIN, P)
    h.slurm.cancel([later])
    h.until(lambda: h.slurm.node("n1").used == 0)
    h.back.advance(1.0)
    assert h.states([born_held, waiting]) == [P, P]
    h.slurm.release([born_held, waiting])
    h.until_state(R, born_held, waiting)
    assert h.job(waiting).held is Held.NO


def test_the_owner_holds(h: Harness) -> None:
    job = h.start(gpus=8, nodes=("n1",))
    ref = h.submit(gpus=1, nodes=("n1",))
    h.back.hold_by_user(USER, ref)
    h.until(lambda: h.job(ref).held is Held.USER)
    h.slurm.cancel([job])
    h.slurm.release([ref])
    h.until_state(R, ref)


def test_array_tasks_one_by_one(h: Harness) -> None:
    base = h.back.array("0-3", Submission(name="sweep", script="#!/bin/sh\n", partition="batch", gpus=1, user=USER))
    refs = [f"{base}_{task}" for task in range(4)]
    assert {job.ref for job in h.slurm.read().jobs if job.state is P} == set(refs)
    assert set(h.slurm.jobs(refs)) == set(refs)
    h.slurm.release([refs[1], refs[2]])
    h.until_state(R, refs[1], refs[2])
    assert h.states([refs[0], refs[3]]) == [P, P]
    masks = [h.mask(refs[1]), h.mask(refs[2])]
    assert masks[0] & masks[1] == 0
    h.slurm.release([base])
    h.until_state(R, *refs)
    h.slurm.requeue([refs[1]], hold=True)
    h.until_state(P, refs[1])
    assert h.job(refs[1]).held is Held.ADMIN
    assert h.states([refs[0], refs[2], refs[3]]) == [R, R, R]
    h.slurm.cancel([refs[0]])
    h.until_state(JobState.FAILED, refs[0])


def test_nice_goes_later(h: Harness) -> None:
    first = h.start(gpus=8, nodes=("n1",))
    refs = [h.submit(gpus=8, nodes=("n1",), held=True) for _ in range(2)]
    h.slurm.update(refs[0], JobUpdate(nice=1000))
    assert h.job(refs[0]).held is not Held.NO
    h.slurm.release(refs)
    h.slurm.cancel([first])
    h.until_state(R, refs[1])
    assert h.states([refs[0]]) == [P]


def test_the_higher_tier_goes_first(h: Harness) -> None:
    first = h.start(gpus=8, nodes=("n1",))
    low = h.submit(gpus=8, nodes=("n1",))
    high = h.submit(gpus=8, nodes=("n1",), partition="online")
    h.slurm.cancel([first])
    h.until_state(R, high)
    assert h.states([low]) == [P]


def test_a_small_job_fills_what_a_big_one_leaves(h: Harness) -> None:
    h.start(gpus=6, nodes=("n1",), time_limit=600.0)
    big = h.submit(gpus=4, nodes=("n1",), time_limit=600.0)
    small = h.submit(gpus=2, nodes=("n1",), time_limit=60.0)
    h.until_state(R, small)
    assert h.states([big]) == [P]


def test_pin_and_unpin(h: Harness) -> None:
    ref = h.submit(gpus=1, held=True)
    h.slurm.update(ref, JobUpdate(nodes=("n3",)))
    assert h.job(ref).required_nodes == ("n3",)
    h.slurm.release([ref])
    h.until_state(R, ref)
    assert set(h.job(ref).gpus or {}) == {"n3"}
    other = h.submit(gpus=1, held=True, nodes=("n4",))
    h.slurm.update(other, JobUpdate(nodes=()))
    assert h.job(other).required_nodes == ()


def test_refused(h: Harness) -> None:
    ended = h.submit(held=True)
    h.slurm.cancel([ended])
    h.until_state(JobState.FAILED, ended)
    ref = h.submit(held=True)
    for call in (h.slurm.hold, h.slurm.release):
        with h.refused():
            call(["99999"])
        with h.refused():
            call([ended])
    with h.refused():
        h.slurm.update("99999", JobUpdate(comment="x"))
    with h.refused():
        h.slurm.update(ended, JobUpdate(comment="x"))
    with h.refused():
        h.slurm.update(ref, JobUpdate(nodes=("n99",)))
    with h.refused():
        h.slurm.update(ref, JobUpdate(reservation="nosuch"))


def test_a_refusal_for_one_job_leaves_the_others_done(h: Harness) -> None:
    refs = [h.submit(held=True) for _ in range(2)]
    with h.refused():
        h.slurm.release([refs[0], "99999", refs[1]])
    h.until_state(R, *refs)
