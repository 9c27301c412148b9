"""Backtests of recorded loads against simple forecasters; `make bench-forecast DATA=FOLDER` (docs/benchmarks-forecast.md)."""

import csv
import gzip
import math
import sys
import time
from pathlib import Path

import numpy as np

from colocd.core.backtest import Backtest, backtest
from colocd.core.foresight.calendar import DAY, Bins, Calendar, Floats
from colocd.core.foresight.outlook import Outlook

STARTS = {"NASA 1995": 804_556_800.0, "Azure chat 2024": 1_715_472_000.0}
"""First bins in Unix seconds, where the file tells the date; the others begin on an unknown day."""
CLIENTS = "servegen_m-small_client_rps_10min.csv.gz"
FAR = (540, 720, 1440)


def columns(path: Path) -> dict[str, Floats]:
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for name in rows[0]:
        try:
            found[name] = np.array([float(row[name] or "nan") for row in rows])
        except ValueError:
            continue
    return found


def interactive(clients: dict[str, Floats]) -> Floats:
    """Sum of the clients with more than 0.5 requests/s whose load of a day correlates with that of the day before by over 0.6."""
    chosen = []
    for name, load in clients.items():
        if name == "t_s" or np.nanmean(load) <= 0.5:
            continue
        off = load - np.nanmean(load)
        if np.nansum(off[:-144] * off[144:]) / np.nansum(off * off) > 0.6:
            chosen.append(load)
    total: Floats = np.sum(chosen, axis=0)
    return total


def series(folder: Path) -> dict[str, tuple[Floats, float, int, tuple[int, ...]]]:
    """Values, step, days of training and horizons in minutes."""
    clients = columns(folder / CLIENTS)
    burst = columns(folder / "burstgpt_hourly_days0-40.csv.gz")
    azure = columns(folder / "azure_llm_2024_conv_hourly_utc.csv.gz")["requests_conv"]
    found = {
        "ServeGen m-small, interactive": (interactive(clients), 600.0, 7, (20, 60, 180)),
        "ServeGen m-small, all": (
            columns(folder / "servegen_m-small_total_10min.csv.gz")["rps"],
            600.0,
            7,
            (20, 60, 180),
        ),
        "BurstGPT conversation": (burst["conversation"], 3600.0, 7, (60, 180, 360)),
        "BurstGPT api": (burst["api"], 3600.0, 7, (60, 180, 360)),
        "Azure chat 2024": (
            azure,
            3600.0,
            3,
            (60, 180, 360),
        ),
        "NASA 1995": (columns(folder / "nasa_http_1995-07_5min.csv.gz")["requests"], 300.0, 7, (15, 60, 180)),
    }
    for name in ("client_12", "client_17", "client_38"):
        found[f"ServeGen {name}"] = (clients[name], 600.0, 7, (20, 60, 180))
    return found


def percent(value: float | None, factor: float = 100.0) -> str:
    return "-" if value is None else f"{factor * value:.1f}"


