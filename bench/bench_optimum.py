"""The planner against the proven optimum (OR-tools CP-SAT) on random clusters: make bench-optimum

    python bench/bench_optimum.py [--instances 40] [--large 6] [--seed 1] [--kinds one,joint] [--limit 60] [--cut]
        [--json FILE]

On 3 to 8 nodes of every shape, `--instances` each:
one: one replica. joint: several of two services, jobs on one node each. wide: the same, a third of the jobs on two nodes.
nodes: one replica on two or three nodes, a third of the jobs on two nodes.
On as many nodes as the name says, `--large` each: hundred: eight of each of two services on 100 nodes. four: four of each of four
services on 60 nodes. one-N, joint-N (four of each of two services), nodes-N (one replica on four nodes of one leaf of 32 nodes, a
tenth of the jobs on two nodes): on N nodes.
Ratio: planner's cost / least cost of any plan that can be carried out (one handover a node at a time). `free`: against the
least cost if any number of handovers could run on a node at once (small clusters only).
Times: the planner's from an index that is up to date, as in a cycle: costs as of now, then the choice (median of 5); CP-SAT's
with and without building the model. Both are the process's own time, as others may use the machine; CP-SAT has one thread. Where
it does not prove its answer within the limit, what it took so far counts: it takes at least as long.
--cut: CP-SAT is only asked whether anything is cheaper than the planner's plan, which is proven sooner: for costs, not for times.
"""

import argparse
import json
import random
import statistics
import sys
from pathlib import Path
from time import process_time

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.clusters import SHAPES, full, service
from bench.optimum import Answer, optimum, optimum_group
from bench.told import tell

from coloc_topology.fit import fit_table
from coloc_topology.shape import Level
from colocd.core.ground import Ground
from colocd.core.groups import Part, choose_group
from colocd.core.index import PlannerIndex
from colocd.core.joint import Spot
from colocd.core.service import Closeness, ServiceSpec
from colocd.core.together import Want, place_all
from colocd.core.view import View

LIMIT = 20.0
"""Seconds for a proof of a small instance, on the clock."""
LARGE_LIMIT = 60.0
"""The same for 1,000 nodes and more."""
LEVELS = {"pairs": ("NVLINK", "NODE"), "flat": ("PIX", "NODE"), "cube": ("NVLINK", "NVLINK_PARTIAL")}
LARGE_SHAPES = ("cube", "pairs", "quads", "switch")
SMALL = ("one", "joint", "wide", "nodes")
LARGE = ("hundred", "four", *(f"{what}-{nodes}" for nodes in (1000, 4000) for what in ("one", "joint", "nodes")))
LEAF = 32
"""Nodes of a leaf of a large cluster."""


Row = dict[str, float | None]


def made(kind: str, shape: str, seed: int) -> tuple[View, list[tuple[ServiceSpec, int]]]:
    """A cluster and what is asked of it: services, and replicas of each (kind `nodes`: nodes of its one replica)."""
    rng = random.Random(f"{kind}{shape}{seed}")
    what, _, size = kind.partition("-")
    gpus, small = SHAPES[shape].gpus, kind in SMALL
    sizes = (1, 2, 4) if gpus <= 8 else (2, 4, 8)
    levels = LEVELS.get(shape, ("NVLINK",))
    wants = []
    for name in "abcd"[: {"joint": 2, "wide": 2, "hundred": 2, "four": 4}.get(what, 1)]:
        wanted, level = min(gpus, rng.choice(sizes)), rng.choice(levels)
        best = fit_table(SHAPES[shape]).best(SHAPES[shape].all, wanted)
        if best is None or best.level < Level[level]:
            level = levels[-1]  # No node of this shape could ever hold it.
        spec = service(name, wanted, level).spec
        many = {"one": 1, "hundred": 8, "four": 4, "nodes": rng.randint(2, 3) if small else 4}.get(what)
        wants.append((spec, many if many is not None else rng.randint(1, 4) if small else 4))
    nodes = rng.randint(3, 8) if small else {"hundred": 100, "four": 60}.get(what) or int(size)
    wide = {"wide": 0.33, "nodes": 0.33 if small else 0.1}.get(what, 0.0)
    view = full(
        nodes, rng.randrange(1 << 30), shape=shape, sizes=(1, 1, 2, 2, 4, gpus), idle=rng.choice((0.0, 0.1)) if small else 0.0,
        wide=wide, scattered=rng.random() < 0.5,
    )  # fmt: skip
    leaves = tuple(msgspec.structs.replace(n, leaf=f"leaf{i // LEAF}") for i, n in enumerate(view.nodes))
    return msgspec.structs.replace(view, nodes=leaves), wants


def planned(land: Ground, kind: str, wants: list[tuple[ServiceSpec, int]]) -> tuple[list[tuple[Spot, ...]], bool]:
    """The planner's places, and whether a bound ended its search."""
    if kind.startswith("nodes"):
        spec, many = wants[0]
        group, _ = choose_group(land, [Part(spec, many)], [Closeness.LEAF])
        return ([], False) if group is None else (list(group.spots), group.gave_up)
    result = place_all(land, [Want(spec, many) for spec, many in wants])
    return list(result.spots), result.gave_up


