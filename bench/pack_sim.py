"""A small cluster through some days of tide: what a placement rule for batch jobs costs when the services come back.

Each step is one cycle of the planner. Replicas start, victims go and jobs start at once: what is compared is where jobs sit, not
how long a handover takes. The GPUs within a node are given by the virtual cluster's model of Slurm; the planner does not see it.
"""

import math
import random
from typing import NamedTuple

import msgspec

from coloc_topology.shape import Shape
from colocd.core.actions import Drain, Place, Release
from colocd.core.index import PlannerIndex
from colocd.core.plan import plan
from colocd.core.policy import Policy
from colocd.core.service import Capacity, Load, ServiceSpec
from colocd.core.view import (
    Checkpoint,
    Forecast,
    Held,
    Job,
    JobFacts,
    JobState,
    Node,
    Quantiles,
    Reading,
    Replica,
    ReplicaState,
    ServiceView,
    View,
)  # fmt: skip
from colocd.sim.gpus import Free, GpuChoice, sockets_of

DAY = 86_400.0
STEP = 180.0
START = 1_760_054_400.0
CPUS = 128


class Kind(NamedTuple):
    """A kind of batch job: share of the submissions, GPUs a node, nodes, seconds between checkpoints (None: it never saves)."""

    share: float
    gpus: int
    interval: float | None
    nodes: int = 1
    hours: tuple[float, float] = (1.0, 8.0)


class Tide(NamedTuple):
    """A service: GPUs a replica, link level, fewest and most replicas, hour of its peak."""

    name: str
    gpus: int
    level: str
    low: int
    high: int
    peak: float


class Outcome(NamedTuple):
    """What happened after the warm-up: `lost` in GPU-seconds since each victim's last checkpoint; `done` in GPU-hours kept."""

    reclaims: int
    starts: int
    victims: int
    lost: float
    taken: int
    asked: int
    used: float
    served: float


def curve(tide: Tide, at: float) -> float:
    """Replicas' worth of load at a time."""
    phase = math.cos((at - START - tide.peak * 3600) / DAY * 2 * math.pi)
    return tide.low + (tide.high - tide.low) * (0.5 + 0.5 * phase) ** 1.5 - 0.01


def service(tide: Tide, at: float, replicas: tuple[Replica, ...], low_since: float | None) -> ServiceView:
    """A service with a forecast that is right, its upper quantiles a tenth above."""
    points = []
    for i in range(1, 97):
        value = curve(tide, at + i * DAY / 96)
        points.append(Quantiles(i * DAY / 96, {"0.5": value, "0.9": value * 1.06, "0.95": value * 1.1}))
    spec = ServiceSpec(
        name=tide.name, user="svc", partition="online", script="#!/bin/sh\n", gpus_per_replica=tide.gpus,
        capacity=Capacity(per_replica=1.0, target_use=1.0), load=Load(url="http://{address}:{port}/metrics"),
        link_level=tide.level, min_replicas=tide.low, max_replicas=tide.high + 1, lead_time=300.0,
    )  # type: ignore[arg-type]  # fmt: skip
    foreseen = Forecast(points=tuple(points), step=DAY / 96, trust=1.0, basis="the curve")
    return ServiceView(
        spec=spec, replicas=replicas, load=Reading(curve(tide, at), at), forecast=foreseen, low_since=low_since
    )


