"""Programs: the work that is done, saved and lost."""

import pytest

from coloc_topology.shape import quads
from colocd.core.comment import parse_comment
from colocd.core.view import Checkpoint, Held, Job, JobState
from colocd.sim.clock import VirtualClock
from colocd.sim.program import Program
from colocd.sim.slurm import VirtualSlurm
from colocd.slurm.port import JobUpdate, Submission


class Bench:
    """One node, one program."""

    def __init__(self, program: Program, **job: object) -> None:
        self.clock = VirtualClock(1_000.0)
        self.slurm = VirtualSlurm(self.clock, {"n1": quads()}, program_for=lambda job: program)
        facts = {"partition": "batch", "requeue": True, "gpus": 8, **job}
        self.ref = self.slurm.submit(Submission(name="x", script="#!/bin/sh\n", **facts))  # type: ignore[arg-type]

    def after(self, seconds: float) -> Job:
        self.clock.advance(seconds)
        return self.slurm.jobs([self.ref])[self.ref]

    def work(self) -> tuple[float, float, float]:
        found = self.slurm.work(self.ref)
        assert found.worked == found.done + found.lost
        return found.done, found.saved, found.lost

    def restart(self) -> None:
        self.slurm.release([self.ref])
        self.slurm.update(self.ref, JobUpdate(start_now=True))
        assert self.after(0.0).state is JobState.RUNNING


def test_yield_requeue_and_go_on_loses_nothing() -> None:
    bench = Bench(
        Program(duration=100.0, acks_after=3.0, dies_after=1.0), comment="mine [coloc v=1 signal=USR1 to=batch]"
    )
    bench.after(40.0)
    bench.slurm.signal([bench.ref], "USR1", "batch")
    assert bench.after(2.9).checkpoint == Checkpoint(signal="USR1")
    job = bench.after(0.1)
    assert job.checkpoint == Checkpoint(signal="USR1", saved=1043.0, yielded=1043.0)
    assert job.comment.startswith("mine ")
    assert bench.after(60.0).state is JobState.RUNNING, "it waits for its GPUs to be taken"
    bench.slurm.requeue([bench.ref], hold=True)
    assert bench.after(0.9).state is JobState.COMPLETING
    assert bench.after(0.1).state is JobState.PENDING
    assert bench.work() == (40.0, 40.0, 0.0)
    bench.restart()
    assert bench.after(59.9).state is JobState.RUNNING
    assert bench.after(0.1).state is JobState.DONE
    assert bench.work() == (100.0, 100.0, 0.0)


def test_a_requeue_without_checkpoint_loses_the_run() -> None:
    bench = Bench(Program(duration=100.0))
    bench.after(70.0)
    bench.slurm.requeue([bench.ref], hold=True)
    assert bench.after(0.0).state is JobState.PENDING
    assert bench.work() == (0.0, 0.0, 70.0)
    bench.restart()
    assert bench.after(100.0).state is JobState.DONE
    assert bench.slurm.work(bench.ref).worked == 170.0


def test_what_is_saved_after_a_loss_is_only_what_is_there() -> None:
    bench = Bench(Program(acks_after=0.0))
    bench.after(10.0)
    bench.slurm.requeue([bench.ref], hold=True)
    bench.after(0.0)
    bench.restart()
    bench.after(5.0)
    bench.slurm.signal([bench.ref], "USR1", "batch")
    bench.after(0.0)
    assert bench.work() == (5.0, 5.0, 10.0)


def test_its_own_checkpoints_bound_the_loss() -> None:
    bench = Bench(Program(checkpoint_every=10.0, checkpoint_cost=2.0, startup=5.0))
    job = bench.after(35.0)
    assert parse_comment(job.comment) == Checkpoint(saved=1029.0)
    assert bench.work() == (26.0, 20.0, 0.0)
    bench.slurm.cancel([bench.ref])
    assert bench.after(0.0).state is JobState.FAILED
    assert bench.work() == (20.0, 20.0, 6.0)


def test_saving_on_term_only_helps_when_there_is_time() -> None:
    for dies_after, lost in ((4.0, 0.0), (60.0, 30.0)):
        bench = Bench(Program(saves_on_term=True, dies_after=dies_after))
        bench.after(30.0)
        bench.slurm.requeue([bench.ref], hold=True)
        assert bench.after(5.0).state is JobState.PENDING, "KILL at the latest"
        assert bench.work()[2] == lost


