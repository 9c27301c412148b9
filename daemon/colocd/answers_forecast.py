"""What `GET /v1/forecast/NAME` answers: a service's recent load, what is foreseen, and what that means in replicas."""

from typing import Any

import msgspec

from colocd.core.need import carried, counted, replicas_for
from colocd.core.view import ServiceView, View
from colocd.errors import NotFound
from colocd.store.packs import MINUTE, TEN_MINUTES
from colocd.store.port import Store
from colocd.traces import width_of

BACK = 2
"""Seasons of history in the answer."""


def forecast_answer(name: str, view: View, store: Store) -> dict[str, Any]:
    """The answer for a service of the view; raises `NotFound` when there is none of that name."""
    service = next((s for s in view.services if s.spec.name == name), None)
    if service is None:
        raise NotFound(f"there is no service {name!r}", "`coloc service list` shows the names")
    season, forecast = service.spec.season, service.forecast
    since = view.at - BACK * season
    width = width_of(season)
    if width < MINUTE:
        history = [(s.at, s.value) for s in store.load(name, since)]
    else:
        step = TEN_MINUTES if width >= TEN_MINUTES else MINUTE
        history = [(b.at, b.mean) for b in store.history(name, since, step)]
    have = len(counted(service))
    return {
        "service": name,
        "at": view.at,
        "measure": str(service.spec.load.measure) if service.spec.load is not None else "load",
        "load": service.load.value if service.load is not None else None,
        "history": history,
        "step": forecast.step if forecast is not None else None,
        "points": msgspec.to_builtins(forecast.points) if forecast is not None else [],
        "trust": forecast.trust if forecast is not None else None,
        "basis": forecast.basis if forecast is not None else None,
        "records": msgspec.to_builtins(forecast.records) if forecast is not None else [],
        "have": have,
        "carried": have * carried(service),
        "quantile": view.policy.valley_quantile,
        "valleys": _spare(service, view, have),
    }


def _spare(service: ServiceView, view: View, have: int) -> list[list[float]]:
    """Times ahead, from and to, in which fewer replicas than run now are needed at the quantile of valleys."""
    if service.forecast is None or service.load is None:
        return []
    found: list[list[float]] = []
    step = service.forecast.step
    for point in service.forecast.points:
        value = next((v for q, v in point.values.items() if float(q) >= view.policy.valley_quantile - 1e-9), None)
        if value is None or replicas_for(value, service, view.policy) >= have:
            continue
        if found and point.ahead - found[-1][1] < 1e-6 + step:
            found[-1][1] = point.ahead
        else:
            found.append([point.ahead, point.ahead])
    return [[a, b] for a, b in found if b > a]
