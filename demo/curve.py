"""One day of a chat service in 115 seconds: load over time, today with a surprise, yesterday without.

Load is concurrent requests (running plus waiting). `chat_server.py` reads the same points from a JSON file.
"""

import math
from itertools import pairwise

DAY = 115.0
"""Seconds that one day takes here."""

CAPACITY = 16
"""Concurrent requests one replica carries."""

Point = tuple[float, float]

_NIGHT, _MORNING, _AFTERNOON, _SURPRISE = 10.0, 58.0, 30.0, 84.0
YESTERDAY: tuple[Point, ...] = (
    *((0.0, _NIGHT), (22.0, _NIGHT), (32.0, _MORNING), (48.0, _MORNING), (56.0, _AFTERNOON)),
    *((84.0, _AFTERNOON), (92.0, _NIGHT), (DAY, _NIGHT)),
)
"""Night, the morning peak, the afternoon, the evening fall."""
TODAY: tuple[Point, ...] = (
    *((0.0, _NIGHT), (22.0, _NIGHT), (32.0, _MORNING), (48.0, _MORNING), (56.0, _AFTERNOON)),
    *((68.0, _AFTERNOON), (70.0, _SURPRISE), (84.0, _SURPRISE), (92.0, _NIGHT), (DAY, _NIGHT)),
)
"""The same with a peak in the afternoon that no history foretells."""


def load_at(points: tuple[Point, ...], seconds: float) -> float:
    """Load at a time since the day's start, straight between the points; the first or last value outside of them."""
    if seconds <= points[0][0]:
        return points[0][1]
    for (t0, v0), (t1, v1) in pairwise(points):
        if seconds <= t1:
            return v0 + (v1 - v0) * (seconds - t0) / (t1 - t0)
    return points[-1][1]


def history(start: float, days: int = 4, step: float = 1.0) -> list[tuple[float, float]]:
    """The days before `start` (Unix seconds): (time, load) every `step` seconds, with a ripple of up to 4 %.

    The ripple is a function of the time alone, so every demo has the same yesterday.
    """
    found = []
    for k in range(int(days * DAY / step)):
        since = k * step
        ripple = 1 + 0.025 * math.sin(since * 0.9) + 0.015 * math.sin(since * 2.3 + 1)
        found.append((start - days * DAY + since, load_at(YESTERDAY, since % DAY) * ripple))
    return found


def clock_face(seconds: float) -> str:
    """What o'clock it is in the compressed day: `13:37`."""
    minutes = int(seconds % DAY / DAY * 24 * 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
