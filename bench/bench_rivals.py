"""coloc's forecaster against those of libraries on recorded loads: make bench-rivals DATA=FOLDER (docs/benchmarks-forecast.md)

    python bench/bench_rivals.py FOLDER [--origins 80] [--only WORD] [--rivals WORD]

The same origins, the same history, the same scores for all (core/backtest.py). Origins are as many, spread over all times of day;
rivals fit their parameters once a day and start from each origin's newest values. Libraries: pip install "coloc[bench]".
"""

import argparse
import math
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench.bench_forecast import STARTS, percent, series
from bench.rivals import RIVALS, Floats, Rival

from colocd.core.backtest import QUANTILES, TOP, margin, score, seasonal_ewma
from colocd.core.foresight.calendar import DAY, Bins, Ints
from colocd.core.foresight.foreseer import Foreseer

LONGEST = 21
"""Days of history that rivals are given at most."""
LEFT_OUT = ("client_",)


def origins_of(bins: int, train: int, far: int, per: int, most: int) -> Ints:
    """About `most` origins after the first `train` bins, with a stride that meets every time of day."""
    room = bins - far - (train - 1)
    stride = math.ceil(room / most) if room > 2 * most else 1
    while stride > 1 and math.gcd(stride, per) > 1:
        stride += 1
    return np.arange(train - 1, bins - far, stride)


def filled(values: Floats, per: int) -> Floats:
    """Holes take the value a day before, else the last one known: rivals cannot read holes."""
    found = values.copy()
    for i in np.flatnonzero(np.isnan(found)):
        found[i] = found[i - per] if i >= per else found[i - 1] if i else 0.0
    return np.nan_to_num(found)


def own(values: Floats, bins: Bins, ahead: tuple[int, ...]) -> tuple[Floats, Floats, float]:
    """coloc's medians and 0.95 quantiles [bin, horizon], and the CPU seconds that a bin took."""
    began = time.process_time()
    seer = Foreseer(bins, ahead, QUANTILES)
    middle = np.full((len(values), len(ahead)), np.nan)
    top = middle.copy()
    block = max(1, min(12, -(-len(values) // 700)))
    for a in range(0, len(values), block):
        seer.extend(values[a : a + block])
        middle[a : a + block] = seer.middle.span(a, a + block)
        top[a : a + block] = seer.told.span(a, a + block)[:, TOP]
    return middle, top, (time.process_time() - began) / len(values)


def rival(
    kind: type[Rival], values: Floats, per: int, ahead: tuple[int, ...], origins: Ints
) -> tuple[Floats, Floats, float, float]:
    """Medians and quantiles [origin, horizon], CPU seconds of a fit and of a forecast."""
    made, fitted, fits, tells = kind(per, ahead), -math.inf, [], []
    middle, top = np.empty((len(origins), len(ahead))), np.empty((len(origins), len(ahead)))
    for i, o in enumerate(origins):
        history = values[max(0, o + 1 - LONGEST * per) : o + 1]
        began = time.process_time()
        if o - fitted >= per:
            made.fit(history, o)
            fitted = o
            fits.append(time.process_time() - began)
            began = time.process_time()
        told = np.maximum(np.array(made.tell(history, o)), 0.0)
        tells.append(time.process_time() - began)
        middle[i], top[i] = told[:, 0], told[:, 1]
    return middle, top, float(np.mean(fits)), float(np.mean(tells))


def compare(name: str, values: Floats, bins: Bins, days: int, minutes: tuple[int, ...], most: int, rivals: str) -> None:
    per = bins.per_season
    ahead = tuple(round(m * 60 / bins.step) for m in minutes)
    origins = origins_of(len(values), days * per, max(ahead), per, most)
    rows = []
    middle, top, each = own(values, bins, ahead)
    rows.append(("coloc", middle[origins], top[origins], f"{each:.3f}"))
    simple = [seasonal_ewma(values, bins, a) for a in ahead]
    tops = [t[origins] + margin(values, t, a, origins, 7 * per) for t, a in zip(simple, ahead, strict=True)]
    rows.append(("seasonal EWMA", np.column_stack([t[origins] for t in simple]), np.column_stack(tops), "0.000"))
    for kind in (k for k in RIVALS if rivals in k.name):
        m, t, fit, tell = rival(kind, filled(values, per), per, ahead, origins)
        rows.append((kind.name, m, t, f"{fit:.2f} + {tell:.3f}"))
    for who, m, t, cost in rows:
        cells = []
        for i, a in enumerate(ahead):
            truth = values[origins + a]
            ok = ~np.isnan(truth) & ~np.isnan(m[:, i])
            found = score(truth[ok], m[ok, i], t[ok, i])
            cells.append(
                f"{percent(found.wape)} / {percent(found.pinball95_pct, 1.0)} / {percent(found.coverage95, 100)}"
            )
        print(
            f"| {name} ({', '.join(map(str, minutes))} min, n={len(origins)}) | {who} | {' | '.join(cells)} | {cost} |",
            flush=True,
        )


def imports() -> None:
    """Seconds to import each library, in a process of its own, warm."""
    for module in ("numpy", *(k.module for k in RIVALS if k.module)):
        spent = []
        for _ in range(3):
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
            spent.append(time.perf_counter() - began)
        print(f"import {module}: {sorted(spent)[1]:.2f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--origins", type=int, default=80)
    parser.add_argument("--only", default="", help="series whose name contains this")
    parser.add_argument("--rivals", default="", help="forecasters whose name contains this")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    print("| series | forecaster | near: WAPE / pinball / coverage | middle | far | CPU s: fit + forecast |")
    print("|---|---|---|---|---|---|")
    for name, (values, step, days, minutes) in series(options.folder).items():
        if options.only in name and not any(word in name for word in LEFT_OUT):
            bins = Bins(start=STARTS.get(name, 0.0), step=step)
            assert bins.per_season * step == DAY
            compare(name, values, bins, days, minutes, options.origins, options.rivals)
    imports()
    print(f"all in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