def test_a_yielded_program_may_go_on_by_itself() -> None:
    bench = Bench(Program(duration=50.0, acks_after=0.0, resumes_after=20.0))
    bench.after(10.0)
    bench.slurm.signal([bench.ref], "USR1", "all")
    bench.after(19.0)
    assert bench.work()[0] == 10.0
    assert bench.after(40.9).state is JobState.RUNNING
    assert bench.after(0.1).state is JobState.DONE


@pytest.mark.parametrize(
    ("program", "signal", "to", "state"),
    [
        (Program(), "USR1", "batch", JobState.FAILED),
        (Program(), "USR1", "all", JobState.FAILED),
        (Program(), "USR1", "steps", JobState.RUNNING),
        (Program(), "CONT", "batch", JobState.RUNNING),
        (Program(ignores=True), "USR1", "batch", JobState.RUNNING),
        (Program(ignores=True), "USR2", "batch", JobState.FAILED),
        (Program(exits_on_signal=True), "USR1", "batch", JobState.DONE),
        (Program(exits_on_signal=True, exit_code=85), "USR1", "batch", JobState.FAILED),
        (Program(acks_after=0.0, reacts_to=("steps",)), "USR1", "batch", JobState.FAILED),
        (Program(signal="TERM", acks_after=0.0), "TERM", "batch", JobState.RUNNING),
        (Program(dies_after=0.5), "TERM", "batch", JobState.FAILED),
    ],
)
def test_answers_to_signals(program: Program, signal: str, to: str, state: JobState) -> None:
    bench = Bench(program)
    bench.after(1.0)
    bench.slurm.signal([bench.ref], signal, to)
    assert bench.after(1.0).state is state


def test_time_limit() -> None:
    bench = Bench(Program(dies_after=2.0), time_limit=61.0)
    assert bench.after(119.9).state is JobState.RUNNING
    assert bench.after(0.1).state is JobState.COMPLETING
    job = bench.after(2.0)
    assert (job.state, job.reason, job.ends) == (JobState.FAILED, "TimeLimit", 1122.0)


def test_ended_jobs_are_forgotten() -> None:
    bench = Bench(Program(duration=1.0))
    bench.after(300.0)
    assert bench.slurm.read().jobs
    bench.clock.advance(1.0)
    assert bench.slurm.read().jobs == ()


def test_a_revived_job_is_not_forgotten() -> None:
    bench = Bench(Program(duration=1.0))
    bench.after(200.0)
    bench.slurm.requeue([bench.ref], hold=True)
    assert bench.after(1000.0).held is Held.ADMIN


def test_end_of_a_reservation() -> None:
    """Those who run inside are ended, those who wait inside are held; the detached one goes on."""
    bench = Bench(Program(), gpus=1, user="ann")
    bench.slurm.reserve("coloc-x", ["n1"], ["ann"], 5)

    def inside(gpus: int) -> str:
        job = Submission(
            name="y", script="#!/bin/sh\n", partition="batch", user="ann", gpus=gpus, reservation="coloc-x"
        )
        return bench.slurm.submit(job)

    stays, ends, waits = inside(1), inside(1), inside(8)
    bench.slurm.update(stays, JobUpdate(reservation=""))
    bench.after(300.0)
    found = bench.slurm.jobs([bench.ref, stays, ends, waits])
    assert [job.state.value for job in found.values()] == ["running", "running", "failed", "pending"]
    assert (found[waits].held, found[waits].reservation) == (Held.ADMIN, None)
    assert bench.slurm.reservations() == ()


def test_a_jump_of_the_wall_clock_does_not_end_jobs() -> None:
    bench = Bench(Program(duration=100.0), time_limit=3600.0)
    bench.after(1.0)
    bench.clock.jump(86400.0)
    assert bench.after(98.9).state is JobState.RUNNING
    assert bench.after(0.1).state is JobState.DONE


def test_typed_gpus_and_jobs_on_several_nodes() -> None:
    types = ("a",) * 4 + ("b",) * 4
    slurm = VirtualSlurm(VirtualClock(0.0), {"n1": quads(), "n2": quads()}, types={"n1": types, "n2": types})
    job = Submission(name="x", script="#!/bin/sh\n", partition="batch", gpus=2, gpu_type="b", options=("--nodes=2",))
    ref = slurm.submit(job)
    found = slurm.jobs([ref])[ref]
    assert found.gpus == {"n1": 0b110000, "n2": 0b110000}
    assert (found.nodes_requested, found.gpus_requested, found.gpus_per_node) == (2, 4, 2)
    assert slurm.node("n1").types == types
