"""Hypothesis strategies and small builders for views."""

from hypothesis import strategies as st

from coloc_topology.shape import Shape, quads
from colocd.core.policy import Policy
from colocd.core.service import Capacity, Load, Mode, ServiceSpec
from colocd.core.view import (
    Checkpoint,
    Held,
    Job,
    JobFacts,
    JobState,
    Node,
    Reading,
    Replica,
    ReplicaState,
    ServiceView,
    View,
)

AT = 1_760_000_000.0
LOAD = Load(url="http://{address}:{port}/metrics")


def cube_mesh() -> Shape:
    """DGX-1: two quads, each fully linked, and one link from each GPU to its twin."""
    rows = []
    for i in range(8):
        row = []
        for j in range(8):
            if i == j:
                row.append("X")
            elif i // 4 == j // 4:
                row.append("NV2" if (i + j) % 2 else "NV1")
            else:
                row.append("NV1" if i % 4 == j % 4 else "SYS")
        rows.append(tuple(row))
    return Shape("cube", tuple(rows))


def pairs() -> Shape:
    """Bridge pairs on PCIe."""
    return Shape(
        "pairs",
        tuple(
            tuple(
                "X" if i == j else "NV4" if i // 2 == j // 2 else "NODE" if i // 4 == j // 4 else "SYS"
                for j in range(8)
            )
            for i in range(8)
        ),
    )


def uneven(name: str, sizes: tuple[int, ...], near: str = "NV4", far: str = "SYS") -> Shape:
    """Islands of these sizes."""
    island = [number for number, size in enumerate(sizes) for _ in range(size)]
    rows = [
        ["X" if i == j else near if island[i] == island[j] else far for j in range(len(island))]
        for i in range(len(island))
    ]
    return Shape(name, tuple(map(tuple, rows)))


SHAPES = {"quads": quads(), "cube": cube_mesh(), "pairs": pairs()}
ODD = {
    "single": uneven("single", (1,)),
    "three": uneven("three", (2, 1), far="PHB"),
    "five": uneven("five", (3, 2)),
    "six": uneven("six", (3, 3), near="PIX", far="NODE"),
    "seven": uneven("seven", (4, 2, 1)),
    "ten": uneven("ten", (5, 5), near="PXB"),
}
"""Servers that are seldom: islands of unequal size, no NVLink, a GPU that failed, one GPU."""


def service(name: str = "chat", **changes: object) -> ServiceSpec:
    facts: dict[str, object] = {
        "name": name,
        "user": "svc",
        "partition": "online",
        "script": "#!/bin/sh\n",
        "gpus_per_replica": 2,
        "capacity": Capacity(per_replica=10.0, target_use=1.0),
        "load": LOAD,
        "max_replicas": 8,
    }
    return ServiceSpec(**{**facts, **changes})  # type: ignore[arg-type]


def replica(slot: int, state: ReplicaState = ReplicaState.READY, name: str = "chat", **facts: object) -> Replica:
    return Replica(service=name, slot=slot, state=state, **facts)  # type: ignore[arg-type]


def batch(number: int, gpus: dict[str, int] | None = None, *, lost: bool = False, **changes: object) -> Job:
    """A job of coloc's; `lost`: its GPUs could not be read."""
    facts: dict[str, object] = {
        "ref": str(number),
        "user": "ann",
        "name": f"job{number}",
        "partition": "batch",
        "state": JobState.RUNNING if gpus else JobState.PENDING,
        "gpus": None if lost else gpus or {},
        "gpus_requested": sum(m.bit_count() for m in (gpus or {}).values()) or 1,
        "started": AT - 1000 if gpus else None,
        "submitted": AT - 2000,
        "checkpoint": Checkpoint(signal="USR1"),
        "held": Held.NO if gpus else Held.USER,
    }
    return Job(**{**facts, **changes})  # type: ignore[arg-type]


def view(
    *jobs: Job, services: tuple[ServiceView, ...] = (), nodes: int = 1, shape: str = "quads", **changes: object
) -> View:
    kind = (SHAPES | ODD)[shape]
    used = {f"n{i}": 0 for i in range(1, nodes + 1)}
    for job in jobs:
        for name, mask in (job.gpus or {}).items():
            used[name] |= mask
    facts: dict[str, object] = {
        "at": AT,
        "mode": "act",
        "policy": Policy(protected_runtime=300.0),
        "shapes": {shape: kind},
        "nodes": tuple(
            Node(
                name=name,
                address="127.0.0.1",
                up=True,
                gpus=kind.gpus,
                used=mask,
                shape=shape,
                partitions=("batch", "online"),
            )
            for name, mask in used.items()
        ),
        "jobs": tuple(sorted(jobs, key=lambda j: j.order)),
        "services": services,
    }
    return View(**{**facts, **changes})  # type: ignore[arg-type]


@st.composite
def habits(draw: st.DrawFn, /, **facts: object) -> JobFacts:
    """What is remembered of a job that was never told to save, or that answered, or was silent."""
    took = draw(st.none() | st.sampled_from([1.0, 20.0, 59.0, 61.0]))
    answered = draw(st.integers(0 if took is None else 1, 3))
    silent = draw(st.integers(0, 2) if took is not None or not answered else st.integers(1, 2))
    return JobFacts(answered=answered, silent=silent, took=took, **facts)  # type: ignore[arg-type]


@st.composite
def filled_views(draw: st.DrawFn) -> View:
    """One to three nodes of one shape, filled with jobs of many kinds, one or two services that want replicas."""
    shape = draw(st.sampled_from([*SHAPES, *SHAPES, *ODD]))
    gpus = (SHAPES | ODD)[shape].gpus
    count = draw(st.integers(1, 3))
    jobs: list[Job] = []
    number = 1
    for n in range(1, count + 1):
        left = list(draw(st.permutations(range(gpus))))
        while left:
            size = draw(st.sampled_from([1, 1, 2, 2, 3, 4]))
            mine, left = left[:size], left[size:]
            mask = sum(1 << i for i in mine)
            mark = draw(
                st.none() | st.builds(Checkpoint, signal=st.just("USR1"), saved=st.none() | st.floats(AT - 900, AT))
            )
            jobs.append(
                batch(
                    number,
                    {f"n{n}": mask},
                    checkpoint=mark,
                    started=AT - draw(st.sampled_from([10.0, 400.0, 5000.0])),
                    partition=draw(st.sampled_from(["batch", "batch", "batch", "online"])),
                    user=draw(st.sampled_from(["ann", "bob"])),
                )
            )
            number += 1
    jobs = [j for j in jobs if draw(st.integers(0, 4))]
    for _ in range(draw(st.integers(0, 3))):
        jobs.append(batch(number, gpus_requested=draw(st.sampled_from([1, 2, 4])), gpus_per_node=None))
        number += 1
    services = tuple(
        ServiceView(
            spec=service(
                name,
                gpus_per_replica=draw(st.sampled_from([1, 2, 3, 4] if shape in ODD else [1, 2, 4])),
                mode=draw(st.sampled_from(list(Mode))),
                link_level=draw(st.sampled_from(["NVLINK", "NVLINK_PARTIAL", "NODE", "SYS"])),
                min_replicas=draw(st.integers(0, 3)),
            ),
            load=draw(st.none() | st.builds(Reading, st.floats(0, 50), st.just(AT - 1))),
        )
        for name in draw(st.sampled_from([("chat",), ("chat", "code")]))
    )
    facts = {j.ref: draw(habits(evictions=draw(st.sampled_from([0, 0, 0, 3])))) for j in jobs}
    return view(*jobs, services=services, nodes=count, shape=shape, facts=facts)
