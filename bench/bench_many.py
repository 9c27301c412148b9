"""64 replicas of four services at once, how near the cheapest plan: made with `make bench-many`

    python bench/bench_many.py [--seeds 20] [--nodes 100,1000,12500] [--each 16] [--wide 0] [--idle 0]
        [--cp SECONDS] [--json FILE]

Clusters of `bench_planner`, of quads, NVSwitch and bridge pairs in turn, jobs side by side or scattered over a node. For each
size: cost / the planner's own bound from below (no plan costs less); cost / what four rounds of a quarter of the replicas each
cost, every round exact; the same for one service after the other, as coloc did before; CPU ms (median of 3) of the whole choice
and of one service after the other. --cp: CP-SAT is asked whether any plan costs less than 98 % of the planner's.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from time import process_time

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.clusters import full, service
from bench.told import tell

from colocd.core.ground import Ground
from colocd.core.index import PlannerIndex
from colocd.core.joint import place
from colocd.core.many import ManySolver
from colocd.core.relevant import Relevance
from colocd.core.together import Want, place_all
from colocd.core.view import View

SIZES = {"quads": (1, 2, 4, 4), "switch": (1, 2, 4, 8), "pairs": (1, 2, 2, 1)}
"""GPUs of a replica of each service, by shape."""
ROUNDS = 4


def one_after_the_other(land: Ground, wants: list[Want]) -> int:
    """What it costs when each service in turn takes its best places."""
    after = land.copy()
    return sum(spot.key for want in wants for spot in place(after, want.spec, want.many))


def in_rounds(land: Ground, wants: list[Want]) -> int | None:
    """What as many rounds cost, each planned exactly on what the last one left; None: not all were served."""
    total = 0
    for nth in range(ROUNDS):
        some = [want._replace(many=want.many // ROUNDS + (nth < want.many % ROUNDS)) for want in wants]
        joint = place_all(land, some)
        if any(len(spots) < want.many for spots, want in zip(joint.spots, some, strict=True)):
            return None
        total, land = total + joint.score[-1], joint.land
    return total


def case(view: View, index: PlannerIndex, wants: list[Want], seconds: float | None) -> dict[str, float | None]:
    """What one instance shows; a value that nobody knows is None."""
    joint = place_all(Ground(view, index), wants)  # A shape's tables are worked out once in a process: not counted.
    taken, before = [], []
    for _ in range(3):
        land = Ground(view, index)
        began = process_time()
        joint = place_all(land, wants)
        taken.append((process_time() - began) * 1e3)
        land = Ground(view, index)
        began = process_time()
        old = one_after_the_other(land, wants)
        before.append((process_time() - began) * 1e3)
    land = Ground(view, index)
    cost = joint.score[-1]
    used = [spot.row for spots in joint.spots for spot in spots]
    bound = ManySolver(land, wants, Relevance(land, wants), used, cost).solve().bound
    rounds = in_rounds(land, wants)
    served = all(len(spots) == want.many for spots, want in zip(joint.spots, wants, strict=True))
    proven: float | None = None
    if seconds and served:
        from bench.optimum import optimum  # OR-tools is not installed everywhere.

        known = 0.98 * sum(land.costs[job.ref] for spots in joint.spots for spot in spots for job in spot.victims)
        found = optimum(land, [(want.spec, want.many) for want in wants], True, seconds, known)
        proven = None if found is None or found.cost is None else float(found.cost >= known * 0.999)
    return {
        "served": float(served), "note": float(joint.gave_up), "above_bound": cost / max(1, bound) if served else None,
        "against_rounds": cost / rounds if rounds and served else None, "before_against_rounds": old / rounds if rounds else None,
        "before_above_bound": old / max(1, bound) if served else None, "ms": statistics.median(taken),
        "before_ms": statistics.median(before), "cp_sat_none_below_98_percent": proven,
    }  # fmt: skip


def marks(rows: list[dict[str, float | None]], column: str) -> dict[str, float] | None:
    """Quartiles, tail and largest of a column's known values; None: none is known."""
    values = [float(value) for row in rows if (value := row[column]) is not None]
    if not values:
        return None
    told = {f"p{p}": round(float(np.percentile(values, p)), 4) for p in (0, 25, 50, 75, 95, 100)}
    return {"of": len(values), **told}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="of each shape and size")
    parser.add_argument("--nodes", default="100,1000,12500")
    parser.add_argument("--shapes", default=",".join(SIZES))
    parser.add_argument("--each", type=int, default=16, help="replicas of each of the four services")
    parser.add_argument("--wide", type=float, default=0.0, help="share of the jobs on two nodes")
    parser.add_argument("--idle", type=float, default=0.0, help="share of the places of jobs that are free")
    parser.add_argument("--cp", type=float, help="seconds that CP-SAT may take for an instance")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, object] = {}
    for nodes in (int(text) for text in options.nodes.split(",")):
        for shape in options.shapes.split(","):
            services = tuple(service(f"s{at}", gpus, many=options.each) for at, gpus in enumerate(SIZES[shape]))
            wants = [Want(s.spec, options.each) for s in services]
            rows = []
            for seed in range(options.seeds):
                view = full(
                    nodes, seed, shape=shape, services=services, wide=options.wide, idle=options.idle, scattered=seed % 2 == 1
                )  # fmt: skip
                index = PlannerIndex()
                index.update(view)
                rows.append(case(view, index, wants, options.cp))
            found = {column: marks(rows, column) for column in rows[0]}
            within = sum(1 for row in rows if row["above_bound"] is not None and row["above_bound"] <= 1.02)
            result[f"{nodes}-{shape}"] = {"instances": len(rows), "within_2_percent_of_the_bound": within, **found}
            sys.stderr.write(json.dumps({f"{nodes}-{shape}": result[f"{nodes}-{shape}"]}) + "\n")
    tell(result, options.json)


if __name__ == "__main__":
    main()
