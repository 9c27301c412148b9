"""What is known of a series at each bin: values, seasonal profiles and recent levels, all without looking ahead."""

import numpy as np

from colocd.core.foresight.calendar import DAY, WEEK, Bins, Floats, Ints
from colocd.core.foresight.track import Track

PROFILES = 3
"""Daily, by kind of day (working or free), weekly."""
ALPHAS = (0.35, 0.35, 0.6)
"""Weight of the newest season in each profile."""
LEVELS = 3
"""Recent levels: minutes, hours, a day."""


class Past:
    """The series so far. All tracks are written once per bin, from what was known then."""

    def __init__(self, bins: Bins) -> None:
        self.bins = bins
        self.n = 0
        season = bins.per_season
        self.season = season
        self.weekly = bins.season == DAY and season >= 2
        self.value = Track()
        """The measured value; nan: a hole."""
        self.filled = Track()
        """The last known value at each bin; nan only before the first."""
        self.profile = Track((PROFILES,))
        """Expected from earlier seasons, for bins up to one season ahead of the newest; nan: never seen."""
        self._seen = Track((PROFILES,), empty=0.0)
        self.level = Track((1 + PROFILES, LEVELS))
        """Decaying means of the value, and of its distance to each profile."""
        minutes = max(1.0, season / 72)
        spans = np.array([minutes, season / 10, season * 1.0])
        self._keep = 0.5 ** (1 / np.maximum(spans, [0.6, 2.0, 4.0]))
        self._now = np.zeros((1 + PROFILES, LEVELS))
        self._heard = np.zeros(LEVELS)

    def extend(self, values: Floats) -> None:
        """Append measured values (nan: a hole)."""
        a, b = self.n, self.n + len(values)
        self.value.write(a, values)
        self.n = b
        self._extend_profile()
        rows, last = [], self.filled.at(np.array([a - 1]))[0] if a else np.nan
        filled = np.empty(len(values))
        profile = self.profile.at(np.arange(a, b))
        for i, v in enumerate(values.tolist()):
            if v == v:
                last = v
                self._follow(v, profile[i])
            filled[i] = last
            rows.append(self._now.copy())
        self.filled.write(a, filled)
        self.level.write(a, np.array(rows))

    def _follow(self, v: float, profile: Floats) -> None:
        weight = np.maximum(1 - self._keep, 1 / (self._heard + 1))
        self._heard += 1
        own = self.fallback(profile, self._now[0, LEVELS - 1] if self._heard[0] > 1 else v)
        now = np.concatenate([[v], v - own])
        self._now += weight * (now[:, None] - self._now)

    @staticmethod
    def fallback(profile: Floats, level: Floats | float) -> Floats:
        """Profiles without holes: by kind and by week fall back on the day, the day on the level."""
        day = np.where(np.isnan(profile[..., 0]), level, profile[..., 0])
        kind = np.where(np.isnan(profile[..., 1]), day, profile[..., 1])
        week = np.where(np.isnan(profile[..., 2]), kind, profile[..., 2])
        return np.stack([day, kind, week], axis=-1)

    def refs(self, j: Ints) -> Ints:
        """Bins that each profile of bin j was last learned from."""
        day = self.bins.back(j, 1)
        if not self.weekly:
            return np.stack([day, np.full(j.shape, -1), np.full(j.shape, -1)], axis=-1)
        number, _, _ = self.bins.place(j)
        return np.stack([day, self.bins.back(j, self.bins.gap_same_kind(number)), self.bins.back(j, WEEK)], axis=-1)

    def _extend_profile(self) -> None:
        """Profiles up to one season ahead: each a decaying mean over the same time of earlier seasons."""
        end = self.n + max(1, int(self.bins.season / self.bins.step + 1e-9))
        j = np.arange(self.profile.end, end)
        for part in np.array_split(j, -(-len(j) // self.season)) if len(j) else ():
            refs = self.refs(part)
            value = self.value.at(refs)
            cols = np.arange(PROFILES)
            old = self.profile.at(refs, cols)
            seen = self._seen.at(refs, cols)
            known = ~np.isnan(value) & (refs >= 0)
            alpha = np.maximum(np.array(ALPHAS), 1 / (seen + 1))
            new = np.where(np.isnan(old), value, old + alpha * (value - old))
            self.profile.write(int(part[0]), np.where(known, new, old))
            self._seen.write(int(part[0]), seen + known)

    def forget(self) -> None:
        """Drop what no later bin refers to."""
        before = self.n - (2 * WEEK + 2 if self.weekly else 3) * self.season
        for track in (self.value, self.filled, self.profile, self._seen, self.level):
            track.forget(before)
