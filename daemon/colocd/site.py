"""The site's local time, looked up once for the core, which knows no time zones."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from colocd.core.foresight.calendar import Calendar
from colocd.errors import BadRequest

_EPOCH = date(1970, 1, 1)


def site_calendar(zone: str | None, holidays: Iterable[date], start: float, end: float) -> Calendar:
    """Offsets from UTC between two Unix times, and holidays as day numbers. `zone` None: UTC.

    Raises `BadRequest` when there is no such zone.
    """
    days = tuple(sorted((day - _EPOCH).days for day in holidays))
    if zone is None:
        return Calendar(holidays=days)
    local = find_zone(zone)
    since: list[float] = []
    east: list[float] = []
    at = datetime.fromtimestamp(start, UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=15)
    last = first = _east(at, local)
    while at.timestamp() < end + 2 * 86400:
        after = at + timedelta(days=1)
        if _east(after, local) != last:
            while _east(at, local) == last:  # changes happen at full quarters of an hour
                at += timedelta(minutes=15)
            last = _east(at, local)
            since.append(at.timestamp())
            east.append(last)
        else:
            at = after
    return Calendar(since=tuple(since), east=tuple(east), first_east=first, holidays=days)


def find_zone(zone: str) -> ZoneInfo:
    """The zone of that name; raises `BadRequest` when there is none."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadRequest(f"there is no time zone {zone!r}", "name one as in Europe/Berlin") from None


def _east(at: datetime, zone: ZoneInfo) -> float:
    found = at.astimezone(zone).utcoffset()
    return found.total_seconds() if found is not None else 0.0
