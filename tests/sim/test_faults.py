from collections.abc import Callable

import pytest

from coloc_topology.shape import quads
from colocd.core.view import JobState
from colocd.errors import SlurmRefused, SlurmUnknown, SlurmUnreachable
from colocd.sim.clock import VirtualClock
from colocd.sim.program import Program
from colocd.sim.slurm import VirtualSlurm
from colocd.slurm.port import JobUpdate, SlurmPort, Submission

JOB = Submission(name="x", script="#!/bin/sh\n", partition="batch", gpus=1, requeue=True)


@pytest.fixture
def slurm() -> VirtualSlurm:
    return VirtualSlurm(VirtualClock(1000.0), {"n1": quads()}, program_for=lambda job: Program(acks_after=1.0))


def test_before_and_after(slurm: VirtualSlurm) -> None:
    slurm.fault("submit", SlurmUnknown, "before")
    with pytest.raises(SlurmUnknown):
        slurm.submit(JOB)
    assert slurm.read().jobs == ()
    slurm.fault("submit", SlurmUnknown("lost the answer"), "after")
    with pytest.raises(SlurmUnknown, match="lost the answer"):
        slurm.submit(JOB)
    assert [job.state for job in slurm.read().jobs] == [JobState.RUNNING]
    assert slurm.submit(JOB) == "2", "a fault strikes once"


def test_times_and_condition(slurm: VirtualSlurm) -> None:
    one, two = slurm.submit(JOB), slurm.submit(JOB)
    slurm.fault("cancel", SlurmRefused, times=2, when=lambda args: args[0] == (two,))
    slurm.cancel([one])
    for _ in range(2):
        with pytest.raises(SlurmRefused):
            slurm.cancel([two])
    assert slurm.jobs([two])[two].state is JobState.RUNNING
    slurm.cancel([two])


def test_a_lost_signal(slurm: VirtualSlurm) -> None:
    ref = slurm.submit(JOB)
    slurm.fault("signal", effect="lost")
    for expected in (False, True):
        slurm.signal([ref], "USR1", "batch")
        slurm._clock.sleep(2.0)
        assert bool(slurm.jobs([ref])[ref].checkpoint) is expected


def test_readings_fail_too(slurm: VirtualSlurm) -> None:
    slurm.fault("read", SlurmUnreachable)
    with pytest.raises(SlurmUnreachable):
        slurm.read()
    assert len(slurm.read().nodes) == 1


def test_down_stops_every_call_and_not_the_cluster() -> None:
    clock = VirtualClock(1000.0)
    slurm = VirtualSlurm(clock, {"n1": quads()}, program_for=lambda job: Program(duration=10.0))
    port: SlurmPort = slurm
    ref = port.submit(JOB)
    slurm.down = True
    calls: tuple[Callable[[], object], ...] = (
        port.read,
        port.reservations,
        lambda: port.jobs([ref]),
        lambda: port.node("n1"),
        lambda: port.nodes(["n1"]),
        port.topology,
        lambda: port.find("x"),
        lambda: port.submit(JOB),
        lambda: port.hold([ref]),
        lambda: port.release([ref]),
        lambda: port.update(ref, JobUpdate(comment="x")),
        lambda: port.signal([ref], "USR1", "batch"),
        lambda: port.requeue([ref], hold=True),
        lambda: port.cancel([ref]),
        lambda: port.reserve("coloc-x", ["n1"], ["root"], 5),
        lambda: port.unreserve("coloc-x"),
    )
    for call in calls:
        with pytest.raises(SlurmUnreachable):
            call()
    clock.advance(20.0)
    slurm.down = False
    assert port.jobs([ref])[ref].state is JobState.DONE
    assert [call.name for call in slurm.calls].count("submit") == 2, "the journal has what was tried"


def test_hooks_see_each_change_before_and_after_it(slurm: VirtualSlurm) -> None:
    seen: list[tuple[str, str, int]] = []

    def note(when: str) -> Callable[[str, tuple[object, ...]], None]:
        return lambda name, args: seen.append((when, name, len(slurm.read().jobs)))

    slurm.on_call, slurm.after_call = note("before"), note("after")
    slurm.submit(JOB)
    slurm.jobs(["1"])
    assert seen == [("before", "submit", 0), ("after", "submit", 1)]
    assert [(c.name, c.args, c.at) for c in slurm.calls] == [("submit", (JOB,), 1000.0)]


def test_a_crash_in_a_hook_reaches_the_caller(slurm: VirtualSlurm) -> None:
    class Crash(BaseException):
        pass

    def crash(name: str, args: tuple[object, ...]) -> None:
        raise Crash

    slurm.on_call = crash
    with pytest.raises(Crash):
        slurm.submit(JOB)
    slurm.on_call, slurm.after_call = None, crash
    with pytest.raises(Crash):
        slurm.submit(JOB)
    assert len(slurm.read().jobs) == 1
