"""Made-up clusters for the planner's measurements: views full of batch jobs, with seeds."""

import random

import msgspec

from coloc_topology.shape import Shape, quads
from colocd.core.policy import Policy
from colocd.core.service import Capacity, Load, Mode, ServiceSpec
from colocd.core.view import Checkpoint, Held, Job, JobState, Node, Reading, ServiceView, View

AT = 1_760_000_000.0


def linked(name: str, gpus: int, word: list[tuple[int, str]]) -> Shape:
    """A shape from nested groups: `word` lists (group size, link inside), smallest first; SYS between the largest."""

    def link(i: int, j: int) -> str:
        return "X" if i == j else next((w for size, w in word if i // size == j // size), "SYS")

    return Shape(name, tuple(tuple(link(i, j) for j in range(gpus)) for i in range(gpus)))


def cube() -> Shape:
    """DGX-1: two quads of fully linked GPUs, and one link from each GPU to its twin."""

    def link(i: int, j: int) -> str:
        if i == j:
            return "X"
        if i // 4 == j // 4:
            return "NV2" if (i + j) % 2 else "NV1"
        return "NV1" if i % 4 == j % 4 else "SYS"

    return Shape("cube", tuple(tuple(link(i, j) for j in range(8)) for i in range(8)))


SHAPES = {
    "quads": quads(),
    "switch": linked("switch", 8, [(8, "NV18")]),
    "cube": cube(),
    "pairs": linked("pairs", 8, [(2, "NV4"), (4, "NODE")]),
    "flat": linked("flat", 8, [(2, "PIX"), (4, "NODE")]),
    "quad": linked("quad", 4, [(4, "NV4")]),
    "sixteen": linked("sixteen", 16, [(16, "NV6")]),
}


def service(name: str, gpus: int, level: str = "NVLINK", mode: Mode = Mode.GUARANTEED, many: int = 1) -> ServiceView:
    """A service that lacks `many` replicas."""
    spec = ServiceSpec(
        name=name,
        user="svc",
        partition="online",
        script="#!/bin/sh\n",
        gpus_per_replica=gpus,
        capacity=Capacity(per_replica=1.0, target_use=1.0),
        load=Load(url="http://{address}:{port}/metrics"),
        link_level=level,  # type: ignore[arg-type]
        mode=mode,
        min_replicas=many,
        max_replicas=many,
    )
    return ServiceView(spec=spec, load=Reading(float(many), AT))


def batch(number: int, gpus: dict[str, int], rng: random.Random, marked: float = 0.9) -> Job:
    """A running batch job; `marked`: share of jobs that are coloc's."""
    since = rng.uniform(0, 7200)
    mark = Checkpoint(signal="USR1", cost=30.0, saved=AT - rng.uniform(0, since) if rng.random() < 0.6 else None)
    return Job(
        ref=str(number),
        user=f"u{rng.randrange(200)}",
        name=f"job{number}",
        partition="batch",
        state=JobState.RUNNING,
        gpus=gpus,
        gpus_requested=sum(m.bit_count() for m in gpus.values()),
        nodes_requested=len(gpus),
        submitted=AT - since - 100,
        started=AT - since,
        checkpoint=mark if rng.random() < marked else None,
        held=Held.NO,
    )


def full(
    nodes: int, seed: int, *, shape: str = "quads", sizes: tuple[int, ...] = (1, 1, 2, 2, 4), idle: float = 0.0,
    wide: float = 0.0, marked: float = 0.9, services: tuple[ServiceView, ...] = (), scattered: bool = False,
) -> View:  # fmt: skip
    """A cluster filled with jobs; `idle`: share of job places left empty, `wide`: share of jobs on two nodes.

    `scattered`: jobs sit on any GPUs of a node; else on neighbours.
    """
    rng = random.Random(seed)
    gpus = SHAPES[shape].gpus
    room = {f"n{i:05d}": list(range(gpus)) for i in range(nodes)}
    names = list(room)
    jobs: list[Job] = []
    for i, name in enumerate(names):
        if scattered:
            rng.shuffle(room[name])
        while room[name]:
            size = min(rng.choice(sizes), len(room[name]))
            held = {name: _take(room[name], size)}
            other = names[(i + 1) % nodes]
            if rng.random() < wide and other != name and len(room[other]) >= size:
                held[other] = _take(room[other], size)
            if rng.random() >= idle:
                jobs.append(batch(len(jobs) + 1, held, rng, marked))
    used = dict.fromkeys(names, 0)
    for job in jobs:
        for name, mask in (job.gpus or {}).items():
            used[name] |= mask
    return View(
        at=AT,
        mode="act",
        policy=Policy(),
        shapes={shape: SHAPES[shape]},
        nodes=tuple(
            Node(
                name=name, address="127.0.0.1", up=True, gpus=gpus, used=used[name], shape=shape,
                partitions=("batch", "online"), cpus=128, cpus_used=64,
            )
            for name in names
        ),
        jobs=tuple(jobs),
        services=services,
    )  # fmt: skip


def _take(left: list[int], size: int) -> int:
    mine = sum(1 << g for g in left[:size])
    del left[:size]
    return mine


def later(view: View, seconds: float, share: float, rng: random.Random) -> View:
    """The same cluster some seconds on: this share of jobs has a new checkpoint or is gone; everything else is unchanged."""
    jobs = []
    gone: dict[str, int] = {}
    for job in view.jobs:
        if rng.random() >= share:
            jobs.append(job)
        elif rng.random() < 0.5 and job.checkpoint is not None:
            jobs.append(msgspec.structs.replace(job, checkpoint=msgspec.structs.replace(job.checkpoint, saved=view.at)))
        else:
            for name, mask in (job.gpus or {}).items():
                gone[name] = gone.get(name, 0) | mask
    nodes = tuple(
        msgspec.structs.replace(n, used=(n.used or 0) & ~gone[n.name]) if n.name in gone else n for n in view.nodes
    )
    return msgspec.structs.replace(view, at=view.at + seconds, jobs=tuple(jobs), nodes=nodes)