def instance(
    kind: str, shape: str, seed: int, limits: tuple[float, float] = (LIMIT, LARGE_LIMIT), cut: bool = False
) -> Row | None:
    """What one instance shows; None: nothing that is asked fits."""
    view, wants = made(kind, shape, seed)
    index = PlannerIndex()
    index.update(view)
    spots, gave_up = planned(
        Ground(view, index), kind, wants
    )  # a shape's tables are worked out once in a process: not counted
    taken = []
    for _ in range(5):
        began = process_time()
        spots, gave_up = planned(Ground(view, index), kind, wants)
        taken.append(process_time() - began)
    mine = statistics.median(taken)
    placed = [len(s) for s in spots]
    asked = sum(many for _, many in wants)
    land = Ground(view, index)
    costs = land.costs
    # How many are served is decided by priority; the cost of the best plan for as many is what counts then.
    wants = [(spec, many) for (spec, _), many in zip(wants, placed, strict=False)]
    if not sum(placed):
        return None
    cost = sum(costs[job.ref] for s in spots for spot in s for job in spot.victims)
    limit = limits[len(view.nodes) >= 1000]
    free: Answer | None = None
    known = cost if cut else None
    began = process_time()
    if kind.startswith("nodes"):
        best = optimum_group(land, *wants[0], {n.name: n.leaf or "" for n in view.nodes}, limit, known)
        theirs = process_time() - began
    else:
        best = optimum(land, wants, executable=True, seconds=limit, known=known)
        theirs = process_time() - began
        free = optimum(land, wants, executable=False, seconds=limit) if len(view.nodes) <= 100 and not cut else None
    assert best is not None, "the planner found a plan, so there is one"
    return {
        "cost": cost, "best": best.cost, "free": None if free is None else free.cost, "replicas": sum(placed),
        "gave_up": float(gave_up), "short": float(sum(placed) < asked), "speed": theirs / mine, "solving": best.solving / mine,
        "ms": mine * 1e3, "theirs_s": theirs, "solving_s": best.solving,
    }  # fmt: skip


def ratios(rows: list[Row], against: str) -> dict[str, float] | None:
    """How the planner's costs compare with those that are known; None: none is."""
    pairs = [(float(r["cost"] or 0.0), float(best)) for r in rows if (best := r[against]) is not None]
    if not pairs:
        return None
    found = np.array([1.0 if cost == best else cost / max(1e-9, best) for cost, best in pairs])
    total = sum(cost for cost, _ in pairs) / max(1e-9, sum(best for _, best in pairs))
    marks = {f"p{p}": round(float(np.percentile(found, p)), 4) for p in (50, 90, 95, 99)}
    exact = float((found < 1 + 1e-6).mean())
    return {
        "of": len(pairs), "mean": round(float(found.mean()), 4), **marks, "max": round(float(found.max()), 4),
        "sum": round(total, 4), "optimal": round(exact, 4), "within_2_percent": round(float((found <= 1.02).mean()), 4),
    }  # fmt: skip


def marks(rows: list[Row], column: str) -> dict[str, float]:
    """Least, quartiles and largest of a column."""
    values = np.array([row[column] for row in rows], dtype=float)
    return {f"p{p}": round(float(np.percentile(values, p)), 2) for p in (0, 25, 50, 75, 100)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=40, help="of each shape and kind on small clusters")
    parser.add_argument("--large", type=int, default=6, help="of each kind on large clusters")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--kinds",
        default="one,joint,wide,nodes,hundred,four,one-1000,joint-1000,nodes-1000,one-4000,joint-4000,nodes-4000",
    )
    parser.add_argument(
        "--limit", type=float, help="seconds for a proof on large clusters, on the clock", default=LARGE_LIMIT
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--cut",
        action="store_true",
        help="only ask for plans that are cheaper than the planner's: its times say nothing",
    )
    options = parser.parse_args()
    result: dict[str, object] = {"instances_per_shape": options.instances, "shapes": sorted(SHAPES)}
    for kind in options.kinds.split(","):
        first = options.seed * 1000
        if kind in SMALL:
            # Sixteen GPUs for several replicas are too many candidates to prove anything.
            shapes = [s for s in sorted(SHAPES) if kind == "one" or s != "sixteen"]
            cases = [(shape, first + i) for shape in shapes for i in range(options.instances)]
        else:
            cases = [(LARGE_SHAPES[i % len(LARGE_SHAPES)], first + i) for i in range(options.large)]
        limits = (max(LIMIT, options.limit) if kind not in SMALL else LIMIT, options.limit)
        rows = [row for shape, seed in cases if (row := instance(kind, shape, seed, limits, options.cut)) is not None]
        result[kind] = {
            "instances": len(rows), "not_proven_in_time": sum(row["best"] is None for row in rows),
            "against_executable": ratios(rows, "best"), "against_free": ratios(rows, "free"),
            "gave_up": sum(row["gave_up"] == 1.0 for row in rows), "not_all_served": sum(row["short"] == 1.0 for row in rows),
            "times_faster": marks(rows, "speed"), "times_faster_than_solving_alone": marks(rows, "solving"),
            "planner_ms": marks(rows, "ms"), "cp_sat_s": marks(rows, "theirs_s"), "cp_sat_solving_s": marks(rows, "solving_s"),
        }  # fmt: skip
        sys.stderr.write(json.dumps({kind: result[kind]}) + "\n")
    tell(result, options.json)


if __name__ == "__main__":
    main()