class Sim:
    """One run. `mix`: kinds of jobs; `choice`: Slurm's habit on this site."""

    def __init__(
        self, nodes: int, shape: Shape, mix: tuple[Kind, ...], tides: tuple[Tide, ...], choice: GpuChoice, seed: int
    ) -> None:
        self.rng = random.Random(seed)
        self.shape, self.mix, self.tides, self.choice = shape, mix, tides, choice
        self.sockets = sockets_of(shape, CPUS)
        self.names = [f"n{i:03d}" for i in range(nodes)]
        self.used = dict.fromkeys(self.names, 0)
        self.cores = dict.fromkeys(self.names, 0)
        self.jobs: dict[str, Job] = {}
        self.facts: dict[str, JobFacts] = {}
        self.left: dict[str, float] = {}
        self.held_cores: dict[str, dict[str, int]] = {}
        self.replicas: dict[str, dict[int, Replica]] = {t.name: {} for t in tides}
        self.low_since: dict[str, float | None] = dict.fromkeys(self.replicas)
        self.at, self.number = START, 0
        self.index = PlannerIndex()
        self.policy = Policy(eviction_cost=600.0, max_evictions_per_job=3)

    def submit(self) -> None:
        """Keep a backlog of held jobs."""
        waiting = sum(j.state is JobState.PENDING for j in self.jobs.values())
        for _ in range(30 - waiting):
            kind = self.rng.choices(self.mix, [k.share for k in self.mix])[0]
            self.number += 1
            ref = str(self.number)
            self.jobs[ref] = Job(
                ref=ref, user=f"u{self.rng.randrange(20)}", name=ref, partition="batch", state=JobState.PENDING,
                gpus_requested=kind.gpus * kind.nodes, gpus_per_node=kind.gpus, nodes_requested=kind.nodes,
                cpus_requested=4 * kind.gpus * kind.nodes, submitted=self.at, held=Held.USER,
                checkpoint=Checkpoint(signal="USR1", interval=kind.interval, cost=60.0),
            )  # fmt: skip
            self.left[ref] = self.rng.uniform(*kind.hours) * 3600

    def view(self) -> View:
        """The cluster as the planner sees it."""
        nodes = tuple(
            Node(
                name=n, address="127.0.0.1", up=True, gpus=self.shape.gpus, used=self.used[n], shape=self.shape.name,
                partitions=("batch", "online"), cpus=CPUS, cpus_used=self.cores[n].bit_count(),
            )
            for n in self.names
        )  # fmt: skip
        services = []
        for tide in self.tides:
            mine = tuple(self.replicas[tide.name].values())
            over = len(mine) > math.ceil(curve(tide, self.at))
            self.low_since[tide.name] = (self.low_since[tide.name] or self.at) if over else None
            services.append(service(tide, self.at, mine, self.low_since[tide.name]))
        return View(
            at=self.at, mode="act", policy=self.policy, shapes={self.shape.name: self.shape}, nodes=nodes,
            jobs=tuple(self.jobs.values()), facts=dict(self.facts), services=tuple(services),
        )  # fmt: skip

    def run(self, days: float, warm: float) -> Outcome:
        """So many days; what happens in the first `warm` days is not counted."""
        reclaims = starts = victims = taken = asked = short = steps = 0
        lost = used = 0.0
        while self.at < START + days * DAY:
            self.submit()
            counts = self.at >= START + warm * DAY
            done = plan(self.view(), self.index)
            for action in done.actions:
                if isinstance(action, Place):
                    gone = [self.evict(ref) for ref in action.victims]
                    self.place(action)
                    if counts:
                        starts += 1
                        reclaims += bool(gone)
                        victims += len(gone)
                        lost += sum(g[0] for g in gone)
                        taken += sum(g[1] for g in gone)
                        asked += sum(m.bit_count() for m in action.places.values()) if gone else 0
                elif isinstance(action, Drain):
                    replica = self.replicas[action.service].pop(action.slot)
                    for name, gpus in replica.places.items():
                        self.used[name] &= ~gpus
                elif isinstance(action, Release):
                    self.start(action)
            if counts:
                steps += 1
                used += sum(m.bit_count() for m in self.used.values()) / (self.shape.gpus * len(self.names))
                short += any(n.now > len(self.replicas[n.service]) for n in done.needs)
            self.pass_time()
        return Outcome(reclaims, starts, victims, lost, taken, asked, used / steps, 1 - short / steps)

    def place(self, action: Place) -> None:
        """Start a replica on exactly these GPUs."""
        for name, gpus in action.places.items():
            assert not self.used[name] & gpus
            self.used[name] |= gpus
        self.replicas[action.service][action.slot] = Replica(
            service=action.service, slot=action.slot, state=ReplicaState.READY, job=f"r{action.slot}",
            node=next(iter(action.places)), places=action.places, level=action.level, load=0.5, since=self.at,
        )  # fmt: skip

    def start(self, action: Release) -> None:
        """Start a job on the nodes it was pinned to, on the GPUs that Slurm's habit gives."""
        job, cores = self.jobs[action.job], {}
        per = job.gpus_per_node or 1
        gpus: dict[str, int] = {}
        for name in action.nodes:
            free = Free(((1 << self.shape.gpus) - 1) & ~self.used[name], ((1 << CPUS) - 1) & ~self.cores[name])
            given = self.choice.give(self.shape, self.sockets, free, per, 4 * per)
            assert given.gpus.bit_count() == per
            gpus[name], cores[name] = given.gpus, given.cores
            self.used[name] |= given.gpus
            self.cores[name] |= given.cores
        self.held_cores[job.ref] = cores
        self.jobs[job.ref] = msgspec.structs.replace(
            job, state=JobState.RUNNING, held=Held.NO, started=self.at, gpus=gpus, required_nodes=action.nodes
        )

    def clear(self, job: Job) -> None:
        """Free what a job holds."""
        for name, mask in (job.gpus or {}).items():
            self.used[name] &= ~mask
            self.cores[name] &= ~self.held_cores[job.ref][name]

    def evict(self, ref: str) -> tuple[float, int]:
        """Requeue and hold a job; returns lost GPU-seconds and the GPUs it gave up."""
        job = self.jobs[ref]
        mark = job.checkpoint
        assert mark is not None
        assert job.started is not None
        size = sum(m.bit_count() for m in (job.gpus or {}).values())
        lost = self.at - max(job.started, mark.saved or 0.0)
        self.left[ref] += lost + 60.0
        self.clear(job)
        facts = self.facts.get(ref, JobFacts())
        self.facts[ref] = JobFacts(
            evictions=facts.evictions + 1, evicted_at=self.at, ours=True, ever_released=True, pinned=True
        )
        self.jobs[ref] = msgspec.structs.replace(
            job, state=JobState.PENDING, held=Held.ADMIN, started=None, gpus={}, restarts=job.restarts + 1,
            checkpoint=msgspec.structs.replace(mark, saved=None),
        )  # fmt: skip
        return (lost + 60.0) * size, size

    def pass_time(self) -> None:
        """One step: jobs work, save and end."""
        self.at += STEP
        for ref, job in list(self.jobs.items()):
            if job.state is not JobState.RUNNING or job.started is None or job.checkpoint is None:
                continue
            self.left[ref] -= STEP
            if self.left[ref] <= 0:
                self.clear(job)
                del self.jobs[ref], self.left[ref]
                self.facts.pop(ref, None)
            elif job.checkpoint.interval is not None:
                every = job.checkpoint.interval
                saves = (self.at - job.started) // every
                if saves:
                    mark = msgspec.structs.replace(job.checkpoint, saved=job.started + saves * every)
                    if mark != job.checkpoint:
                        self.jobs[ref] = msgspec.structs.replace(job, checkpoint=mark)
