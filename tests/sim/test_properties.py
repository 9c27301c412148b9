"""Whatever is done to the virtual cluster: no GPU is given twice, fences hold, no job is lost, and it is deterministic."""

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coloc_topology.shape import quads
from colocd.core.view import JobState
from colocd.errors import SlurmRefused
from colocd.sim.clock import VirtualClock
from colocd.sim.program import Program
from colocd.sim.slurm import VirtualSlurm
from colocd.slurm.port import JobUpdate, Submission

NODES = ("n1", "n2")
FENCES = ("coloc-1", "coloc-2")
PROGRAMS = (
    Program(acks_after=1.0, dies_after=0.5),
    Program(acks_after=1.0, resumes_after=3.0, dies_after=9.0),
    Program(ignores=True, saves_on_term=True, dies_after=1.0),
    Program(acks_after=0.0, checkpoint_every=7.0, checkpoint_cost=0.5, startup=1.0),
)
nodes, fences = st.sampled_from(NODES), st.sampled_from(FENCES)
anyone = st.sampled_from(("ann", "bob"))


def cluster() -> tuple[VirtualClock, VirtualSlurm]:
    clock = VirtualClock(1_000_000.0)
    shapes = dict.fromkeys(NODES, quads())
    return clock, VirtualSlurm(clock, shapes, program_for=lambda job: PROGRAMS[int(job.name)])


