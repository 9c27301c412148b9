"""The part of the configuration file that is about forecasts: `[forecast]`."""

from datetime import date
from zoneinfo import available_timezones

import msgspec

from colocd.units import Rule


class ForecastConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Local time of the services' users (docs/forecasting.md)."""

    timezone: str = "UTC"
    """Time zone of the load's days: `Europe/Berlin`. Changes of the clock are followed."""
    holidays: tuple[str, ...] = ()
    """Days that go like a Sunday: `["2026-12-25"]`."""


def _zone(value: str) -> str | None:
    return None if value in available_timezones() else f"must be a time zone like Europe/Berlin, not {value!r:.60}"


def _day(value: str) -> str | None:
    try:
        date.fromisoformat(value)
    except ValueError:
        return f"must be a day like 2026-12-25, not {value!r:.60}"
    return None


FORECAST_RULES: dict[str, Rule] = {
    "forecast.timezone": Rule(check=_zone),
    "forecast.holidays": Rule(),
    "forecast.holidays[]": Rule(check=_day),
}
