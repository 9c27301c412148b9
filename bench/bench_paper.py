"""FlexTopo's experiment (arXiv 2411.11560, section V) with coloc added: make bench-paper

    python bench/bench_paper.py [--seeds 10] [--preemptions 5000] [--sweep-seeds 3] [--json FILE]

100 nodes of 8 GPUs, two sockets of four, NUMA nodes of two that are joined by NVLink. Jobs of 1, 2 and 4 GPUs with low
priorities fill the cluster; requests for 1, 2 or 4 GPUs preempt them. A cluster takes 100 requests, then a new one begins;
with refill, low-priority jobs fill what is free after each. All arms get the same clusters and the same requests.
Hit: the GPUs that the preemptor gets lie in one NUMA node (1 and 2 GPUs), one socket, or reach the level it asked for
(NVLink for 2, one socket for 4). One request a minute; a job loses what it did since its last checkpoint.
"""

import argparse
import random
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.clusters import AT, SHAPES, service
from bench.paper_arms import ARMS, NUMA, SOCKETS, Node, Pick, Running, lowest, spans
from bench.told import tell

from colocd.clock import SystemClock
from colocd.core import view as v
from colocd.core.ground import Ground
from colocd.core.index import PlannerIndex
from colocd.core.joint import pick
from colocd.core.policy import Policy

CLOCK = SystemClock()
NODES, REQUESTS = 100, 100
MIXES = {
    "1": (1,),
    "2": (2,),
    "4": (4,),
    "1+2": (1, 2),
    "1+2+4": (1, 2, 4),
    "mostly 1": (1, 1, 1, 1, 2, 4),
    "2+4": (2, 4),
}
LEVELS = {1: "NVLINK", 2: "NVLINK", 4: "NODE"}
SPECS = {count: service(f"s{count}", count, LEVELS[count]).spec for count in LEVELS}
POLICY = Policy(protected_runtime=0.0, max_unsaved=86400.0)


class Job(NamedTuple):
    """A low-priority job: when it started, and how often it saves (None: never)."""

    run: Running
    node: int
    started: float
    interval: float | None

    def saved(self, at: float) -> float | None:
        """Its last checkpoint."""
        if self.interval is None or at - self.started < self.interval:
            return None
        return self.started + (at - self.started) // self.interval * self.interval

    def unsaved(self, at: float) -> float:
        """GPU-seconds that its eviction loses."""
        return (at - (self.saved(at) or self.started)) * self.run.gpus.bit_count()


class Cluster:
    """Low-priority jobs and free GPUs. Jobs get what Slurm would give them: one socket if it can, lowest indices first.

    A cluster begins with churn behind it: filled, then half of the jobs end and others take their places, twice.
    """

    def __init__(self, seed: str, mix: tuple[int, ...], at: float) -> None:
        self.rng, self.mix, self.number = random.Random(seed), mix, 0
        self.free = [0xFF] * NODES
        self.jobs: list[dict[int, Job]] = [{} for _ in range(NODES)]
        self.fill(at, old=True)
        for _ in range(2):
            for node in range(NODES):
                for ref in [r for r in self.jobs[node] if self.rng.random() < 0.5]:
                    self.free[node] |= self.jobs[node].pop(ref).run.gpus
            self.fill(at, old=True)

    def fill(self, at: float, old: bool = False) -> None:
        """Low-priority jobs into everything free; `old`: they have been running for up to two hours."""
        for node in range(NODES):
            while self.free[node]:
                size = self.rng.choice([s for s in self.mix if s <= self.free[node].bit_count()] or [1])
                gpus = lowest(self.free[node], size, by_socket=True)
                self.number += 1
                run = Running(self.number, gpus, self.rng.randint(1, 9))
                interval = self.rng.choice([None, 600.0, 1800.0, 3600.0])
                started = at - (self.rng.uniform(0, 7200) if old else 0.0)
                self.jobs[node][self.number] = Job(run, node, started, interval)
                self.free[node] &= ~gpus

    def nodes(self) -> list[Node]:
        return [Node(i, self.free[i], tuple(j.run for j in self.jobs[i].values())) for i in range(NODES)]

    def evict(self, node: int, refs: list[int], gpus: int, at: float) -> float:
        """Carry a decision out; returns the GPU-seconds lost."""
        lost = 0.0
        for ref in refs:
            job = self.jobs[node].pop(ref)
            self.free[node] |= job.run.gpus
            lost += job.unsaved(at)
        assert gpus & ~self.free[node] == 0
        self.free[node] &= ~gpus
        return lost