class Cluster(RuleBasedStateMachine):
    """`slurm` is looked at after each step; its twin gets the same calls and is looked at only at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.clock, self.slurm = cluster()
        self.twin_clock, self.twin = cluster()
        self.refs: list[str] = []
        self.ended: set[str] = set()
        """Jobs that somebody has ended."""
        self.detached: set[str] = set()
        self.saved: dict[str, float] = {}

    def both(self, call: Callable[[VirtualSlurm], Any]) -> Any:
        """Do the same to both clusters, 10 ms after what came before."""
        answers = []
        for clock, slurm in ((self.clock, self.slurm), (self.twin_clock, self.twin)):
            clock.advance(0.01)
            try:
                answers.append(call(slurm))
            except SlurmRefused as error:
                answers.append(str(error))
        assert answers[0] == answers[1]
        return answers[0]

    def pick(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(self.refs))

    @initialize(sizes=st.lists(st.sampled_from((1, 1, 2, 4, 6)), min_size=4, max_size=14))
    def crowd(self, sizes: list[int]) -> None:
        """Start crowded: fences and freed GPUs mean little on an empty cluster."""
        for gpus in sizes:
            self.submit(gpus, 1, "batch", "ann", gpus % len(PROGRAMS), (), None, True, ())

    @rule(count=st.integers(1, 6))
    def backlog(self, count: int) -> None:
        for _ in range(count):
            self.submit(1, 1, "online", "bob", 0, (), None, True, ())

    @precondition(lambda self: self.slurm.reservations())
    @rule(data=st.data(), gpus=st.integers(1, 3))
    def insider(self, data: st.DataObject, gpus: int) -> None:
        resv = data.draw(st.sampled_from(self.slurm.reservations()))
        self.submit(gpus, 1, "online", resv.users[0], 0, (), resv.name, True, ())

    def submit(
        self,
        gpus: int,
        cpus: int,
        partition: str,
        user: str,
        program: int,
        pin: tuple[str, ...],
        fence: str | None,
        requeue: bool,
        more: tuple[str, ...],
    ) -> None:
        job = Submission(
            name=str(program),
            script="#!/bin/sh\n",
            partition=partition,
            user=user,
            gpus=gpus,
            cpus=cpus,
            nodes=pin,
            reservation=fence,
            requeue=requeue,
            options=more,
        )
        answer = self.both(lambda slurm: slurm.submit(job))
        if answer.isdigit():
            self.refs.append(answer)

    @rule(
        gpus=st.integers(0, 8),
        cpus=st.integers(1, 6),
        partition=st.sampled_from(("batch", "online")),
        user=anyone,
        program=st.integers(0, len(PROGRAMS) - 1),
        pin=st.sampled_from(((), ("n1",), ("n2",))),
        fence=st.none() | fences,
        requeue=st.booleans(),
        more=st.sampled_from(((), ("--nice=50",), ("--nodes=2",))),
    )
    def any_job(self, **facts: Any) -> None:
        self.submit(**facts)

    @rule(seconds=st.sampled_from((0.3, 1.0, 4.0, 20.0)))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.twin_clock.advance(seconds)

    @precondition(lambda self: self.refs)
    @rule(data=st.data(), hold=st.booleans())
    def requeue(self, data: st.DataObject, hold: bool) -> None:
        refs = [self.pick(data), self.pick(data)]
        alive = {ref for ref, job in self.slurm.jobs(refs).items() if job.state in (JobState.FAILED, JobState.DONE)}
        self.both(lambda slurm: slurm.requeue(refs, hold=hold))
        for ref, job in self.slurm.jobs(refs).items():
            if ref in alive and job.state is JobState.PENDING:
                self.ended.discard(ref)

    @precondition(lambda self: self.refs)
    @rule(
        data=st.data(), what=st.sampled_from(("hold", "release", "start", "pin", "unpin", "detach", "signal", "cancel"))
    )
    def change(self, data: st.DataObject, what: str) -> None:
        ref = self.pick(data)
        calls: dict[str, Callable[[VirtualSlurm], None]] = {
            "hold": lambda slurm: slurm.hold([ref]),
            "release": lambda slurm: slurm.release([ref]),
            "start": lambda slurm: slurm.update(ref, JobUpdate(start_now=True)),
            "pin": lambda slurm: slurm.update(ref, JobUpdate(nodes=("n2",))),
            "unpin": lambda slurm: slurm.update(ref, JobUpdate(nodes=())),
            "detach": lambda slurm: slurm.update(ref, JobUpdate(reservation="")),
            "signal": lambda slurm: slurm.signal([ref], "USR1", "batch"),
            "cancel": lambda slurm: slurm.cancel([ref]),
        }
        running = self.slurm.jobs([ref])[ref].state is JobState.RUNNING if ref in self.slurm.jobs([ref]) else False
        self.both(calls[what])
        if what == "cancel":
            self.ended.add(ref)
        if what == "detach" and running:
            self.detached.add(ref)

    @rule(name=fences, node=nodes, users=st.sets(anyone, min_size=1))
    def reserve(self, name: str, node: str, users: set[str]) -> None:
        self.both(lambda slurm: slurm.reserve(name, [node], sorted(users), 60))

    @rule(name=fences)
    def unreserve(self, name: str) -> None:
        self.both(lambda slurm: slurm.unreserve(name))

    @rule(node=nodes)
    def fail_node(self, node: str) -> None:
        here = [job for job in self.slurm.read().jobs if job.state in (JobState.RUNNING, JobState.COMPLETING)]
        self.both(lambda slurm: slurm.fail_node(node))
        after = self.slurm.jobs([job.ref for job in here])
        self.ended |= {ref for ref, job in after.items() if job.state is JobState.FAILED and job.reason == "NodeDown"}

    @rule(node=nodes, drained=st.booleans())
    def operate(self, node: str, drained: bool) -> None:
        self.both(lambda slurm: slurm.drain(node) if drained else slurm.resume(node))

    @invariant()
    def gpus_and_cores_are_given_once(self) -> None:
        found = self.slurm.read()
        for node in found.nodes:
            total = 0
            for job in found.jobs:
                mask = (job.gpus or {}).get(node.name, 0)
                assert total & mask == 0
                total |= mask
            assert node.used == total
            assert node.cpus_used is not None
            assert node.cpus_used <= 16
        running = [job for job in found.jobs if job.state is JobState.RUNNING]
        assert sum(node.cpus_used or 0 for node in found.nodes) == sum(job.cpus_requested for job in running)
        for job in found.jobs:
            if job.state is JobState.RUNNING and job.gpus_requested:
                assert job.gpus is not None
                assert {mask.bit_count() for mask in job.gpus.values()} == {job.gpus_per_node}
                assert len(job.gpus) == job.nodes_requested
                assert set(job.required_nodes) <= set(job.gpus)

    @invariant()
    def fences_hold(self) -> None:
        found = self.slurm.read()
        for resv in found.reservations:
            assert resv.starts is not None
            for job in found.jobs:
                if job.ref in self.detached or job.state is not JobState.RUNNING or not job.gpus:
                    continue
                assert job.started is not None
                if job.started > resv.starts and set(resv.nodes) & set(job.gpus):
                    assert job.reservation == resv.name
                    assert job.user in resv.users

    @invariant()
    def nobody_waits_beside_free_gpus(self) -> None:
        """A job of one GPU, one core and no wishes starts wherever there is room."""
        found = self.slurm.read()
        room = [
            n.name
            for n in found.nodes
            if n.free and n.cpus_used != 16 and n.fence is None and "completing" not in n.state
        ]
        for job in found.jobs:
            plain = (job.gpus_requested, job.cpus_requested, job.required_nodes, job.reservation) == (1, 1, (), None)
            assert not (room and plain and job.state is JobState.PENDING and job.reason == "Resources")

    @invariant()
    def no_job_and_no_saved_work_is_lost(self) -> None:
        found = {job.ref: job for job in self.slurm.read().jobs}
        for ref in self.refs:
            if ref in self.ended:
                continue
            assert ref in found
            assert found[ref].state in (JobState.PENDING, JobState.RUNNING, JobState.COMPLETING)
            work = self.slurm.work(ref)
            assert work.saved >= self.saved.get(ref, 0.0)
            assert work.done >= work.saved
            self.saved[ref] = work.saved

    def teardown(self) -> None:
        """Looking changes nothing: the twin, not looked at until now, has got to the same state."""
        assert self.twin.read() == self.slurm.read()


Cluster.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestCluster = Cluster.TestCase
