"""Backtests of recorded loads against simple forecasters; `make bench-forecast DATA=FOLDER` (docs/benchmarks-forecast.md)."""

import csv
import gzip
import math
import sys
import time
from pathlib import Path

import numpy as np

from colocd.core.backtest import backtest
from colocd.core.foresight.calendar import DAY, Bins, Calendar, Floats
from colocd.core.foresight.outlook import Outlook

STARTS = {"NASA 1995": 804_556_800.0, "Azure chat 2024": 1_715_472_000.0}
"""First bins in Unix seconds, where the file tells the date; the others begin on an unknown day."""
CLIENTS = "servegen_m-small_client_rps_10min.csv.gz"


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


def main(folder: Path) -> None:
    own_titles = ("series", "min ahead", "n", "coloc: WAPE", "pinball", "coverage")
    titles = (*own_titles, "naive", "seasonal naive", "seasonal EWMA", "its pinball", "CPU s")
    print(f"| {' | '.join(titles)} |")
    print("|---" * len(titles) + "|")
    for name, (values, step, train, horizons) in series(folder).items():
        for minutes in horizons:
            begun = time.process_time()
            ahead, days = round(minutes * 60 / step), round(train * DAY / step)
            found = backtest(
                values, Bins(start=STARTS.get(name, 0.0), step=step), ahead, days, max(1, round(3600 / step))
            )
            own, simple = found.score, found.baselines
            cells = [
                name,
                minutes,
                found.n,
                percent(own.wape),
                percent(own.pinball95_pct, 1.0),
                percent(own.coverage95),
            ]
            cells += [percent(simple[key].wape) for key in ("naive", "seasonal_naive", "seasonal_ewma")]
            cells += [percent(simple["seasonal_ewma"].pinball95_pct, 1.0), f"{time.process_time() - begun:.1f}"]
            print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
    refit()


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
