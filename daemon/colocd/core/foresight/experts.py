"""The simple forecasters of the race, and the quantities that the regressions are fed with. All at once for many origins."""

import numpy as np

from colocd.core.foresight.calendar import Floats, Ints
from colocd.core.foresight.past import LEVELS, PROFILES, Past

NAMES = (
    "persistence",
    "recent level",
    "level of hours",
    "level of the day",
    "drift",
    "daily profile",
    "daily profile + fading residual",
    "daily profile + slow residual",
    "daily profile, shifted",
    "daily profile, scaled",
    "profile by kind of day + fading residual",
    "profile by kind of day, shifted",
    "weekly profile + fading residual",
    "weekly profile, shifted",
    "last season",
    "daily profile as seen + fading residual",
    "profile by kind of day as seen + fading residual",
    "daily profile as seen, shifted",
)
SEASONAL = tuple(i for i, name in enumerate(NAMES) if "profile" in name or "season" in name)
START = {
    "persistence": 2.0,
    "level of hours": 0.5,
    "level of the day": 0.5,
    "drift": 0.3,
    "daily profile": 0.5,
    "last season": 0.5,
}
"""Weights at the start of the race, where not 1."""
HARMONICS = 3
HOUR = 3600.0


def at_origins(past: Past, origins: Ints, ahead: Ints) -> tuple[Floats, Floats, Floats]:
    """What the simple forecasters say at each origin for each number of bins ahead, and what regressions look at.

    Returns predictions [origin, ahead, len(NAMES)], level-like features [origin, ahead, f] and cyclic features
    [origin, ahead, c]. Nothing after an origin is looked at. All are nan before the first value.
    """
    o = origins[:, None]
    j = o + ahead[None, :]
    season = past.season
    last = past.filled.at(o) + np.zeros(j.shape)
    level = past.level.at(origins)[:, None]  # [o, 1, 1 + PROFILES, LEVELS]
    plain, res = level[..., 0, :], level[..., 1:, :]
    rough = _profile(past, o, j)
    smooth = _smooth(past, o, j, rough)
    long = plain[..., LEVELS - 1] + np.zeros(j.shape)
    target = past.fallback(smooth, long)
    here = past.fallback(_profile(past, o, o), plain[..., LEVELS - 1])
    gone = (ahead / season)[None, :]
    fade, slow = np.exp(-gone * 10)[..., None], np.exp(-gone * 3)[..., None]
    short, mid = res[..., 0], res[..., 1]
    scaled = target[..., 0] * np.clip(
        (here[..., 0] + mid[..., 0] + (short - mid)[..., 0] * fade[..., 0]) / np.maximum(here[..., 0], 1e-9), 0.1, 10.0
    )
    refs = past.refs(j - season * np.maximum(0, -(-ahead // max(1, season)) - 1)[None, :])
    yesterday = past.value.at(refs[..., 0])
    lastweek = past.value.at(refs[..., 2])
    before = past.value.at(past.bins.back(refs[..., 0], 1))
    yesterday = np.where(np.isnan(yesterday), target[..., 0], yesterday)
    lastweek = np.where(np.isnan(lastweek), target[..., 2], lastweek)
    before = np.where(np.isnan(before), target[..., 0], before)
    day_ago = past.filled.at(np.maximum(o - season, 0)) + 0 * last
    drift = last + np.where(o >= season, (last - day_ago) / season, 0.0) * ahead
    faded = target + short * fade
    seen = past.fallback(rough, long)
    residual = last[..., None] - here
    sharp = seen + residual * np.exp(-gone * 12)[..., None]
    shifted = target + mid + (short - mid) * fade
    experts = np.stack(
        [
            last,
            plain[..., 0] + 0 * last,
            plain[..., 1] + 0 * last,
            long,
            drift,
            target[..., 0],
            faded[..., 0],
            (target + short * slow)[..., 0],
            shifted[..., 0],
            scaled,
            faded[..., 1],
            shifted[..., 1],
            faded[..., 2],
            shifted[..., 2],
            yesterday,
            sharp[..., 0],
            sharp[..., 1],
            (seen + residual)[..., 0],
        ],
        axis=-1,
    )
    one, two = past.filled.at(np.maximum(o - 1, 0)), past.filled.at(np.maximum(o - ahead[None, :], 0))
    levels = np.concatenate(
        [
            target,
            here + 0 * last[..., None],
            plain + 0 * last[..., None],
            here[..., :1] + res[..., 0, :] + 0 * last[..., None],
            np.stack([last, one + 0 * last, two, yesterday, lastweek, before], axis=-1),
        ],
        axis=-1,
    )
    experts = np.where(np.isnan(experts), last[..., None], experts)
    levels = np.where(np.isnan(levels), last[..., None], levels)
    return np.maximum(experts, 0.0), np.maximum(levels, 0.0), _cycle(past, j)


def _profile(past: Past, o: Ints, j: Ints) -> Floats:
    """Profiles for bins j as known at origins o: beyond one season ahead, those of as many seasons earlier as it takes."""
    season = int(past.bins.season / past.bins.step + 1e-9)
    beyond = np.maximum(0, -(-(j - o) // max(1, season)) - 1)
    return past.profile.at(j - beyond * past.season)


def _smooth(past: Past, o: Ints, j: Ints, rough: Floats) -> Floats:
    """Profiles averaged over their neighbours (a 36th of a season each side), as far as those are known at the origin."""
    half = past.season // 72
    if half < 1:
        return rough
    stride = max(1, half // 3)
    total, weight = np.zeros(rough.shape), np.zeros(rough.shape)
    season = int(past.bins.season / past.bins.step + 1e-9)
    for shift in range(-half, half + 1, stride):
        near = _profile(past, o, np.minimum(j + shift, np.where(j <= o + season, o + season, j)))
        known = ~np.isnan(near)
        total += np.where(known, near, 0.0)
        weight += known
    smooth: Floats = np.where(weight > 0, total / np.maximum(weight, 1), np.nan)
    return smooth


def _cycle(past: Past, j: Ints) -> Floats:
    """Sine and cosine of the local time of the season, and whether the day is a free one."""
    number, slot, _ = past.bins.place(j)
    angle = 2 * np.pi * slot / past.season
    waves = [f(angle * k) for k in range(1, HARMONICS + 1) for f in (np.sin, np.cos)]
    hour = 2 * np.pi * past.bins.times(j) / HOUR
    fine = 1.0 if past.bins.step < HOUR / 2 else 0.0
    waves += [f(hour * k) * fine for k in (1, 2) for f in (np.sin, np.cos)]
    free = past.bins.free_day(number) if past.weekly else np.zeros(j.shape)
    return np.stack([*waves, free.astype(np.float64), np.ones(j.shape)], axis=-1)


FEATURES = 2 * PROFILES + LEVELS + PROFILES + 6
CYCLIC = 2 * HARMONICS + 6
