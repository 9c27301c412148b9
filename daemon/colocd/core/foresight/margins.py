"""Quantiles around a middle: scaled errors of the past at the same horizon, kept honest by what has come true since.

Adaptive conformal inference (Gibbs & Candes 2021; the multiplier follows the coverage like the integrator of Angelopoulos,
Candes & Tibshirani 2023), with several scales of the error that race against each other by pinball loss.
"""

import numpy as np

from colocd.core.foresight.calendar import Bools, Floats, Ints
from colocd.core.foresight.race import Race

SCALES = 6
"""Constant, in proportion to the foreseen load, to its root, to recent errors, to those at this bin of the hour, of the day."""
WINDOW = 8
"""Seasons of errors kept."""
GAIN, GAIN_PHASE = 0.08, 0.1
"""How fast a margin follows its coverage, per bin: in all, and at each bin of the hour (hourly jobs hit the same one)."""
LIMIT = 1.0
"""Margins are stretched or shrunk by at most e to this."""
SAFE = 0.004
"""Upper quantiles aim this much higher: what moves is always missed first."""
DOUBT = 20.0
"""Errors of the past needed before they weigh as much as the rule of thumb for a new series."""
_Z = {0.5: 0.0, 0.75: 0.674, 0.9: 1.282, 0.95: 1.645, 0.99: 2.326}


class Margins:
    """Quantiles of the error at each horizon; `ahead` in seasons, `phases` bins an hour."""

    def __init__(self, quantiles: tuple[float, ...], ahead: Floats, season: int, phases: int) -> None:
        self.q = np.array(quantiles)
        self._up = self.q > 0.5
        self._aim = np.where(self._up, self.q + np.minimum(SAFE, (1 - self.q) / 2), self.q)
        shape = (len(quantiles), len(ahead))
        self._scores = np.full((max(200, WINDOW * season), len(ahead), SCALES), np.nan)
        self._at = self._fitted = 0
        self._every = max(1, season // 48)  # sorting costs most, and errors of half an hour move quantiles little
        self._stretch = np.zeros(shape)
        self._stretch_phase = np.zeros((len(quantiles), phases, len(ahead)))
        self._gain = np.where(self._up, GAIN * np.sqrt(144 / max(season, 1)), 0.0)
        self._gain = np.minimum(self._gain, 0.25)
        self._gain_phase = np.where(self._up, GAIN_PHASE if phases > 1 else 0.0, 0.0)
        self._races = Race(shape, SCALES)
        self._memory = 0.5 ** (1 / (7 * season))
        thumb = np.array([_Z[q] for q in quantiles])[:, None] * (0.1 + 0.4 * (1 - np.exp(-12 * ahead)))
        self._thumb = np.stack([thumb, thumb, thumb, *([np.sign(thumb) * 2.0] * 3)], axis=-1)
        self._edges = self._thumb

    def scales(self, middle: Floats, size: Floats, recent: tuple[Floats, ...]) -> Floats:
        """The scales [origin, horizon, SCALES] at predictions; `recent` the usual errors lately, by bin of hour and of season."""
        low = np.maximum(middle, 0.02 * size)
        floored = [np.maximum(r, 0.03 * size) for r in recent]
        return np.stack([size + 0 * middle, low, np.sqrt(low * size), *floored], axis=-1)

    def predict(self, middle: Floats, scales: Floats, roof: Floats, phase: Ints) -> tuple[Floats, Floats]:
        """Quantiles [origin, quantile, horizon] and each scale's own [origin, quantile, horizon, SCALES].

        `roof` [origin, horizon] is never exceeded; `phase` is the bin of the hour of what is foreseen.
        """
        h = np.arange(middle.shape[1])[None, :]
        stretch = np.exp(np.clip(self._stretch[:, None] + self._stretch_phase[:, phase, h], -LIMIT, LIMIT))
        each = middle[None, ..., None] + self._edges[:, None] * scales[None] * stretch[..., None]
        found = np.maximum((each * self._races.weights[:, None]).sum(axis=-1), 0.0)
        found = np.minimum(np.maximum.accumulate(found, axis=0), np.maximum(roof, middle))
        return np.moveaxis(found, 1, 0), np.moveaxis(each, 1, 0)

    def learn(
        self,
        middle: Floats,
        scales: Floats,
        told: Floats,
        each: Floats,
        truth: Floats,
        known: Bools,
        usual: Floats,
        phase: Ints,
    ) -> None:
        """Take in what came true, all as `predict` returned it; `usual`: a usual error at each horizon."""
        covered = truth[:, None] <= told
        off = np.where(known[:, None], self._aim[:, None] - covered, 0.0)
        self._stretch = np.clip(self._stretch + self._gain[:, None] * off.sum(axis=0), -1.0, 1.0)
        h = np.arange(truth.shape[1])
        for i in np.flatnonzero(known.any(axis=1)):
            self._stretch_phase[:, phase[i], h] += self._gain_phase[:, None] * off[i]
        np.clip(self._stretch_phase, -1.0, 1.0, out=self._stretch_phase)
        slope = np.where(covered, self.q[:, None] - 1, self.q[:, None])
        regret = slope[..., None] * (each - told[..., None]) / usual[None, None, :, None]
        self._races.learn(regret, np.broadcast_to(known[:, None], told.shape), self._memory)
        score = np.where(known[..., None], (truth - middle)[..., None] / scales, np.nan)
        self._scores[(self._at + np.arange(len(score))) % len(self._scores)] = score
        self._at += len(score)
        if self._at - self._fitted >= self._every:
            self._fit()
            self._fitted = self._at

    def _fit(self) -> None:
        """The quantiles of the kept errors, mixed with the rule of thumb while they are few."""
        kept = np.sort(self._scores[: min(self._at, len(self._scores))], axis=0)
        count = (~np.isnan(kept[..., 0])).sum(axis=0)
        last = np.maximum(count - 1, 0)
        place = self.q[:, None] * last
        low = np.floor(place).astype(np.int64)
        part = (place - low)[..., None]
        h = np.arange(kept.shape[1])[None, :]
        edges = kept[low, h] * (1 - part) + kept[np.minimum(low + 1, last), h] * part
        trust = (count / (count + DOUBT))[None, :, None]
        self._edges = np.where(count[None, :, None] > 0, edges * trust + self._thumb * (1 - trust), self._thumb)
