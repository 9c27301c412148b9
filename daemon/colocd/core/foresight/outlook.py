"""A service's outlook: its history fed to a forecaster bin by bin, and what that foresees from now on as a `Forecast`."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from colocd.core.foresight import experts
from colocd.core.foresight.calendar import Bins, Calendar, Floats
from colocd.core.foresight.foreseer import NAMES, PERSISTENCE, Foreseer
from colocd.core.foresight.past import LEVELS
from colocd.core.view import Forecast, Quantiles, Reading, Record

Sample = tuple[float, float | None]
"""(Begin of a bucket in Unix seconds, its mean); None is a hole."""

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)
KEYS = tuple(f"{q:g}" for q in QUANTILES)
POINTS = 96
"""Points of a forecast over one season."""
HORIZONS = (1 / 144, 1 / 48, 1 / 24, 1 / 12, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1.0)
"""Parts of a season for which a race is run: 10 min to 24 h of a day."""
LONGEST = 35
"""Seasons of history that are read."""
OLD_BLOCK, NEW_BLOCK = 288, 24
"""Bins learned from at once while a history is read: at most, far back in a long one; and in its last tenth."""
USUAL = 2
"""The horizon, of `HORIZONS`, that a forecast is judged by in short: an hour of a day."""
CYCLE_GAIN = 0.9
"""A cycle is told of when the best forecaster that knows seasons errs less than this part of the best that does not."""


class Outlook:
    """One service. `feed` is given the history; `forecast` tells what is foreseen."""

    def __init__(self, width: float, season: float, calendar: Calendar) -> None:
        self.width, self.season, self._calendar = width, season, calendar
        self._foreseer: Foreseer | None = None
        self._next = 0.0
        self._total = 0
        self.behind = True
        """The history is not read to its end yet."""

    @property
    def begun(self) -> bool:
        """Whether anything was read yet."""
        return self._foreseer is not None

    def feed(self, samples: Sequence[Sample], now: float, most: int = 10**9) -> int:
        """Learn from the buckets that ended before `now` and are new, at most about `most`; returns how many were read."""
        if self._foreseer is None:
            keep = now - LONGEST * self.season
            first = next((at for at, v in samples if v is not None and keep <= at <= now - self.width), None)
            if first is None:
                return 0
            per = self.season / self.width
            ahead = tuple(sorted({max(1, round(part * per)) for part in HORIZONS}))
            bins = Bins(start=first, step=self.width, season=self.season, calendar=self._calendar)
            self._foreseer = Foreseer(bins, ahead, QUANTILES)
            self._next = first
            self._total = round((now - first) / self.width)
        end = self._next + np.floor((now - self._next) / self.width + 1e-9) * self.width
        done = 0
        while self._next < end - 1e-6 and done < most:
            left = round((end - self._next) / self.width)
            old = left > max(NEW_BLOCK, self._total // 10)
            block = max(NEW_BLOCK, min(OLD_BLOCK, self._total // 20)) if old else NEW_BLOCK
            size = min(left, block, max(1, most - done))
            values = np.full(size, np.nan)
            i = bisect_left(samples, self._next - 1e-6, key=lambda s: s[0])
            while i < len(samples) and samples[i][0] < self._next + size * self.width - 1e-6:
                at, value = samples[i]
                if value is not None:
                    values[min(size - 1, max(0, round((at - self._next) / self.width)))] = value
                i += 1
            self._foreseer.extend(values)
            self._next += size * self.width
            done += size
        self.behind = self._next < end - 1e-6
        return done

    def forecast(self, load: Reading | None, now: float) -> Forecast | None:
        """What is foreseen for one season from `now`; None: nothing was ever read.

        Between the horizons of the races the shape of the usual season is followed, and only the distance to it interpolated.
        """
        seer = self._foreseer
        if seer is None or seer.past.n == 0:
            return None
        o = seer.past.n - 1
        told = seer.told.span(o, o + 1)[0]  # [quantile, horizon]
        if np.isnan(told).any():
            return None
        middle = told[0]
        start = seer.bins.start + (o + 0.5) * self.width
        knots: Floats = start + seer.ahead.astype(np.float64) * self.width
        at: Floats = now + np.arange(POINTS + 1, dtype=np.float64) * self.season / POINTS
        usual = self._usual(at)
        off = middle - self._usual(knots)
        here = load.value if load is not None else float(seer.past.filled.span(o, o + 1)[0])
        first = max(start, now) if load is not None else start
        if knots[0] <= first:  # the newest bin is the one that is being measured
            first = knots[0] - 0.5 * self.width
        x = np.concatenate([[first], knots])
        base = self._usual(np.array([first]))[0]
        line = np.maximum(usual + np.interp(at, x, np.concatenate([[here - base], off])), 0.0)
        size = np.maximum(middle, 0.05 * middle.max() + 1e-12)
        points = [line]
        for row in told[1:]:
            spread = np.interp(at, x, np.concatenate([[0.0], (row - middle) / size]))
            points.append(line + spread * np.maximum(line, 0.05 * middle.max()))
        values = np.maximum.accumulate(np.array(points), axis=0).T.tolist()
        step = self.season / POINTS
        records = self.records()
        return Forecast(
            points=tuple(Quantiles(i * step, dict(zip(KEYS, row, strict=True))) for i, row in enumerate(values)),
            step=step,
            trust=self._trust(records),
            basis=self._basis(records, load is not None),
            records=records,
        )

    def _usual(self, at: Floats) -> Floats:
        """The usual season at Unix times, by kind of day; the level of the last day where none is known."""
        assert self._foreseer is not None
        past = self._foreseer.past
        season = max(1, int(self.season / self.width + 1e-9))
        place = (at - past.bins.start) / self.width - 0.5
        low = np.floor(place).astype(np.int64)
        level = float(past.level.span(past.n - 1, past.n)[0, 0, LEVELS - 1])
        found = []
        for j in (low, low + 1):
            beyond = np.maximum(0, -(-(j - (past.n - 1)) // season) - 1)
            found.append(past.fallback(past.profile.at(j - beyond * past.season), level)[:, 1])
        part = place - low
        result: Floats = found[0] * (1 - part) + found[1] * part
        return result

    def records(self) -> tuple[Record, ...]:
        """How well each horizon was foreseen lately; those of which nothing came true yet are left out."""
        seer = self._foreseer
        if seer is None:
            return ()
        found = []
        for i, ahead in enumerate(seer.ahead):
            if seer.heard[i] < 3 or seer.weight[i] <= 0:
                continue
            weights = seer.race.weights[i]
            best = int(np.argmax(weights))
            found.append(
                Record(
                    ahead=float(ahead * self.width),
                    wape=float(seer.usual[0, i] / seer.weight[i]),
                    persistence=float(seer.usual[2, i] / seer.weight[i]),
                    covered95=float(seer.covered[QUANTILES.index(0.95), i]),
                    seen=int(seer.heard[i]),
                    used=NAMES[PERSISTENCE] if seer.lost[i] else NAMES[best],
                    lost=bool(seer.lost[i]),
                )
            )
        return tuple(found)

    @property
    def cyclic(self) -> bool | None:
        """Whether knowing the season helps to foresee an eighth of it or more; None: too little came true to say."""
        seer = self._foreseer
        if seer is None:
            return None
        per = self.season / self.width
        far = (seer.ahead >= per / 8) & (seer.ahead < per) & (seer.heard >= per / 2)
        if not far.any() or seer.past.n < 1.5 * per:
            return None
        error = seer.errors[far].mean(axis=0)
        seasonal = list(experts.SEASONAL)
        others = [i for i in range(len(experts.NAMES)) if i not in experts.SEASONAL]
        return bool(error[seasonal].min() < CYCLE_GAIN * error[others].min())

    @staticmethod
    def _trust(records: Sequence[Record]) -> float | None:
        return max(0.0, 1.0 - records[min(USUAL, len(records) - 1)].wape) if records else None

    def _basis(self, records: Sequence[Record], reading: bool) -> str:
        words = [
            {True: "cycle found", False: "no cycle found", None: "history too short to tell of a cycle"}[self.cyclic]
        ]
        if not records:
            words.append("margins by rule of thumb")
        else:
            r = records[min(USUAL, len(records) - 1)]
            by = "by the last value, which nothing beat" if r.lost else f"mostly by {r.used}"
            words.append(f"{_span(r.ahead)} ahead {by}: lately {r.wape:.1%} off (last value: {r.persistence:.1%})")
            words.append(f"{r.covered95:.1%} at or below q0.95")
        if not reading:
            words.append("no current reading")
        return "; ".join(words)


def _span(seconds: float) -> str:
    return (
        f"{seconds / 3600:.3g} h"
        if seconds >= 3600
        else f"{seconds / 60:.3g} min"
        if seconds >= 60
        else f"{seconds:.3g} s"
    )
