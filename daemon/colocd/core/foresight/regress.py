"""Ridge regressions that learn as they go: one a horizon, nearly for the median, forgetting slowly."""

from collections.abc import Callable

import numpy as np

from colocd.core.foresight.calendar import Bools, Floats
from colocd.core.foresight.experts import CYCLIC, FEATURES

Curve = Callable[[Floats], Floats]

_CURVES: tuple[tuple[Curve, Curve], ...] = (
    (lambda v: v, lambda v: v),
    (lambda v: np.log(np.maximum(v, 0.0) + 0.02), lambda v: np.exp(np.minimum(v, 12.0)) - 0.02),
)
"""The spaces regressions work in, and the way back: as it is, and logarithmic (with a floor for zeros)."""
SPACES = len(_CURVES)
NAMES = ("regression", "regression of logarithms")


class Regressions:
    """Least squares on weighted, discounted sums: the weight 1/|error| brings the mean near the median."""

    def __init__(self, horizons: int, season: int, ridge: float = 30.0, memory: float = 14.0) -> None:
        size = FEATURES + CYCLIC
        self._gram: Floats = np.zeros((horizons, SPACES, size, size))
        self._cross: Floats = np.zeros((horizons, SPACES, size))
        self._beta: Floats = np.zeros((horizons, SPACES, size))
        self._keep = 0.5 ** (1 / max(200.0, memory * season))
        self._ridge = ridge
        self._spread: Floats = np.full((horizons, SPACES), 0.1)

    def rows(self, levels: Floats, cyclic: Floats, base: Floats, scale: Floats) -> tuple[Floats, Floats]:
        """Feature rows [..., space, f] as distances to `base`, and base in each space."""
        size = scale[..., None]
        found, bases = [], []
        for curve, _ in _CURVES:
            b = curve(base / size[..., 0])
            found.append(np.concatenate([curve(levels / size) - b[..., None], 0.2 * cyclic], axis=-1))
            bases.append(b)
        return np.stack(found, axis=-2), np.stack(bases, axis=-1)

    def predict(self, rows: Floats, bases: Floats, scale: Floats, floor: Floats, roof: Floats) -> Floats:
        """Predictions [origin, horizon, space] for rows [origin, horizon, space, f], kept between floor and roof."""
        raw = np.einsum("ohsf,hsf->ohs", rows, self._beta) + bases
        found = np.stack([back(raw[..., i]) for i, (_, back) in enumerate(_CURVES)], axis=-1) * scale[..., None]
        return np.clip(found, floor[..., None], roof[..., None])

    def learn(self, rows: Floats, bases: Floats, truth: Floats, scale: Floats, known: Bools) -> None:
        """Take in rows whose truth has come, and fit again."""
        goal = np.stack([curve(truth / scale) for curve, _ in _CURVES], axis=-1) - bases
        goal = np.where(known[..., None], goal, 0.0)
        rows = np.where(known[..., None, None], rows, 0.0)
        error = np.abs(goal - np.einsum("ohsf,hsf->ohs", rows, self._beta))
        weight = known[..., None] / np.maximum(error / self._spread, 0.3)
        turned = np.moveaxis(rows * weight[..., None], 0, -1)
        fade = self._keep ** known.sum(axis=0)
        count = known.sum(axis=0)
        mean = (error * known[..., None]).sum(axis=0) / np.maximum(count, 1)[:, None]
        new = 1 - 0.98 ** count[:, None]
        self._spread = np.asarray(np.maximum(self._spread + new * (mean - self._spread), 1e-3), dtype=np.float64)
        self._gram = self._gram * fade[:, None, None, None] + turned @ np.moveaxis(rows, 0, 2)
        self._cross = self._cross * fade[:, None, None] + (turned @ np.moveaxis(goal, 0, 2)[..., None])[..., 0]
        # The penalty of a prior of unit coefficients is the variance of the error.
        damping = self._ridge * self._spread**2
        damped = self._gram + damping[..., None, None] * np.eye(self._gram.shape[-1])
        fitted: Floats = np.linalg.solve(damped, self._cross[..., None]).astype(np.float64)
        self._beta = fitted[..., 0]