class Coloc:
    """The planner with its index kept from request to request."""

    def __init__(self) -> None:
        self.index = PlannerIndex()

    def view(self, cluster: Cluster, at: float) -> v.View:
        jobs = tuple(
            v.Job(
                ref=str(job.run.ref), user="u", name="j", partition="batch", state=v.JobState.RUNNING,
                gpus={f"n{job.node:03d}": job.run.gpus}, started=job.started,
                checkpoint=v.Checkpoint(saved=job.saved(at)),
            )
            for held in cluster.jobs for job in held.values()
        )  # fmt: skip
        nodes = tuple(
            v.Node(
                name=f"n{i:03d}", address="", up=True, gpus=8, used=0xFF & ~cluster.free[i], shape="pairs",
                partitions=("online",),
            )
            for i in range(NODES)
        )  # fmt: skip
        return v.View(at=at, policy=POLICY, shapes={"pairs": SHAPES["pairs"]}, nodes=nodes, jobs=jobs)

    def choose(self, view: v.View, count: int) -> Pick | None:
        self.index.update(view)
        found = pick(Ground(view, self.index), SPECS[count])
        if found is None:
            return None
        gone = tuple(Running(int(job.ref), sum((job.gpus or {}).values()), 0) for job in found.victims)
        return Pick(found.row, gone, found.gpus, 0)


def run(arm: str, seed: int, mix: tuple[int, ...], preemptions: int, refill: bool) -> dict[str, list[float]]:
    got: dict[str, list[float]] = {
        k: [] for k in ("numa", "socket", "level", "refused", "victims", "lost", "taken", "examined", "us")
    }
    for epoch in range(preemptions // REQUESTS):
        cluster, coloc = Cluster(f"{seed}/{epoch}/{mix}", mix, AT), Coloc()
        asked, rng = random.Random(f"requests {seed}/{epoch}"), random.Random(f"arm {seed}/{epoch}")
        for turn in range(REQUESTS):
            at, count = AT + 60.0 * turn, asked.choice((1, 2, 4))
            timed = arm == "coloc" or epoch == 0
            if arm == "coloc":
                view = coloc.view(cluster, at)
                began = CLOCK.monotonic()
                found = coloc.choose(view, count)
            else:
                nodes = cluster.nodes()
                began = CLOCK.monotonic()
                found = ARMS[arm](nodes, count, rng, timed and turn < 20)
            if timed and (arm == "coloc" or turn < 20):
                got["us"].append((CLOCK.monotonic() - began) * 1e6)
            got["refused"].append(float(found is None))
            if found is None:
                continue
            got["lost"].append(cluster.evict(found.node, [j.ref for j in found.victims], found.gpus, at) / 3600)
            if refill:
                cluster.fill(at)
            got["victims"].append(len(found.victims))
            got["taken"].append(sum(j.gpus.bit_count() for j in found.victims) / count)
            got["examined"].append(found.examined)
            if count > 1:
                got["socket"].append(float(spans(found.gpus, SOCKETS) == 1))
                if count == 2:
                    got["numa"].append(float(spans(found.gpus, NUMA) == 1))
                got["level"].append(got["numa"][-1] if count == 2 else got["socket"][-1])
    return got


def summary(rows: list[dict[str, list[float]]]) -> dict[str, float]:
    all_of = {key: np.concatenate([np.array(r[key]) for r in rows]) for key in rows[0]}
    spread = np.array([np.mean(r["level"]) for r in rows])
    return {
        "hit_numa": round(float(all_of["numa"].mean()), 4), "hit_socket": round(float(all_of["socket"].mean()), 4),
        "hit_level": round(float(all_of["level"].mean()), 4), "hit_level_sd": round(float(spread.std()), 4),
        "refused": round(float(all_of["refused"].mean()), 5), "victims": round(float(all_of["victims"].mean()), 3),
        "taken_per_needed": round(float(all_of["taken"].mean()), 3),
        "lost_gpu_hours": round(float(all_of["lost"].sum()) / len(rows), 1),
        "examined": round(float(all_of["examined"].mean()), 1),
        "us_p50": round(float(np.percentile(all_of["us"], 50))), "us_p99": round(float(np.percentile(all_of["us"], 99))),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sweep-seeds", type=int, default=4)
    parser.add_argument("--preemptions", type=int, default=500, help="of each seed and arm; a fifth of it in the sweep")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, object] = {"seeds": options.seeds, "preemptions": options.preemptions}
    for refill in (False, True):
        for arm in (*ARMS, "coloc"):
            rows = [run(arm, seed, MIXES["1+2+4"], options.preemptions, refill) for seed in range(options.seeds)]
            result[f"{arm}, {'refill' if refill else 'no refill'}"] = found = summary(rows)
            print(f"{arm:16} refill={refill!s:5} {found}", file=sys.stderr, flush=True)
    sweep: dict[str, dict[str, dict[str, float]]] = {}
    for name, mix in MIXES.items():
        for arm in (*ARMS, "coloc"):
            rows = [run(arm, seed, mix, options.preemptions // 5, refill=True) for seed in range(options.sweep_seeds)]
            sweep.setdefault(name, {})[arm] = summary(rows)
    result["sweep"] = sweep
    tell(result, options.json)


if __name__ == "__main__":
    main()
