"""What the placement of batch jobs costs when the services come back, as JSON: make bench-pack

    python bench/bench_pack.py [--seeds 12] [--nodes 24] [--json FILE]

The same days of the same cluster with two rules for where a batch job is put: the fullest node that has room (as a scheduler that
counts GPUs would), and coloc's. Everything else is the planner's, in both arms. Lost: GPU-seconds since the last checkpoint of
each victim and its restart, for each reclaim, and for each replica started (one that needs no victim costs nothing).
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.clusters import SHAPES
from bench.pack_sim import Kind, Outcome, Sim, Tide
from bench.told import tell

from colocd.core import fill
from colocd.core.arrays import Ints
from colocd.core.pack import Kind as JobKind
from colocd.core.pack import Pack
from colocd.core.search import NEVER
from colocd.sim.gpus import GpuChoice

SAVES, NEVER_SAVES = 600.0, None
MIXES = {
    "1, 2, 4 GPUs": tuple(Kind(1, gpus, save) for gpus in (1, 2, 4) for save in (SAVES, NEVER_SAVES)),
    "mostly 1 GPU": (Kind(3, 1, SAVES), Kind(1, 2, SAVES), Kind(3, 1, NEVER_SAVES)),
    "also on two nodes": (
        Kind(2, 1, SAVES), Kind(1, 2, SAVES), Kind(1, 1, NEVER_SAVES), Kind(0.3, 4, NEVER_SAVES, 2), Kind(0.6, 4, 900.0, 2),
    ),
    "2 to 8 GPUs": (Kind(1, 8, 1800.0), Kind(1, 4, SAVES), Kind(1, 2, NEVER_SAVES), Kind(1, 1, 900.0)),
}  # fmt: skip
HABITS = {"cores": GpuChoice(), "lowest": GpuChoice(by_socket=False)}
TIDES = (Tide("chat", 4, "NVLINK", 2, 16, 14.0), Tide("code", 2, "NVLINK", 2, 20, 16.0))


class Fullest(Pack):
    """The rule before: fewest free GPUs first, then the name; nodes of one job anywhere."""

    def _work_out(self, kind: JobKind, rows: Ints) -> Ints:
        ranks = super()._work_out(kind, rows)
        left = self.gpus[rows] - self._kept[kind.kept][1][rows]
        return np.where(ranks < NEVER, left << 24 | self.index.name_rank[rows], NEVER)

    def _together(self, rows: Ints, many: int) -> Ints:
        return rows


def run(arm: type[Pack], mix: str, habit: str, shape: str, nodes: int, seed: int) -> Outcome:
    fill.Pack = arm  # type: ignore[misc]
    try:
        return Sim(nodes, SHAPES[shape], MIXES[mix], TIDES, HABITS[habit], seed).run(days=2.5, warm=0.5)
    finally:
        fill.Pack = Pack  # type: ignore[misc]


def summary(outcomes: list[Outcome]) -> dict[str, float]:
    reclaims, starts = sum(o.reclaims for o in outcomes), sum(o.starts for o in outcomes)
    lost = sum(o.lost for o in outcomes)
    return {
        "reclaims": reclaims, "replicas_started": starts,
        "victims_per_reclaim": round(sum(o.victims for o in outcomes) / max(1, reclaims), 3),
        "taken_per_needed": round(sum(o.taken for o in outcomes) / max(1, sum(o.asked for o in outcomes)), 3),
        "lost_per_reclaim": round(lost / max(1, reclaims), 1), "lost_per_replica": round(lost / max(1, starts), 1),
        "used": round(statistics.mean(o.used for o in outcomes), 4),
        "served": round(statistics.mean(o.served for o in outcomes), 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--nodes", type=int, default=24)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: list[dict[str, object]] = []
    cases = [(mix, "quads", "cores") for mix in MIXES]
    cases += [("mostly 1 GPU", "quads", "lowest"), ("1, 2, 4 GPUs", "switch", "lowest")]
    for mix, shape, habit in cases:
        both = [
            [run(arm, mix, habit, shape, options.nodes, seed) for seed in range(options.seeds)]
            for arm in (Fullest, Pack)
        ]
        # The same seed has the same jobs and tides: how many seeds got better says whether the sum is luck.
        better = sum(new.lost < old.lost for old, new in zip(*both, strict=True))
        found.append(
            {
                "mix": mix, "shape": shape, "slurm_gives": habit, "fullest": summary(both[0]), "coloc": summary(both[1]),
                "seeds_with_less_lost": better, "seeds": options.seeds,
            }
        )  # fmt: skip
        sys.stderr.write(json.dumps(found[-1]) + "\n")
    tell(found, options.json)


if __name__ == "__main__":
    main()
