"""A week of recorded loads in a closed loop on a virtual cluster: python bench/bench_replay.py FOLDER (docs/benchmarks-replay.md)

    python bench/bench_replay.py ../shared/data/serving [--days 7] [--json FILE]

Seven services on a cluster that is smaller than their peaks together; batch jobs wait always. The arms: coloc by its forecast
alone, coloc with its margin on the present load at two quantiles, the last value + 20 %, and an oracle. All of them plan with
coloc's own `plan` (bench/replay_loop.py).
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import msgspec
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.bench_forecast import columns, series
from bench.replay_arms import LOOK, STEP, Floats, Tide, coloc, oracle, reactive, service
from bench.replay_loop import Result, replay

BEGIN = 1_760_832_000.0
"""Sunday, 19 October 2025, 00:00 UTC: where the weeks are laid."""
WARM = 60
"""Minutes before, in which all arms start their first replicas."""
PEAK = 10
"""Replicas that carry a service's highest load of the week."""


def loads(folder: Path) -> dict[str, tuple[Floats, float, int]]:
    """Values, step, and the day of the file with which the replayed week begins; what lies before is history."""
    found = series(folder)
    burst = columns(folder / "burstgpt_week1_1min_tokens.csv.gz")["tokens"]
    days = {
        "ServeGen m-small, interactive": 7, "ServeGen m-small, all": 7, "BurstGPT conversation": 21, "BurstGPT api": 21,
        "Azure chat 2024": 0, "NASA 1995": 15,
    }  # fmt: skip
    return {**{k: (found[k][0], found[k][1], d) for k, d in days.items()}, "BurstGPT tokens": (burst, 60.0, 0)}


def tide(name: str, gpus: int, values: Floats, step: float, day: int, days: int) -> Tide:
    """A service from a series: between the middles of its bins the load is a straight line."""
    ok = ~np.isnan(values)
    middles = (np.arange(len(values)) + 0.5) * step + BEGIN - day * 86400
    begin = BEGIN - WARM * STEP
    minutes = begin + np.arange(WARM + days * 1440 + LOOK) * STEP
    demand = np.interp(minutes, middles[ok], values[ok])
    first = middles[0] - step / 2
    grid = np.arange(first, minutes[-1], STEP)
    fine = np.interp(grid, middles[ok], values[ok])
    place = ((grid - first) // step).astype(int)
    fine[(place >= len(values)) | ~ok[np.minimum(place, len(values) - 1)]] = np.nan  # holes stay holes
    whole = fine[: len(fine) // 10 * 10].reshape(-1, 10)
    history = [(first + i * 600, None if np.isnan(row).any() else float(row.mean())) for i, row in enumerate(whole)]
    return Tide(service(name, gpus, float(demand.max()) / PEAK, PEAK * 3 // 2), demand, history)


def table(tides: list[Tide], rows: dict[str, Result], minutes: int) -> str:
    names = [t.spec.name for t in tides]
    heads = (
        "arm",
        "minutes short",
        "load beyond capacity",
        "batch GPU-h",
        "work lost, GPU-h",
        "replicas' GPU-h",
        "evictions",
    )
    lines = [f"| {' | '.join(heads)} | minutes without a place |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for arm, r in rows.items():
        total = sum(r.short.values())
        mean = sum(r.unserved.values()) / len(names)
        lines.append(
            f"| {arm} | {total} ({total / minutes / len(names):.2%}) | {mean:.3%} | {r.batch_hours:.0f} | {r.lost_hours:.1f} |"
            f" {r.replica_hours:.0f} | {r.evictions} | {r.refused} |"
        )
    lines += ["", f"| minutes short | {' | '.join(rows)} |", "|---|" + "---|" * len(rows)]
    lines += [f"| {name} | {' | '.join(str(r.short[name]) for r in rows.values())} |" for name in names]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    began = time.perf_counter()
    sizes = (2, 4, 1)
    tides = [tide(n, sizes[i % 3], *x, options.days) for i, (n, x) in enumerate(loads(options.folder).items())]
    gpus = sum(np.ceil(t.demand / t.spec.capacity.per_replica) * t.spec.gpus_per_replica for t in tides)
    nodes = math.ceil(1.25 * float(np.max(gpus)) / 8)
    peaks = sum(PEAK * t.spec.gpus_per_replica for t in tides)
    print(
        f"{nodes} nodes, {nodes * 8} GPUs; peaks together {peaks}, most at once {np.max(gpus):.0f}, mean {np.mean(gpus):.0f}\n"
    )
    arms = [coloc(0.9, tides, margin=False), coloc(0.9, tides), coloc(0.95, tides), reactive(0.2, tides), oracle(tides)]
    results = replay(tides, arms, nodes, BEGIN - WARM * STEP, WARM, options.days * 1440)
    rows = {arm.name: found for arm, found in zip(arms, results, strict=True)}
    print(table(tides, rows, options.days * 1440))
    print(f"\n{time.perf_counter() - began:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(msgspec.to_builtins(rows), indent=2) + "\n")


if __name__ == "__main__":
    main()
