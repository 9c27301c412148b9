"""Quantiles around a middle: scaled errors of the past at the same horizon, kept honest by what has come true since.

Several scales of the error, and the quantiles of the load itself, race against each other by pinball loss. Their mixture is
stretched or shrunk by a debt: what was missed beyond the share that may be (the saturating integrator of Angelopoulos, Candes &
Tibshirani 2023, "Conformal PID control"): a miss or two change little, which keeps the margins narrow; several change much.
"""

import numpy as np

from colocd.core.foresight.calendar import Bools, Floats, Ints
from colocd.core.foresight.race import Race

SCALES = 8
"""Errors: constant, in proportion to the foreseen load, to its root, to recent errors, to those at this bin of the hour, to those
at this time of the day, to the load of many seasons; the load itself, whatever is foreseen."""
WINDOW = 8
"""Seasons of errors kept."""
MEMORY = 1.5
"""Seasons after which a regret counts half, for near horizons."""
RUNS = 6.0
"""Horizons after which it counts half, at least: errors of overlapping forecasts are alike, so fewer of them are news."""
DEBT = 2.2
"""Misses too many (or that many too few) that stretch margins by e to `GAIN`, at 0.95; more where misses are more frequent."""
MOST = 1.5
"""No more than so many times `DEBT` is kept in mind."""
GAIN = 0.5
LAG = 0.25
"""Seasons ahead for which so many misses are meant; farther ahead, where they come in longer rows before the first is known,
as many times more. The debt's stretching fades there with the square of the distance: a bad day is over when it is known."""
ROW = 12
"""Bins that may be learned from at once as if they were told one after the other."""
SLOW, FAR = 0.02, 0.7
"""What a miss an hour too many adds for good, and the most that this may come to."""
NARROW, WIDE = -1.2, 0.8
"""Margins are multiplied by e to something between these."""
SAFE = 0.005
"""Upper quantiles aim this much higher: what moves is always missed first."""
DOUBT = 20.0
"""Errors of the past needed before they weigh as much as the rule of thumb for a new series."""
LEAST = 0.05
"""Margins that are stretched are at least this part of the usual load wide, so that none is stuck at nothing."""
_Z = {0.5: 0.0, 0.75: 0.674, 0.9: 1.282, 0.95: 1.645, 0.99: 2.326}


