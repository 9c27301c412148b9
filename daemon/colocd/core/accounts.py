"""GPU-hours used, saved and lost, per user and month (UTC), from the runs of batch jobs.

Used: all a run held its GPUs. Lost: what a run did after its last checkpoint when it ended without finishing: by an eviction,
by its own requeue, or by dying. Saved: the rest. A run that goes on has lost nothing yet.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

HOUR = 3600.0
DAY = 86400.0
_EPOCH = 719468
"""Days from 0000-03-01 to 1970-01-01."""


class Stay(msgspec.Struct, frozen=True, kw_only=True):
    """One run as it is counted. Unix seconds; `ended` None: it goes on. `end` as in the store's `Run`."""

    user: str
    ref: str
    gpus: int
    started: float
    saved: float | None = None
    ended: float | None = None
    end: str | None = None


class Account(msgspec.Struct, kw_only=True):
    """A user's month. GPU-hours; `evictions` by coloc, `lost_by_eviction` the part of `lost` that these cost."""

    month: str
    user: str
    jobs: int = 0
    runs: int = 0
    evictions: int = 0
    used: float = 0.0
    saved: float = 0.0
    lost: float = 0.0
    lost_by_eviction: float = 0.0


def lost_seconds(run: Stay) -> float:
    """Seconds of work that went with the run's end."""
    if run.ended is None or run.end == "done":
        return 0.0
    since = max(run.started, run.saved if run.saved is not None else run.started)
    return max(0.0, run.ended - since)


def accounts(runs: Iterable[Stay], now: float, month: str | None = None, user: str | None = None) -> list[Account]:
    """Accounts by month and user; `month` like `2026-11` and `user`: only these.

    Hours count in the month in which they were used; what a run lost counts in the month of its end.
    """
    found: dict[tuple[str, str], Account] = {}
    jobs: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        if user is not None and run.user != user:
            continue
        end = run.ended if run.ended is not None else max(now, run.started)
        lost = lost_seconds(run) * run.gpus / HOUR
        for name, seconds, last in _months(run.started, end):
            account = found.setdefault((name, run.user), Account(month=name, user=run.user))
            jobs.setdefault((name, run.user), set()).add(run.ref)
            account.used += seconds * run.gpus / HOUR
            if last:
                account.runs += 1
                account.lost += lost
                account.evictions += run.end == "evicted"
                account.lost_by_eviction += lost if run.end == "evicted" else 0.0
    for key, account in found.items():
        account.jobs = len(jobs[key])
        account.lost = min(account.lost, account.used)
        account.saved = account.used - account.lost
    return [found[key] for key in sorted(found) if month is None or key[0] == month]


def _months(start: float, end: float) -> list[tuple[str, float, bool]]:
    """The months that [start, end] touches: name, seconds in it, whether it is the last."""
    parts: list[tuple[str, float, bool]] = []
    while True:
        year, number = _year_and_month(int(start // DAY))
        border = DAY * _first_day(year + number // 12, number % 12 + 1)
        name = f"{year:04d}-{number:02d}"
        if end <= border:
            return [*parts, (name, end - start, True)]
        parts.append((name, border - start, False))
        start = border


def _first_day(year: int, month: int) -> int:
    """Days from 1970-01-01 to the first of a month of the Gregorian calendar (years begin in March, then leap days come last)."""
    year, month = (year - 1, month + 9) if month < 3 else (year, month - 3)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 - _EPOCH


def _year_and_month(day: int) -> tuple[int, int]:
    """The month in which a day after 1970-01-01 lies."""
    year = 1970 + day * 400 // 146097
    year += day >= _first_day(year + 1, 1)
    year -= day < _first_day(year, 1)
    return year, max(m for m in range(1, 13) if _first_day(year, m) <= day)


def as_rows(found: Iterable[Account]) -> list[dict[str, Any]]:
    """JSON-ready rows, GPU-hours to a thousandth."""
    rows = [msgspec.to_builtins(account) for account in found]
    return [{k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