def far(folder: Path) -> dict[str, tuple[Floats, float, int, tuple[int, ...]]]:
    """The series of a month, in hours, and those of two weeks, 9 to 24 hours ahead."""
    known = series(folder)
    five = known["NASA 1995"][0]
    hours = five[: len(five) // 12 * 12].reshape(-1, 12)
    count = (~np.isnan(hours)).sum(axis=1)
    nasa = np.where(count > 0, np.nansum(hours, axis=1) / np.maximum(count, 1), np.nan)
    found = {name: (*known[name][:3], FAR) for name in ("BurstGPT conversation", "BurstGPT api")}
    found["NASA 1995"] = (nasa, 3600.0, 7, FAR)
    return found | {name: (*known[name][:3], FAR) for name in known if name.startswith("ServeGen m-small")}


def others(folder: Path) -> dict[str, tuple[Floats, float, int, tuple[int, ...]]]:
    """Series by which no setting was chosen: the other ServeGen clients above 0.5 requests/s that are not nearly always idle,
    tokens of ServeGen and of BurstGPT's first week, all of BurstGPT."""
    found: dict[str, tuple[Floats, float, int, tuple[int, ...]]] = {}
    for name, load in columns(folder / CLIENTS).items():
        busy = np.nanmean(load) > 0.5 and (load > 0).mean() >= 0.2
        if busy and name not in ("t_s", "client_12", "client_17", "client_38"):
            found[name] = (load, 600.0, 7, (20, 60, 180))
    total = columns(folder / "servegen_m-small_total_10min.csv.gz")
    for way in ("input", "output"):
        found[f"{way} tokens"] = (total["rps"] * total[f"{way}_tok_per_req"], 600.0, 7, (20, 60, 180))
    minutes = columns(folder / "burstgpt_week1_1min_tokens.csv.gz")["tokens"]
    found["BurstGPT tokens"] = (minutes, 60.0, 3, (5, 20, 60))
    found["BurstGPT tokens, 10 min"] = (
        minutes[: len(minutes) // 10 * 10].reshape(-1, 10).mean(axis=1),
        600.0,
        3,
        (20, 60, 180),
    )
    found["BurstGPT"] = (columns(folder / "burstgpt_hourly_days0-40.csv.gz")["all"], 3600.0, 7, (60, 180, 360))
    return found


def scored(name: str, values: Floats, step: float, train: float, minutes: int) -> Backtest:
    """The backtest with an origin at each bin."""
    days = round(train * DAY / step)
    return backtest(values, Bins(start=STARTS.get(name, 0.0), step=step), round(minutes * 60 / step), days, 1)


def table(rows: dict[str, tuple[Floats, float, int, tuple[int, ...]]], half: bool) -> None:
    """Print a row for each series and horizon; `half`: also what the second half of the origins alone gives."""
    titles = ["series", "min ahead", "n", "coloc: WAPE", "pinball", "coverage"]
    titles += ["in the 2nd half: pinball", "its EWMA's", "coverage"] if half else []
    titles += ["naive", "seasonal naive", "seasonal EWMA", "its pinball", "CPU s"]
    print(f"\n| {' | '.join(titles)} |")
    print("|---" * len(titles) + "|")
    for name, (values, step, train, horizons) in rows.items():
        for minutes in horizons:
            begun = time.process_time()
            found = scored(name, values, step, train, minutes)
            spent = time.process_time() - begun
            own, simple = found.score, found.baselines
            cells: list[object] = [name, minutes, found.n, percent(own.wape)]
            cells += [percent(own.pinball95_pct, 1.0), percent(own.coverage95)]
            if half:
                late = scored(name, values, step, (train + len(values) * step / DAY) / 2, minutes)
                cells += [percent(late.score.pinball95_pct, 1.0)]
                cells += [percent(late.baselines["seasonal_ewma"].pinball95_pct, 1.0), percent(late.score.coverage95)]
            cells += [percent(simple[key].wape) for key in ("naive", "seasonal_naive", "seasonal_ewma")]
            cells += [percent(simple["seasonal_ewma"].pinball95_pct, 1.0), f"{spent:.1f}"]
            print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def summary(rows: dict[str, tuple[Floats, float, int, tuple[int, ...]]]) -> None:
    """Print in a line how many coverages are near what they should be, and the scores against the seasonal EWMA's."""
    covered, ratios = [], []
    for name, (values, step, train, horizons) in rows.items():
        for minutes in horizons:
            found = scored(name, values, step, train, minutes)
            own, usual = found.score, found.baselines["seasonal_ewma"]
            covered.append(100 * (own.coverage95 or 0.0))
            ratios.append([(own.wape or 1) / (usual.wape or 1), (own.pinball95_pct or 1) / (usual.pinball95_pct or 1)])
    wape, pinball = np.exp(np.log(ratios).mean(axis=0))
    inside = sum(93.95 <= c < 97.05 for c in covered)
    print(f"\n{len(rows)} other series: coverage within 94 to 97 on {inside} of {len(covered)} rows", end=" ")
    print(f"({min(covered):.1f} to {max(covered):.1f}); of the seasonal EWMA's", end=" ")
    print(f"WAPE {wape:.2f}, of its pinball loss {pinball:.2f} (geometric means)", flush=True)


def main(folder: Path) -> None:
    begun = time.process_time()
    table(series(folder), half=True)
    table(far(folder), half=False)
    summary(others(folder))
    refit()
    print(f"CPU seconds in all: {time.process_time() - begun:.0f}")


def refit(services: int = 20, days: int = 28) -> None:
    """CPU seconds to take in a new ten-minute mean and fit again, for 100 services with all horizons."""
    now = 1_760_054_400.0
    times = [now - i * 600 for i in range(days * 144, 0, -1)]
    samples = [(t, 60 - 50 * math.cos(2 * math.pi * (t % DAY) / DAY) + 3 * math.sin(t)) for t in times]
    outlooks = [Outlook(600.0, DAY, Calendar()) for _ in range(services)]
    begun = time.process_time()
    for outlook in outlooks:
        outlook.feed(samples, now)
    read = (time.process_time() - begun) / services
    spent = []
    for i in range(6):
        samples = [*samples, (now + i * 600, 60.0)]
        begun = time.process_time()
        for outlook in outlooks:
            outlook.feed(samples, now + (i + 1) * 600)
        spent.append((time.process_time() - begun) * 100 / services)
    # Quantiles of the kept errors are sorted at each third mean only.
    print(f"\nCPU seconds: refit of 100 services {np.mean(spent):.2f}, at most {max(spent):.2f};", end=" ")
    print(f"reading {days} days of history at a start {read:.2f} a service")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python bench/bench_forecast.py FOLDER with the recorded loads")
    main(Path(sys.argv[1]))