class Margins:
    """Quantiles of the error at each horizon; `ahead` in seasons, `phases` bins an hour."""

    def __init__(self, quantiles: tuple[float, ...], ahead: Floats, season: int, phases: int) -> None:
        self.q = np.array(quantiles)
        self._up = self.q > 0.5
        self._aim = np.where(self._up, self.q + np.minimum(SAFE, (1 - self.q) / 2), self.q)
        shape = (len(quantiles), len(ahead))
        far = np.clip(ahead / LAG, 1.0, np.maximum(1.0, ahead * season))  # no more misses in a row than bins ahead
        self._season, self._phases = season, phases
        self._scores = np.full((max(200, WINDOW * season), len(ahead), SCALES), np.nan)
        self._at = self._fitted = 0
        self._every = max(1, season // 48)  # sorting costs most, and errors of half an hour move quantiles little
        self._owed = np.zeros(shape)
        self._owed_phase = np.zeros((len(quantiles), phases, len(ahead)))
        self._slow = np.zeros(shape)
        often = np.sqrt(self.q * (1 - self.q) / (0.95 * 0.05))
        self._unit = DEBT * np.maximum(often, 1.0)[:, None] * far
        self._gain = (GAIN / far**2)[None, None]
        self._races = Race(shape, SCALES)
        self._memory = 0.5 ** (1 / (np.maximum(MEMORY, RUNS * ahead) * season))[:, None]
        thumb = np.array([_Z[q] for q in quantiles])[:, None] * (0.1 + 0.4 * (1 - np.exp(-12 * ahead)))
        flat, times = thumb, np.sign(thumb) * 2.0
        self._thumb = np.stack([flat, flat, flat, times, times, times, flat, flat], axis=-1)
        self._edges = np.zeros((*shape, SCALES))
        self._trust = np.zeros(len(ahead))
        self._heard = np.zeros(len(ahead))

    def scales(self, middle: Floats, size: Floats, long: Floats, recent: tuple[Floats, ...]) -> Floats:
        """The scales [origin, horizon, SCALES] at predictions.

        `long` [origin, 1] the load of many seasons; `recent` the usual errors lately, by bin of hour and of season.
        """
        low = np.maximum(middle, 0.02 * size)
        floored = [np.maximum(r, 0.03 * size) for r in recent]
        rest = [np.maximum(long, 1e-9) + 0 * middle, np.ones(middle.shape)]
        return np.stack([size + 0 * middle, low, np.sqrt(low * size), *floored, *rest], axis=-1)

    def predict(
        self, middle: Floats, scales: Floats, roof: Floats, phase: Ints
    ) -> tuple[Floats, Floats, Floats, Floats]:
        """Quantiles, their mixture before it is stretched, its width [origin, quantile, horizon], each scale's own [..., SCALES].

        `roof` [origin, horizon] is never exceeded; `phase` is the bin of the hour of what is foreseen.
        """
        size = scales[..., 0]
        trust = self._trust[:, None]
        rough = scales.copy()
        rough[..., -1] = size
        base = np.broadcast_to(middle[..., None], scales.shape).copy()
        base[..., -1] = 0.0
        known = base + self._edges[:, None] * scales
        guess = middle[..., None] + self._thumb[:, None] * rough
        highest = np.maximum(roof, middle)
        each = np.clip(known * trust + guess * (1 - trust), 0.0, highest[..., None])
        spread = self._edges.copy()
        spread[..., -1] -= spread[np.argmin(np.abs(self.q - 0.5)), :, -1]
        wide = np.abs(spread)[:, None] * scales * trust + np.abs(self._thumb)[:, None] * rough * (1 - trust)
        weights = self._races.weights[:, None]
        mixed = (each * weights).sum(axis=-1)
        width = (np.maximum(wide, LEAST * size[..., None]) * weights).sum(axis=-1)
        told = mixed + width * (np.exp(self._stretch(phase)) - 1)
        told = np.where((self.q >= 0.9)[:, None, None], np.maximum(told, middle), np.maximum(told, 0.0))
        told = np.minimum(np.maximum.accumulate(told, axis=0), highest)
        return np.moveaxis(told, 1, 0), np.moveaxis(mixed, 1, 0), np.moveaxis(width, 1, 0), np.moveaxis(each, 1, 0)

    def _stretch(self, phase: Ints) -> Floats:
        """Logarithms by which margins are stretched [quantile, origin, horizon]."""
        h = np.arange(phase.shape[1])[None, :]
        found = _bent(self._owed_phase[:, phase, h] / self._unit[:, None])
        if self._phases > 1:
            found = found + _bent(self._owed / self._unit)[:, None]
        result: Floats = np.clip(self._gain * found + self._slow[:, None], NARROW, WIDE)
        return result

    def learn(
        self,
        middle: Floats,
        scales: Floats,
        told: Floats,
        mixed: Floats,
        width: Floats,
        each: Floats,
        truth: Floats,
        known: Bools,
        usual: Floats,
        phase: Ints,
    ) -> None:
        """Take in what came true, all as `predict` returned it; `usual`: a usual error at each horizon."""
        h, most = np.arange(truth.shape[1]), MOST * self._unit
        for i in np.flatnonzero(known.any(axis=1)):
            self._heard += known[i]
            # Of a long row, read at a start, all was told before the first was known: what would have been told, else.
            late = len(truth) > ROW
            said = mixed[i] + width[i] * (np.exp(self._stretch(phase[i : i + 1])[:, 0]) - 1) if late else told[i]
            off = np.where(known[i] & self._up[:, None], self._aim[:, None] - (truth[i] <= said), 0.0)
            # Errors of the first season are those of a forecaster that knew nothing yet.
            row = off * (self._heard > self._season)
            self._owed = np.clip(self._owed + row / self._phases, -most, most)
            self._slow = np.clip(self._slow + SLOW * row / self._phases, -FAR, FAR)
            self._owed_phase[:, phase[i], h] = np.clip(self._owed_phase[:, phase[i], h] + row, -most, most)
        slope = np.where(truth[:, None] <= mixed, self.q[:, None] - 1, self.q[:, None])
        regret = slope[..., None] * (each - mixed[..., None]) / usual[None, None, :, None]
        self._races.learn(regret, np.broadcast_to(known[:, None], told.shape), self._memory)
        score = (truth - middle)[..., None] / scales
        score[..., -1] = truth
        self._scores[(self._at + np.arange(len(score))) % len(self._scores)] = np.where(known[..., None], score, np.nan)
        self._at += len(score)
        if self._at - self._fitted >= self._every:
            self._fit()
            self._fitted = self._at

    def _fit(self) -> None:
        """The quantiles of the kept errors; those of the older half of a short history were made by one who knew less."""
        size = max(min(len(self._scores), self._at // 2), min(self._season, self._at), min(10, self._at))
        kept = np.sort(self._scores[np.arange(self._at - size, self._at) % len(self._scores)], axis=0)
        count = (~np.isnan(kept[..., 0])).sum(axis=0)
        last = np.maximum(count - 1, 0)
        place = np.clip(self.q[:, None] * (count + 1) - 1, 0, last)
        low = np.floor(place).astype(np.int64)
        part = (place - low)[..., None]
        h = np.arange(kept.shape[1])[None, :]
        edges = kept[low, h] * (1 - part) + kept[np.minimum(low + 1, last), h] * part
        self._edges = np.where(count[None, :, None] > 0, edges, 0.0)
        self._trust = count / (count + DOUBT)


def _bent(debt: Floats) -> Floats:
    """Squared, with its sign: flat near nothing, steep beyond one."""
    found: Floats = np.sign(debt) * debt * debt
    return found
