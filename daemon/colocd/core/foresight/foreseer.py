"""The forecaster: a race of simple ones and regressions at each horizon, with margins that are calibrated as it goes."""

import numpy as np

from colocd.core.foresight import experts, regress
from colocd.core.foresight.calendar import Bins, Bools, Floats, Ints
from colocd.core.foresight.margins import SCALES, Margins
from colocd.core.foresight.past import Past
from colocd.core.foresight.race import Race
from colocd.core.foresight.regress import Regressions
from colocd.core.foresight.track import Track

NAMES = (*experts.NAMES, *regress.NAMES)
PERSISTENCE = NAMES.index("persistence")
BASE = NAMES.index("daily profile as seen, shifted")
LEVEL = NAMES.index("level of the day")
START = np.array([experts.START.get(name, 1.0) for name in NAMES])
MEMORY = 6.0
"""Seasons after which a regret counts half."""
LONG = 7.0
"""Seasons after which a load counts half in the load of many seasons."""
HOUR = 3600.0
ROOF = 1.3
"""No quantile exceeds the highest load ever seen by more than this factor."""
WILD = 30.0
"""A value above so many times the highest before is learned as so much, until the next is as high: it may be a wrong reading.

BurstGPT's API traffic truly grows 16-fold from one hour to the next."""


