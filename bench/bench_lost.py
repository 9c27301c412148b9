"""Work lost per reclaimed GPU-hour: coloc's planned and emergency reclaims and Slurm's own preemption, live: make bench-lost

    python bench/bench_lost.py [--seasons 11] [--season 100] [--arm slurm,emergency,planned] [--json FILE]

Three throw-away clusters of 4 nodes x 8 GPUs side by side, the same ten batch jobs on each (28 GPUs) and one replica of
4 GPUs; a peak of two replicas more each season, at the same seconds in all arms. The batch jobs save every
6, 12 or 24 s, in 0.3, 1.5 or 5 s (longer than KillWait); three of five also when they are asked, by USR1 (coloc) or by TERM
(Slurm). What is lost comes from their journals: steps that had to be done again, times 0.1 s, times GPUs. What is reclaimed is
the time for which Slurm's records say that replicas held GPUs.
"""

import argparse
import json
import os
import platform
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.lost_account import Peak
from bench.lost_arm import CLOCK, Arm, Plan
from bench.lost_arms import ColocArm, PlannedArm, SlurmArm

ARMS: dict[str, type[Arm]] = {"slurm": SlurmArm, "emergency": ColocArm, "planned": PlannedArm}
COLUMNS = {
    "arm": "arm",
    "peaks": "peaks",
    "reclaims": "reclaims",
    "victims": "victims",
    "reclaimed_gpu_hours": "GPU-hours reclaimed",
    "lost_gpu_seconds": "GPU-seconds lost",
    "lost_per_gpu_hour": "lost per GPU-hour",
    "lost_per_peak_median": "lost per peak, median",
    "lost_per_peak_max": "largest",
    "late_s_median": "replicas late by, median (s)",
    "late_s_max": "largest (s)",
    "never_complete": "peaks without all replicas",
    "batch_gpu_hours": "GPU-hours of batch work done",
}


LENGTH = 14.0
"""Seconds of a peak. More than a minute must lie between two: coloc looks ahead for that at least when it starts a job."""


def pattern(season: float, more: int) -> tuple[Peak, ...]:
    """One peak a season."""
    return (Peak(start=season - LENGTH - 1, end=season - 1, more=more),)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table, an arm a line."""
    cells = [list(COLUMNS.values()), *(["-" if row[k] is None else str(row[k]) for k in COLUMNS] for row in rows)]
    text = ["| " + " | ".join(row) + " |" for row in cells]
    text.insert(1, "|" + "---|" * len(COLUMNS))
    kinds = sorted({kind for row in rows for kind in row["lost_by_kind"]})
    text += ["", "| GPU-seconds lost by jobs that | " + " | ".join(row["arm"] for row in rows) + " |"]
    text.append("|---|" + "---|" * len(rows))
    text += [
        f"| {kind} | " + " | ".join(str(row["lost_by_kind"].get(kind, 0)) for row in rows) + " |" for kind in kinds
    ]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seasons", type=int, default=11, help="one peak each")
    parser.add_argument("--season", type=float, default=100.0, help="seconds, at least 90")
    parser.add_argument("--more", type=int, default=2, help="replicas that a peak needs besides the one that is there")
    parser.add_argument("--kill-wait", type=int, default=3, help="Slurm's KillWait, seconds")
    parser.add_argument("--seed", type=int, default=1, help="which job has how many GPUs")
    parser.add_argument("--arm", default=",".join(ARMS), help="which arms")
    parser.add_argument("--json", metavar="FILE", help="write everything to FILE as well")
    args = parser.parse_args()
    unknown = set(args.arm.split(",")) - set(ARMS)
    if unknown:
        parser.error(f"there is no arm {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the clusters go down
    plan = Plan(
        season=args.season, pattern=pattern(args.season, args.more), seasons=args.seasons, seed=args.seed,
        kill_wait=args.kill_wait, origin=CLOCK.now(),
    )  # fmt: skip
    names = args.arm.split(",")
    together = threading.Barrier(len(names))
    arms = [ARMS[name](plan, together) for name in names]
    threads = [threading.Thread(target=arm.run) for arm in arms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for arm in arms:
        if arm.error is not None:
            print(f"bench_lost: {arm.name}: {arm.error!r}", file=sys.stderr)
    rows = [arm.row for arm in arms if arm.error is None]
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"
    if args.json:
        facts = {
            "machine": machine,
            "seed": args.seed,
            "season": args.season,
            "kill_wait": args.kill_wait,
            "arms": rows,
        }
        Path(args.json).write_text(json.dumps(facts, indent=1) + "\n")
    if rows:
        print(f"{machine}; load {os.getloadavg()[0]:.1f}\n{table(rows)}")
    sys.exit(len(rows) != len(arms))


if __name__ == "__main__":
    main()
