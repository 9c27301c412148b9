"""Times of the planner on large clusters, as JSON on stdout (or --json FILE): make bench-planner

    python bench/bench_planner.py [--rounds 200] [--quick] [--json FILE]

choose: where one replica goes, on a warm index. joint: 64 replicas of four services at once. update: bringing the index to
the next cycle's view, 1 % of the jobs changed. rebuild: the index from nothing. plan: everything. fill: plans with waiting batch
jobs, on a warm index.
cpu: this process's own time, for machines that others use, too.
"""

import argparse
import json
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

from colocd.clock import SystemClock
from colocd.core.actions import Release
from colocd.core.ground import Ground
from colocd.core.index import PlannerIndex
from colocd.core.joint import pick
from colocd.core.plan import plan
from colocd.core.together import Want, place_all
from colocd.core.view import Checkpoint, Held, Job, JobState, Reading, View, decode_view, encode_view

CLOCK = SystemClock()


def times(call: Callable[[], object], rounds: int) -> dict[str, float | int]:
    found, used = [], []
    for _ in range(rounds):
        began, cpu = CLOCK.monotonic(), process_time()
        call()
        used.append((process_time() - cpu) * 1e3)
        found.append((CLOCK.monotonic() - began) * 1e3)
    p50, p99 = np.percentile(found, [50, 99]).tolist()
    return {
        "p50_ms": round(p50, 3), "p99_ms": round(p99, 3), "cpu_p99_ms": round(float(np.percentile(used, 99)), 3), "n": rounds,
    }  # fmt: skip


def one(view: View, index: PlannerIndex, rng: random.Random, spec: int) -> None:
    """What one request costs in a cycle whose index is up to date: costs as of now, then the choice."""
    now = msgspec.structs.replace(view, at=view.at + rng.uniform(0, 60))
    found = pick(Ground(now, index), view.services[spec].spec)
    assert found is not None


def joint(view: View, index: PlannerIndex, each: int) -> int:
    result = place_all(Ground(view, index), [Want(s.spec, each) for s in view.services])
    return sum(len(spots) for spots in result.spots)


def measure(nodes: int, sizes: tuple[int, ...], shape: str, rounds: int) -> dict[str, object]:
    wants = tuple(service(f"s{gpus}", gpus, many=16) for gpus in (1, 2, 4, 8 if shape == "switch" else 4))
    view = full(nodes, 1, shape=shape, sizes=sizes, services=wants)
    index = PlannerIndex()
    rng = random.Random(2)
    result: dict[str, object] = {"nodes": nodes, "shape": shape, "jobs": len(view.jobs)}
    result["rebuild"] = times(lambda: PlannerIndex().update(view), 5)
    index.update(view)
    for gpus, at in ((1, 0), (2, 1), (4, 2)):
        result[f"choose_{gpus}"] = times(lambda at=at: one(view, index, rng, at), rounds)  # type: ignore[misc]
    placed = joint(view, index, 16)
    result["joint_replicas"] = placed
    result["joint"] = times(lambda: joint(view, index, 16), max(10, rounds // 2))
    same = View(**{f: getattr(view, f) for f in view.__struct_fields__})
    views = [same, later(view, 10.0, 0.01, rng)]
    result["update"] = times(lambda: index.update(views[0]) if views.reverse() is None else 0, 20)  # type: ignore[func-returns-value]
    fresh = [decode_view(encode_view(v)) for v in views] if nodes <= 1000 else []
    if fresh:
        result["update_new_objects"] = times(
            lambda: index.update(fresh[0]) if fresh.reverse() is None else 0,  # type: ignore[func-returns-value]
            20,
        )
    result["plan_warm"] = times(lambda: plan(view, index), 5)
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
            found[f"{name}_{waiting}"] = {**times(lambda now=now, index=index: plan(now, index), 5), "started": started}  # type: ignore[misc]
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
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="small clusters only")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = [(250, "quads"), (500, "quads"), (1000, "quads"), (1000, "switch")]
    if not options.quick:
        cases += [(4000, "quads"), (12_500, "quads"), (12_500, "switch")]
    found = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}",
        "cases": [measure(nodes, (1, 1, 2, 2, 4), shape, options.rounds) for nodes, shape in cases],
    }
    text = json.dumps(found, indent=2) + "\n"
    if options.json:
        options.json.write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
