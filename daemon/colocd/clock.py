"""The one place that reads a clock or sleeps; everything else is given a `Clock`."""

import datetime as dt
import time
from threading import Event
from typing import Protocol


class Clock(Protocol):
    """Wall time for rows and people, monotonic time for durations, and interruptible waiting."""

    def now(self) -> float:
        """Return Unix seconds (UTC). May jump; never use it for durations inside one process."""
        ...

    def monotonic(self) -> float:
        """Return seconds since an arbitrary start; never jumps."""
        ...

    def wait(self, event: Event, seconds: float) -> bool:
        """Wait until `event` is set or `seconds` have passed; True when the event is set."""
        ...

    def sleep(self, seconds: float) -> None:
        """Sleep; prefer `wait` where something may interrupt it."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """See `Clock.now`."""
        return time.time()  # noqa: TID251 -- this class is the clock

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()  # noqa: TID251 -- this class is the clock

    def wait(self, event: Event, seconds: float) -> bool:
        """See `Clock.wait`."""
        return event.wait(max(0.0, seconds))

    def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        time.sleep(max(0.0, seconds))  # noqa: TID251 -- this class is the clock


def utc(seconds: float) -> dt.datetime:
    """Turn Unix seconds into a UTC-aware datetime for rows."""
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC)


def unix(moment: dt.datetime) -> float:
    """Turn a datetime into Unix seconds; a naive one (SQLite drops the zone) is read as UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp()