class Foreseer:
    """Forecasts of one series at fixed numbers of bins ahead. `extend` feeds it; `told` and `middle` hold what it said.

    At each bin it foresees from that bin with what it had learned before, then learns from what came true: no look-ahead.
    """

    def __init__(self, bins: Bins, ahead: tuple[int, ...], quantiles: tuple[float, ...]) -> None:
        self.bins = bins
        self.ahead = np.array(ahead, dtype=np.int64)
        self.quantiles = quantiles
        h, q, m = len(ahead), len(quantiles), len(NAMES)
        self.past = Past(bins)
        season = self.past.season
        self._regress = Regressions(h, season)
        self.race = Race((h,), m, START)
        self._memory = 0.5 ** (1 / max(24.0, MEMORY * season))
        self._phases = round(HOUR / bins.step) if bins.step < HOUR and HOUR % bins.step == 0 else 1
        self.margins = Margins(quantiles, self.ahead / season, season, self._phases)
        self._rows = Track((h, regress.SPACES, experts.FEATURES + experts.CYCLIC))
        self._bases = Track((h, regress.SPACES))
        self._said = Track((h, m))
        self._size = Track((h,))
        self._mixed = Track((h,))
        self.middle = Track((h,))
        """Foreseen from each bin, for each horizon [bin, horizon]."""
        self._scales = Track((h, SCALES))
        self.told = Track((q, h))
        """Quantiles foreseen from each bin [bin, quantile, horizon]."""
        self._plain, self._width = Track((q, h)), Track((q, h))
        self._each = Track((q, h, SCALES))
        self.usual = np.zeros((3, h))
        """Usual error lately: of what was told, of the mixture, of persistence."""
        self.heard = np.zeros(h)
        self.errors = np.zeros((h, m))
        """Usual error lately of each forecaster in the race."""
        self.covered = np.full((q, h), np.nan)
        """Share of what came true lately at or below each quantile."""
        self.weight = np.zeros(h)
        """Usual size of what came true, as the errors are averaged."""
        self._recent = np.full(h, np.nan)
        self._phase = np.full((self._phases, h), np.nan)
        self._slot = np.full((season + 1, h), np.nan)
        self._recent_keep = 0.5 ** (1 / max(2.0, season / 24))
        self._top = self._peak = self._highest = 0.0
        self._wild = False
        self._long, self._long_weight = 0.0, 0.0
        self._long_keep = 0.5 ** (1 / (LONG * season))

    @property
    def lost(self) -> Bools:
        """Horizons at which persistence did better than the mixture lately: there it is used."""
        lost: Bools = self.usual[1] > 1.03 * self.usual[2]
        return lost

    def extend(self, values: Floats) -> None:
        """Append measured values (nan: a hole), foresee from each of them, and learn from what came true."""
        a = self.past.n
        self.past.extend(self._tamed(values))
        self._learn_after(np.arange(a, self.past.n))
        self.past.forget()
        for track in (
            self._rows,
            self._bases,
            self._said,
            self._size,
            self._mixed,
            self._scales,
            self._plain,
            self._width,
            self._each,
        ):
            track.forget(self.past.n - int(self.ahead.max()) - 1)

    def _tamed(self, values: Floats) -> Floats:
        """Values without single wild ones: the errors of one at 10,000 times the load would be remembered for weeks."""
        found = values.copy()
        for i, v in enumerate(values.tolist()):
            if v != v:
                continue
            wild = 0 < WILD * self._highest < v
            if wild and not self._wild:
                found[i] = WILD * self._highest
            else:
                self._highest = max(self._highest, v)
            self._wild = wild
        return found

    def _learn_after(self, bins: Ints) -> None:
        self._predict(bins)
        self._learn(bins)

    def _predict(self, origins: Ints) -> None:
        said, levels, cyclic = experts.at_origins(self.past, origins, self.ahead)
        size = self._sized(said[..., LEVEL])
        rows, bases = self._regress.rows(levels, cyclic, said[..., BASE], size)
        rows = np.where(np.isfinite(rows), rows, 0.0)
        fitted = self._regress.predict(rows, bases, size, said.min(axis=-1) * 0.5, said.max(axis=-1) * 1.5)
        said = np.concatenate([said, fitted], axis=-1)
        mixed = (said * self.race.weights).sum(axis=-1)
        middle = np.where(self.lost, said[..., PERSISTENCE], mixed)
        scales = self.margins.scales(middle, size, self._lasting(origins), self._local(origins, size))
        phase, _ = self._where(origins[:, None] + self.ahead)
        peak = np.maximum.accumulate(np.maximum(np.nan_to_num(self.past.value.at(origins)), self._peak))
        self._peak = float(peak[-1])
        told, plain, width, each = self.margins.predict(middle, scales, ROOF * peak[:, None] + 0 * middle, phase)
        for track, values in (
            (self._rows, rows),
            (self._bases, bases),
            (self._said, said),
            (self._size, size),
            (self._mixed, mixed),
            (self.middle, middle),
            (self._scales, scales),
            (self.told, told),
            (self._plain, plain),
            (self._width, width),
            (self._each, each),
        ):
            track.write(int(origins[0]), values)

    def _learn(self, targets: Ints) -> None:
        o = targets[:, None] - self.ahead[None, :]
        h = np.broadcast_to(np.arange(len(self.ahead)), o.shape)
        truth = self.past.value.at(targets)[:, None] + np.zeros(o.shape)
        middle = self.middle.at(o, h)
        known = ~np.isnan(truth) & ~np.isnan(middle)
        if not known.any():
            return
        truth, middle, mixed = (np.where(known, x, 0.0) for x in (truth, middle, self._mixed.at(o, h)))
        said = np.where(known[..., None], self._said.at(o, h), 0.0)
        size = np.where(known, self._size.at(o, h), 1.0)
        q = np.arange(len(self.quantiles))[None, :, None]
        told = np.where(known[:, None], self.told.at(o[:, None], q, h[:, None]), 0.0)
        plain = np.where(known[:, None], self._plain.at(o[:, None], q, h[:, None]), 0.0)
        width = np.where(known[:, None], self._width.at(o[:, None], q, h[:, None]), 0.0)
        each = np.where(known[:, None, :, None], self._each.at(o[:, None], q, h[:, None]), 0.0)
        errors = np.abs(np.stack([middle, mixed, said[..., PERSISTENCE]]) - truth)
        self._follow(errors, truth, told, known)
        floor = 1e-6 * size.max(axis=0)
        share = 1 / np.maximum(self.heard, 1) + 1 - self._memory
        off = np.where(known[..., None], np.abs(said - truth[..., None]) - self.errors, 0.0).mean(axis=0)
        self.errors += np.minimum(1.0, share * known.sum(axis=0))[:, None] * off
        regret = np.sign(mixed - truth)[..., None] * (mixed[..., None] - said)
        self.race.learn(regret / np.maximum(3 * self.usual[1], floor)[None, :, None], known, self._memory)
        self._regress.learn(self._rows.at(o, h), self._bases.at(o, h), truth, size, known)
        phase, slot = self._where(targets)
        scales = np.where(known[..., None], self._scales.at(o, h), 1.0)
        usual = np.maximum(self.usual[0], floor)
        phases = np.broadcast_to(phase[:, None], o.shape)
        self.margins.learn(middle, scales, told, plain, width, each, truth, known, usual, phases)
        for p, s, row, ok in zip(phase, slot, errors[0], known, strict=True):
            self._phase[p] = _toward(self._phase[p], row, 0.03, ok)
            self._slot[s] = _toward(self._slot[s], row, 0.25, ok)
            self._recent = _toward(self._recent, row, 1 - self._recent_keep, ok)

    def _follow(self, errors: Floats, truth: Floats, told: Floats, known: Bools) -> None:
        """Usual errors, sizes and coverage lately, at each horizon."""
        count = known.sum(axis=0)
        share = np.maximum(1 - self._memory**count, count / np.maximum(self.heard + count, 1))
        many = np.maximum(count, 1)
        mean = np.where(known, errors, 0.0).sum(axis=1) / many
        self.usual = np.where(count > 0, self.usual + share * (mean - self.usual), self.usual)
        self.weight = np.where(
            count > 0, self.weight + share * (np.abs(truth).sum(axis=0) / many - self.weight), self.weight
        )
        hit = ((truth[:, None] <= told) & known[:, None]).sum(axis=0) / many
        was = np.where(np.isnan(self.covered), hit, self.covered)
        self.covered = np.where(count > 0, was + share * (hit - was), self.covered)
        self.heard += count

    def _where(self, j: Ints) -> tuple[Ints, Ints]:
        """Bin of the hour and of the season of bins j."""
        phase: Ints = np.round(self.bins.times(j) / self.bins.step).astype(np.int64) % self._phases
        return phase, np.minimum(self.bins.place(j)[1], self.past.season)

    def _local(self, origins: Ints, size: Floats) -> tuple[Floats, ...]:
        """Usual errors lately, at the targets' bin of the hour, and at their time of the season."""
        j = origins[:, None] + self.ahead[None, :]
        h = np.arange(len(self.ahead))[None, :]
        phase, slot = self._where(j)
        usual = np.where(self.heard > 0, self.usual[0], 0.2 * size)
        by_phase = self._phase[phase, h]
        total, weight = np.zeros(j.shape), np.zeros(j.shape)
        half = self.past.season // 36
        for shift in range(-half, half + 1, max(1, half // 2)):
            near = self._slot[(slot + shift) % self.past.season, h]
            total, weight = total + np.where(np.isnan(near), 0, near), weight + ~np.isnan(near)
        by_slot = np.where(weight > 0, total / np.maximum(weight, 1), usual)
        recent = np.where(np.isnan(self._recent), 0.2 * size, self._recent)
        return recent, np.where(np.isnan(by_phase), usual, by_phase), by_slot

    def _lasting(self, origins: Ints) -> Floats:
        """The load of many seasons at each origin [origin, 1]."""
        found = np.empty((len(origins), 1))
        for i, v in enumerate(self.past.value.at(origins).tolist()):
            if v == v:
                self._long = self._long * self._long_keep + v
                self._long_weight = self._long_weight * self._long_keep + 1
            found[i] = self._long / max(self._long_weight, 1e-9)
        return found

    def _sized(self, level: Floats) -> Floats:
        """The load's usual size, never near zero: what errors and features are measured by."""
        top = np.maximum.accumulate(np.maximum(np.nan_to_num(level), self._top))
        self._top = 0.9999 ** len(level) * float(top[-1, 0])
        return np.where(np.isfinite(level), np.maximum(np.maximum(level, 0.02 * top), 1e-9), 1.0)


def _toward(was: Floats, row: Floats, share: float, ok: Bools) -> Floats:
    new = np.where(np.isnan(was), row, was + share * (row - was))
    return np.where(ok, new, was)
