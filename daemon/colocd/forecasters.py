"""Keeps an outlook for each service, within a budget of time a cycle: after a start, histories are read bit by bit."""

from collections.abc import Callable, Collection, Mapping
from datetime import date
from typing import Protocol

import msgspec

from colocd.clock import Clock
from colocd.config_forecast import ForecastConfig
from colocd.core.forecast import Sample, foresee
from colocd.core.foresight.calendar import DAY, Calendar
from colocd.core.foresight.outlook import Outlook
from colocd.core.service import ServiceSpec
from colocd.core.view import Forecast, Reading
from colocd.site import site_calendar
from colocd.traces import width_of

BUDGET = 0.25
"""Seconds a cycle for reading old history, in all."""
PIECE = 864
"""Bins of history read at once."""
OWN = 7
"""Seasons of own history after which a sibling's is not looked at."""
LOOKS = (1 / 24, 1 / 4, 1.0, 3.0)
"""Own history in seasons, at which the sibling's is scaled to it again."""


class Histories(Protocol):
    """Where histories come from: `colocd.traces.Traces`."""

    def of(self, service: str) -> list[Sample]:
        """(begin, mean) of a service's buckets, oldest first."""
        ...


class Forecasters:
    """Forecasts of all services; `traces` are their histories."""

    def __init__(self, traces: Histories, clock: Clock) -> None:
        self._traces = traces
        self._clock = clock
        self._outlooks: dict[str, tuple[object, Outlook]] = {}
        self._calendar: tuple[object, Calendar] | None = None
        self._spent = 0.0

    def begin(self, names: Collection[str]) -> None:
        """A new cycle, with a new budget; services that are not among `names` are forgotten."""
        self._spent = 0.0
        for gone in set(self._outlooks) - set(names):
            del self._outlooks[gone]

    def forecast(
        self,
        spec: ServiceSpec,
        specs: Mapping[str, ServiceSpec],
        config: ForecastConfig,
        load: Reading | None,
        now: float,
    ) -> Forecast | None:
        """Foresee a service's load; while its history is still being read, simply, and the basis says so."""
        samples = self._traces.of(spec.name)
        calendar = self._local(config, now)
        width = width_of(spec.season)
        seeded = self._seed(spec, specs, samples, now)
        key = (spec.season, calendar, seeded[0])
        known = self._outlooks.get(spec.name)
        if known is None or known[0] != key:
            known = self._outlooks[spec.name] = (key, Outlook(width, spec.season, calendar))
        outlook = known[1]
        history = seeded[1]() if outlook.behind else samples
        begun = self._clock.monotonic()
        # What is new since the last cycle is always read; old history as the budget allows.
        while not outlook.behind or self._spent + self._clock.monotonic() - begun <= BUDGET:
            if not outlook.feed(history, now, PIECE) or not outlook.behind:
                break
        self._spent += self._clock.monotonic() - begun
        if not outlook.behind:
            found = outlook.forecast(load, now)
            if found is not None:
                like = f"; older history is {spec.like}'s, scaled" if seeded[0] is not None else ""
                return found if not like else _said(found, like)
        simple = foresee(samples, load, now, spec.season)
        return simple if simple is None or not outlook.begun else _said(simple, "; its history is still being read")

    def _local(self, config: ForecastConfig, now: float) -> Calendar:
        """The site's local time, looked up once a month."""
        key = (config, now // (30 * DAY))
        if self._calendar is None or self._calendar[0] != key:
            days = [date.fromisoformat(day) for day in config.holidays]
            self._calendar = (key, site_calendar(config.timezone, days, now - 120 * DAY, now + 60 * DAY))
        return self._calendar[1]

    def _seed(
        self, spec: ServiceSpec, specs: Mapping[str, ServiceSpec], samples: list[Sample], now: float
    ) -> tuple[object, Callable[[], list[Sample]]]:
        """A mark that changes when the history to start from does (None: it is the own), and that history."""
        like = specs.get(spec.like) if spec.like is not None else None
        first = next((at for at, value in samples if value is not None), now)
        age = (now - first) / spec.season
        if like is None or like.season != spec.season or age >= OWN:
            had = self._outlooks.get(spec.name)
            same = had is not None and isinstance(had[0], tuple) and had[0][2] is not None and like is not None
            return (had[0][2] if same and had is not None and isinstance(had[0], tuple) else None), lambda: samples
        looks = sum(age >= look for look in LOOKS)

        def history() -> list[Sample]:
            other = self._traces.of(like.name)
            theirs = {at: value for at, value in other if value is not None}
            both = [(value, theirs[at]) for at, value in samples if value is not None and at in theirs]
            total = sum(b for _, b in both)
            ratio = sum(a for a, _ in both) / total if total > 0 else 1.0
            old = [(at, value * ratio if value is not None else None) for at, value in other if at < first]
            return [*old, *(s for s in samples if s[0] >= first)]

        return (like.name, looks), history


def _said(forecast: Forecast, more: str) -> Forecast:
    return msgspec.structs.replace(forecast, basis=forecast.basis + more)
