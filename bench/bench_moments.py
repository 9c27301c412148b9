"""Planned reclaims: what each victim's own moment saves against one common moment for all of a place (pure, seconds)

    python bench/bench_moments.py [--places 2000] [--seed 1]

Places of 4 or 8 GPUs on a full node, held by jobs of 1, 2 or 4 GPUs that save by themselves every 10 to 60 minutes, none or a
third of them also when asked; the forecast needs the place within 1 to 15 minutes. Lost: GPU-seconds of work and restarts. Idle:
GPU-seconds from when victims go until the latest moment.
"""

import argparse
import random
import sys
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.helpers.views import AT, batch, view

from colocd.core.ahead import moments
from colocd.core.joint import Spot
from colocd.core.view import Checkpoint, Job


def jobs_of(rng: random.Random, gpus: int, asked: float) -> list[Job]:
    jobs: list[Job] = []
    at = 0
    while at < gpus:
        size = min(rng.choice((1, 1, 2, 4)), gpus - at)
        every = rng.uniform(600, 3600)
        signal = "USR1" if rng.random() < asked else None
        mark = Checkpoint(signal=signal, interval=every, saved=AT - rng.uniform(0, every), cost=10.0)
        jobs.append(batch(len(jobs), {"n1": ((1 << size) - 1) << at}, checkpoint=mark, started=AT - 9000))
        at += size
    return jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print("| GPUs of the place, asked | victims | common: lost, idle | own: lost, idle | places begun in parts |")
    print("|---|---|---|---|---|")
    for gpus in (4, 8):
        for asked in (0.0, 1 / 3):
            rng = random.Random(f"{args.seed} {gpus} {asked}")
            sums = {"common": [0.0, 0.0], "own": [0.0, 0.0]}
            victims = parts = 0
            for _ in range(args.places):
                jobs, latest = tuple(jobs_of(rng, gpus, asked)), rng.uniform(60, 900)
                v = view(*jobs)
                node = msgspec.structs.replace(v.nodes[0], used=0xFF)
                spot = Spot(0, (1 << gpus) - 1, jobs, 0, waits=False)
                victims += len(jobs)
                for name in sums:
                    found = moments(spot, node, latest, v, together=name == "common")
                    sums[name][0] += sum(m.lost for m in found.values())
                    idle = ((latest - found[j.ref].ahead) * (j.gpus or {})["n1"].bit_count() for j in jobs)
                    sums[name][1] += sum(idle)
                    parts += name == "own" and len({m.ahead for m in found.values()}) > 1
            n = args.places
            common, own = (f"{lost / n:.0f}, {idle / n:.0f}" for lost, idle in sums.values())
            print(f"| {gpus}, {asked:.0%} | {victims / n:.1f} | {common} | {own} | {parts / n:.0%} |")


if __name__ == "__main__":
    main()
