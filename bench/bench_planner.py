"""Times of the planner on large clusters, as JSON on stdout (or --json FILE): make bench-planner

    python bench/bench_planner.py [--rounds 100] [--quick] [--json FILE]

choose: where one replica goes, on a warm index. nodes: the same for one on four nodes of a leaf. joint: 64 replicas of four
services at once. update: bringing the index to the next cycle's view, 1 % of the jobs changed; update_new_objects: the same when
each job and node is another object. rebuild: the index from nothing. plan: everything. fill: plans with waiting batch jobs.
ms: on the clock. cpu: this process's own time, for machines that others use, too. A p99 is told from 100 rounds on, else the
longest of them only. Under five minutes on two cores; the times on the clock are worth something on a quiet machine only.
"""

import argparse
import gc
import platform
import random
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.clusters import full, later, service
from bench.told import tell

from colocd.clock import SystemClock
from colocd.core.actions import Release
from colocd.core.ground import Ground
from colocd.core.groups import Part, choose_group
from colocd.core.index import PlannerIndex
from colocd.core.joint import pick
from colocd.core.plan import plan
from colocd.core.service import Closeness
from colocd.core.together import Want, place_all
from colocd.core.view import Checkpoint, Held, Job, JobState, Reading, View, decode_view, encode_view

CLOCK = SystemClock()
ENOUGH = 100
"""Rounds from which a p99 is told."""


def times(call: Callable[[], object], rounds: int) -> dict[str, float | int]:
    """Quartiles and tail of so many calls, on the clock and of the process's own time."""
    call()
    gc.collect()
    found, used = [], []
    for _ in range(rounds):
        began, cpu = CLOCK.monotonic(), process_time()
        call()
        used.append((process_time() - cpu) * 1e3)
        found.append((CLOCK.monotonic() - began) * 1e3)
    told: dict[str, float | int] = {"n": rounds}
    for name, values in (("", found), ("cpu_", used)):
        tail = {"p99": 99} if rounds >= ENOUGH else {}
        for mark, share in {"p25": 25, "p50": 50, "p75": 75, **tail, "max": 100}.items():
            told[f"{name}{mark}_ms"] = round(float(np.percentile(values, share)), 3)
    return told


def one(view: View, index: PlannerIndex, rng: random.Random, spec: int) -> None:
    """What one request costs in a cycle whose index is up to date: costs as of now, then the choice."""
    now = msgspec.structs.replace(view, at=view.at + rng.uniform(0, 60))
    found = pick(Ground(now, index), view.services[spec].spec)
    assert found is not None


def spread(view: View, index: PlannerIndex, rng: random.Random) -> None:
    """The same for a replica on four nodes of one leaf."""
    now = msgspec.structs.replace(view, at=view.at + rng.uniform(0, 60))
    found, _ = choose_group(Ground(now, index), [Part(view.services[2].spec, 4)], [Closeness.LEAF])
    assert found is not None


def joint(view: View, index: PlannerIndex, each: int) -> int:
    result = place_all(Ground(view, index), [Want(s.spec, each) for s in view.services])
    return sum(len(spots) for spots in result.spots)


