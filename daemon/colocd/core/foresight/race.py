"""Combining forecasters by how they did lately: Bernstein online aggregation, one race a horizon.

Wintenberger, "Optimal learning with Bernstein online aggregation" (2017), with discounted regrets and the gradient of the
loss, so that the mixture competes with the best fixed mixture and not only with the best forecaster.
"""

import numpy as np

from colocd.core.foresight.calendar import Bools, Floats


class Race:
    """Weights [..., m] over m forecasters; `shape` is the shape of the independent races."""

    def __init__(self, shape: tuple[int, ...], runners: int, start: Floats | None = None) -> None:
        self._gain = np.zeros((*shape, runners))
        self._square = np.full((*shape, runners), 1e-6)
        self._prior: Floats = np.full(runners, 1 / runners) if start is None else start / start.sum()
        self.weights: Floats = np.broadcast_to(self._prior, (*shape, runners)).copy()

    def learn(self, regret: Floats, known: Bools, keep: Floats | float) -> None:
        """Take in regrets [origin, ..., m] (positive: the forecaster would have done better), already scaled to about 1."""
        r = np.clip(np.where(known[..., None], regret, 0.0), -5.0, 5.0)
        fade = np.asarray(keep) ** known.sum(axis=0)[..., None]
        self._gain = self._gain * fade + r.sum(axis=0)
        self._square = self._square * fade + (r * r).sum(axis=0)
        rate = np.minimum(np.sqrt(np.log(r.shape[-1] + 1) / self._square), 2.0)
        exponent = rate * self._gain + np.log(rate)
        exponent -= exponent.max(axis=-1, keepdims=True)
        weights = self._prior * np.exp(exponent)
        self.weights = weights / weights.sum(axis=-1, keepdims=True)
