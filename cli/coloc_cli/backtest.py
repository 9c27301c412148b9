"""`coloc forecast backtest`: reads the file, runs the backtest and says what came of it."""

from pathlib import Path
from typing import Any

import msgspec

from colocd.clock import Clock
from colocd.core.backtest import backtest
from colocd.core.foresight.calendar import DAY, Bins
from colocd.errors import BadRequest
from colocd.seriesfile import read_series
from colocd.site import site_calendar


def run_backtest(
    clock: Clock,
    file: str,
    *,
    column: str,
    time: str | None,
    step: float,
    horizon: float,
    train: float,
    every: float,
    timezone: str | None,
) -> dict[str, Any]:
    """The scores as `--json` prints them. Raises `BadFile` or `BadRequest` when there is nothing to score."""
    begun = clock.monotonic()
    series = read_series(Path(file), column, time, step, timezone)
    ahead, first, stride = (max(1, round(d / step)) for d in (horizon, train, every))
    if first + ahead > len(series.values):
        lasts = len(series.values) * step
        raise BadRequest(
            f"{file} holds {lasts / DAY:.1f} days, too few for {train / DAY:.3g} days of training and "
            f"{horizon / DAY:.3g} days of horizon",
            "choose a shorter --train or --horizon, or a longer history",
        )
    calendar = site_calendar(timezone, (), series.start, series.start + len(series.values) * step)
    bins = Bins(start=series.start, step=step, calendar=calendar)
    found = backtest(series.values, bins, ahead, first, stride)
    notes = list(series.notes)
    if abs(ahead * step - horizon) > 1e-6 * step:
        notes.append(f"the horizon is rounded to {ahead} steps of {step:g} s")
    if not found.n:
        notes.append("nothing could be scored: all that was to be foreseen are holes")
    return {
        "file": file,
        "column": column,
        "time": series.time,
        "step": step,
        "horizon": ahead * step,
        "train": first * step,
        "every": stride * step,
        "n": found.n,
        **msgspec.to_builtins(found.score),
        "baselines": msgspec.to_builtins(found.baselines),
        "holes": round(found.holes, 4),
        "notes": notes,
        "seconds": round(clock.monotonic() - begun, 3),
    }