def measure(nodes: int, sizes: tuple[int, ...], shape: str, rounds: int) -> dict[str, object]:
    wants = tuple(service(f"s{gpus}", gpus, many=16) for gpus in (1, 2, 4, 8 if shape == "switch" else 4))
    view = full(nodes, 1, shape=shape, sizes=sizes, services=wants)
    leaves = tuple(msgspec.structs.replace(n, leaf=f"leaf{i // 32}") for i, n in enumerate(view.nodes))
    view = msgspec.structs.replace(view, nodes=leaves)
    index = PlannerIndex()
    rng = random.Random(2)
    result: dict[str, object] = {"nodes": nodes, "shape": shape, "jobs": len(view.jobs)}
    result["rebuild"] = times(lambda: PlannerIndex().update(view), 5)
    index.update(view)
    for gpus, at in ((1, 0), (2, 1), (4, 2)):
        result[f"choose_{gpus}"] = times(lambda at=at: one(view, index, rng, at), rounds)  # type: ignore[misc]
    result["nodes_4x4"] = times(lambda: spread(view, index, rng), rounds)
    placed = joint(view, index, 16)
    result["joint_replicas"] = placed
    result["joint"] = times(lambda: joint(view, index, 16), rounds)
    same = View(**{f: getattr(view, f) for f in view.__struct_fields__})
    views = [same, later(view, 10.0, 0.01, rng)]
    result["update"] = times(lambda: index.update(views[0]) if views.reverse() is None else 0, rounds)  # type: ignore[func-returns-value]
    fresh = [decode_view(encode_view(v)) for v in views]
    result["update_new_objects"] = times(
        lambda: index.update(fresh[0]) if fresh.reverse() is None else 0,  # type: ignore[func-returns-value]
        min(rounds, 20),
    )
    fresh.clear()
    index.update(view)
    result["plan_warm"] = times(lambda: plan(view, index), rounds)
    result["plan_cold"] = times(lambda: plan(view), 3)
    result["fill"] = filling(view)
    return result


def filling(view: View) -> dict[str, object]:
    """A plan whose batch jobs wait: so many of 12 kinds, on a cluster that is full and on one where a tenth is free."""
    found: dict[str, object] = {}
    for name, gone in (("full", 0), ("a_tenth_free", 10)):
        jobs = tuple(j for i, j in enumerate(view.jobs) if not gone or i % gone)
        used = dict.fromkeys((n.name for n in view.nodes), 0)
        for job in jobs:
            for node, mask in (job.gpus or {}).items():
                used[node] |= mask
        nodes = tuple(msgspec.structs.replace(n, used=used[n.name]) for n in view.nodes)
        services = tuple(
            msgspec.structs.replace(s, spec=msgspec.structs.replace(s.spec, min_replicas=0), load=Reading(0.0, view.at))
            for s in view.services
        )
        for waiting in (100, 1000, 5000):
            held = tuple(queued(10**7 + i, view.at) for i in range(waiting))
            now = msgspec.structs.replace(view, jobs=jobs + held, nodes=nodes, services=services)
            index = PlannerIndex()
            started = sum(isinstance(a, Release) for a in plan(now, index).actions)
            found[f"{name}_{waiting}"] = {
                **times(lambda now=now, index=index: plan(now, index), 10),
                "started": started,
            }  # type: ignore[misc]
    return found


def queued(number: int, at: float) -> Job:
    """A held batch job."""
    gpus, nodes = (1, 2, 4, 8)[number % 4], 2 if number % 40 == 0 else 1
    mark = Checkpoint(signal="USR1", interval=(None, 600.0, 1800.0)[number % 3], cost=30.0)
    return Job(
        ref=str(number), user=f"u{number % 50}", name="waits", partition="batch", state=JobState.PENDING, gpus_per_node=gpus,
        gpus_requested=gpus * nodes, nodes_requested=nodes, cpus_requested=gpus * nodes, submitted=at - 100, held=Held.USER,
        checkpoint=mark,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ENOUGH)
    parser.add_argument("--quick", action="store_true", help="small clusters only")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = [(250, "quads"), (500, "quads"), (1000, "quads"), (1000, "switch")]
    if not options.quick:
        cases += [(4000, "quads"), (12_500, "quads"), (12_500, "switch")]
    cases_found = []
    for nodes, shape in cases:
        began = CLOCK.monotonic()
        cases_found.append(measure(nodes, (1, 1, 2, 2, 4), shape, options.rounds))
        sys.stderr.write(f"{nodes} nodes, {shape}: {CLOCK.monotonic() - began:.0f} s\n")
    found = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}",
        "cases": cases_found,
    }
    tell(found, options.json)


if __name__ == "__main__":
    main()
