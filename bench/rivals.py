"""Forecasters of others for the comparison (docs/benchmarks-forecast.md): each is fitted on a history and foresees several steps.

A rival is a class with `fit`, called once a day, and `tell`: (median, 0.95 quantile) for each horizon. Histories
have no holes and at most 21 days. One thread each.
"""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Told = list[tuple[float, float]]
HARMONICS = 6


class Rival:
    """`per`: bins of a day; `ahead`: horizons in bins."""

    name: ClassVar[str]
    module: ClassVar[str | None] = None

    def __init__(self, per: int, ahead: tuple[int, ...]) -> None:
        self.per, self.ahead = per, ahead

    def fit(self, history: Floats, end: int) -> None:
        """Find parameters; rivals that do all of it at each origin leave this out. `end`: number of the history's last bin."""

    def tell(self, history: Floats, end: int) -> Told:
        raise NotImplementedError


class HoltWinters(Rival):
    """Additive level, damped trend and season of a day (statsmodels); quantile by simulated paths."""

    name, module = "Holt-Winters", "statsmodels.tsa.holtwinters"

    def _model(self, history: Floats):
        from statsmodels.tsa.holtwinters import ExponentialSmoothing

        return ExponentialSmoothing(
            history, trend="add", damped_trend=True, seasonal="add", seasonal_periods=self.per, initialization_method="heuristic"
        )  # fmt: skip

    def fit(self, history: Floats, end: int) -> None:
        found = self._model(history).fit(minimize_kwargs={"options": {"maxiter": 30}}).params
        names = ("smoothing_level", "smoothing_trend", "smoothing_seasonal", "damping_trend")
        self.kept = {n: float(np.clip(found[n], 1e-4, 0.9999)) for n in names}

    def tell(self, history: Floats, end: int) -> Told:
        made = self._model(history).fit(optimized=False, **self.kept)
        far = max(self.ahead)
        paths = np.asarray(made.simulate(far, repetitions=200, anchor="end", rng=np.random.default_rng(1)))
        line = np.asarray(made.forecast(far))
        return [(line[a - 1], float(np.quantile(paths[a - 1], 0.95))) for a in self.ahead]


class MstlEts(Rival):
    """Seasons of a day and a week by STL, the rest by AutoETS (statsforecast)."""

    name, module = "MSTL + AutoETS", "statsforecast.models"

    def tell(self, history: Floats, end: int) -> Told:
        from statsforecast.models import MSTL, AutoETS

        seasons = [s for s in (self.per, 7 * self.per) if 2 * s <= len(history)]
        ets = AutoETS(model="ZZN")
        model = MSTL(season_length=seasons, trend_forecaster=ets) if seasons else ets
        found = model.forecast(history, h=max(self.ahead), level=[90])
        return [(found["mean"][a - 1], found["hi-90"][a - 1]) for a in self.ahead]


class Direct(Rival):
    """What regressions have in common: one model a horizon, on lags, the same time before, the time of day and week."""

    def rows(self, history: Floats, end: int, ahead: int) -> Floats:
        """Features [origin, f] of each bin of the history as an origin."""
        n, per = len(history), self.per
        t = np.arange(n)

        def back(bins: int) -> Floats:
            return history[np.maximum(t - bins, 0)]

        target = t + ahead
        same = [history[np.maximum(np.minimum(target - k * per, t), 0)] for k in (1, 2, 7)]
        wave = 2 * np.pi * (target + end + 1 - n) / per
        columns = [back(i) for i in (0, 1, 2, 3, 6)] + same + [back(per)]
        columns += [f(k * wave) for k in range(1, HARMONICS + 1) for f in (np.sin, np.cos)]
        columns += [f(k * wave / 7) for k in range(1, 4) for f in (np.sin, np.cos)]
        return np.column_stack(columns)

    def fit(self, history: Floats, end: int) -> None:
        self.models = []
        for ahead in self.ahead:
            rows = self.rows(history, end, ahead)[self.per : len(history) - ahead]
            self.models.append(self.learn(rows, history[self.per + ahead :]))

    def tell(self, history: Floats, end: int) -> Told:
        last = history[-8 * self.per :]
        return [self.use(m, self.rows(last, end, a)[-1:]) for m, a in zip(self.models, self.ahead, strict=True)]

    def learn(self, rows: Floats, truth: Floats):
        raise NotImplementedError

    def use(self, model, row: Floats) -> tuple[float, float]:
        raise NotImplementedError


class FourierAr(Direct):
    """Ridge regression (numpy); the quantile adds that of its errors in the last week of its training."""

    name = "Fourier + AR"

    def learn(self, rows: Floats, truth: Floats):
        middle, size = rows.mean(axis=0), rows.std(axis=0)
        size = np.where(size > 1e-6 * (1 + abs(middle)), size, np.inf)  # a lag longer than the history says nothing
        x = np.column_stack([np.ones(len(rows)), (rows - middle) / size])
        weights = np.linalg.solve(x.T @ x + 1.0 * np.eye(x.shape[1]), x.T @ truth)
        return middle, size, weights, float(np.quantile((truth - x @ weights)[-7 * self.per :], 0.95))

    def use(self, model, row: Floats) -> tuple[float, float]:
        middle, size, weights, more = model
        told = float(np.concatenate([[1.0], (row[0] - middle) / size]) @ weights)
        return told, told + more


class LightGbm(Direct):
    """Boosted trees for the 0.5 and the 0.95 quantile (lightgbm)."""

    name, module = "LightGBM", "lightgbm"

    def learn(self, rows: Floats, truth: Floats):
        import lightgbm

        options = {"n_jobs": 1, "verbose": -1, "n_estimators": 100, "num_leaves": 15, "learning_rate": 0.08, "seed": 1}
        return [
            lightgbm.train(
                {**{k: v for k, v in options.items() if k != "n_estimators"}, "objective": "quantile", "alpha": q},
                lightgbm.Dataset(rows, truth), options["n_estimators"],
            )
            for q in (0.5, 0.95)
        ]  # fmt: skip

    def use(self, model, row: Floats) -> tuple[float, float]:
        middle, top = (float(m.predict(row)[0]) for m in model)
        return middle, max(middle, top)


RIVALS: tuple[type[Rival], ...] = (HoltWinters, FourierAr, LightGbm, MstlEts)
