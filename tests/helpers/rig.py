"""A handover rig on the virtual cluster: four nodes of two quads, a real SQLite store, one service, batch jobs."""

import itertools
from collections.abc import Callable
from pathlib import Path

from coloc_topology.shape import quads
from colocd.act.actor import Actor
from colocd.act.handover import HandoverMachine
from colocd.act.tools import Tools
from colocd.core.comment import with_checkpoint
from colocd.core.policy import Policy
from colocd.core.service import Capacity, Load, ServiceSpec
from colocd.core.view import Checkpoint, Job, JobState
from colocd.sim.clock import VirtualClock
from colocd.sim.program import Program
from colocd.sim.slurm import VirtualSlurm
from colocd.slurm.port import Submission
from colocd.store import open_store
from colocd.store.records import OPEN_STATES, Handover, HandoverState
from colocd.store.schema import upgrade
from colocd.store.sql import SqlStore

SERVICE = ServiceSpec(
    name="chat",
    user="svc",
    partition="online",
    script="#!/bin/sh\nexec sleep 1000\n",
    gpus_per_replica=2,
    capacity=Capacity(per_replica=10.0),
    load=Load(url="http://{address}:{port}/metrics"),
    max_replicas=8,
)
POLICY = Policy(grace=30.0, start_timeout=60.0, protected_runtime=0.0, retry_after=20.0)
OBEDIENT = Program(signal="USR1", acks_after=1.0)


class Rig:
    """Everything but the cycle. `restart()` builds the acting side anew on the same store, as a new process would."""

    def __init__(self, folder: Path, service: ServiceSpec = SERVICE, **cluster: object) -> None:
        self.clock = VirtualClock(1_760_000_000.0)
        self.programs: dict[str, Program] = {}
        self.shape = quads()
        self.slurm = VirtualSlurm(
            self.clock,
            {f"n{i}": self.shape for i in range(1, 5)},
            program_for=lambda job: self.programs.get(job.name, Program()),
            sched_delay=0.1,
            **cluster,  # type: ignore[arg-type]
        )
        self.url = f"sqlite:///{folder}/coloc.db"
        upgrade(self.url)
        self.service: ServiceSpec | None = service
        self.numbers = itertools.count()
        self.store: SqlStore = None  # type: ignore[assignment]
        self.restart()

    def restart(self) -> None:
        if self.store is not None:
            self.store.close()
        self.store = open_store(self.url)
        self.tools = Tools(
            slurm=self.slurm,
            store=self.store,
            clock=self.clock,
            policy=POLICY,
            user="root",
            spec=lambda name: self.service,
            shape=lambda node: self.shape,
        )
        self.tools.ledger.settle_leftovers()
        self.machine = HandoverMachine(self.tools)
        self.actor = Actor(self.tools, lambda: f"key{next(self.numbers):05d}")

    def batch(
        self, name: str, gpus: int, node: str = "n1", program: Program = OBEDIENT, signal: str | None = "USR1"
    ) -> str:
        self.programs[name] = program
        ref = self.slurm.submit(
            Submission(
                name=name,
                script="#!/bin/sh\ntrue\n",
                partition="batch",
                user="ann",
                gpus=gpus,
                nodes=(node,),
                requeue=True,
                comment=with_checkpoint("", Checkpoint(signal=signal, to="batch")),
            )
        )
        self.clock.advance(1.0)
        return ref

    def others(self, count: int, gpus: int = 1, node: str = "n1", partition: str = "online") -> list[str]:
        """A backlog of somebody else's jobs."""
        return [
            self.slurm.submit(
                Submission(
                    name="other", script="#!/bin/sh\n", partition=partition, user="bob", gpus=gpus, nodes=(node,)
                )
            )
            for _ in range(count)
        ]

    def job(self, ref: str) -> Job:
        return self.slurm.jobs([ref])[ref]

    def mask(self, ref: str, node: str = "n1") -> int:
        return (self.job(ref).gpus or {}).get(node, 0)

    def start(
        self, want: int | dict[str, int], victims: tuple[str, ...] = (), node: str = "n1", level: str = "NVLINK"
    ) -> Handover:
        now = self.clock.now()
        return self.store.add_handover(
            Handover(
                service="chat",
                slot=0,
                places={node: want} if isinstance(want, int) else want,
                level=level,
                victims=victims,
                created_at=now,
                updated_at=now,
                data={"key": f"key{next(self.numbers):05d}", "t": {"planned": now}},
            )
        )

    def step(self, number: int) -> Handover:
        handover = self.store.handover(number)
        assert handover is not None
        return self.machine.run(handover)

    def drive(
        self,
        h: Handover,
        seconds: float = 200.0,
        until: Callable[[Handover], bool] = lambda h: h.state not in OPEN_STATES,
    ) -> Handover:
        """Step every 0.2 s until the handover ends (or `until`); fails when it does not."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            h = self.step(h.id)
            if until(h):
                return h
            self.clock.advance(0.2)
        raise AssertionError(f"handover is still {h.state}: {h.data}")

    def leftovers(self) -> list[str]:
        """Fences and plugs that are still there."""
        alive = (JobState.PENDING, JobState.RUNNING, JobState.CONFIGURING)
        plugs = [j.ref for j in self.slurm.read().jobs if j.name == "coloc-plug" and j.state in alive]
        return [r.name for r in self.slurm.reservations()] + plugs

    def replicas(self) -> list[Job]:
        """Running replica jobs."""
        return [j for j in self.slurm.read().jobs if j.name.startswith("coloc-chat") and j.state is JobState.RUNNING]

    def assert_good(self, h: Handover, victims: tuple[str, ...] = ()) -> None:
        """One replica on good GPUs, detached; victims held and not lost; nothing left behind."""
        assert h.state is HandoverState.RELEASED, h.data
        (replica,) = self.replicas()
        assert replica.reservation is None
        assert set(replica.gpus or {}) == set(h.places)
        for node, mask in (replica.gpus or {}).items():
            assert self.tools.table(node).level_of(mask) == 6  # type: ignore[union-attr]
        assert self.leftovers() == []
        for ref in victims:
            job = self.job(ref)
            assert job.state is JobState.PENDING
            assert job.restarts == 1
