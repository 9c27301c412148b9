"""Load histories in memory, read from the store once: means of short times for the forecast, and the last readings."""

from collections import deque
from collections.abc import Collection

from colocd.core.forecast import Sample
from colocd.store.packs import MINUTE, TEN_MINUTES
from colocd.store.port import Store

SEASONS_KEPT = 8
BUCKETS = 144
"""Means per season: ten minutes of a day."""
LONGEST = 600.0
"""Seconds of the longest mean, whatever the season."""


def width_of(season: float) -> float:
    """Seconds of one mean of a service with this season."""
    return min(LONGEST, season / BUCKETS)


class Trace:
    """One service's history in buckets of `width` seconds; a bucket in which nothing could be read is a hole (None)."""

    def __init__(self, width: float) -> None:
        self.width = width
        self.samples: list[Sample] = []
        self._sum, self._known = 0.0, 0

    def add(self, at: float, value: float | None, weight: int = 1) -> None:
        """Take a sample (or the mean of `weight` samples) over; one from before the last bucket is left out."""
        start = at - at % self.width
        if self.samples and start < self.samples[-1][0]:
            return
        if not self.samples or start > self.samples[-1][0]:
            self.samples.append((start, None))
            self._sum, self._known = 0.0, 0
        if value is not None:
            self._sum += value * weight
            self._known += weight
            self.samples[-1] = (start, self._sum / self._known)

    def forget(self, before: float) -> None:
        """Drop what is older, some at a time."""
        if self.samples and self.samples[0][0] < before:
            drop = next((i for i, (at, _) in enumerate(self.samples) if at >= before), len(self.samples))
            del self.samples[:drop]


class Traces:
    """All services' histories."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._traces: dict[str, Trace] = {}

    def add(self, service: str, season: float, at: float, value: float | None) -> None:
        """Append a reading (None: a hole); a service seen for the first time is read from the store."""
        width = width_of(season)
        keep = at - SEASONS_KEPT * season
        trace = self._traces.get(service)
        if trace is None or trace.width != width:
            trace = self._traces[service] = Trace(width)
            if width < MINUTE:
                for sample in self._store.load(service, keep):
                    trace.add(sample.at, sample.value)
            else:
                for bucket in self._store.history(service, keep, TEN_MINUTES if width >= TEN_MINUTES else MINUTE):
                    trace.add(bucket.at, bucket.mean, bucket.known)
        trace.add(at, value)
        if len(trace.samples) > (SEASONS_KEPT + 1) * BUCKETS * 1.1:
            trace.forget(keep)

    def of(self, service: str) -> list[Sample]:
        """(begin, mean) of the buckets, oldest first; empty: nothing is known."""
        trace = self._traces.get(service)
        return [] if trace is None else trace.samples

    def keep(self, services: Collection[str]) -> set[str]:
        """Forget all others; returns their names."""
        gone = set(self._traces) - set(services)
        for name in gone:
            del self._traces[name]
        return gone


class Recent:
    """The readings of the last while, to say what the highest of them was."""

    def __init__(self, store: Store, longest: float = 3600.0) -> None:
        self._store = store
        self._longest = longest
        self._seen: dict[str, deque[Sample]] = {}

    def add(self, service: str, at: float, value: float | None) -> None:
        """Take a reading over (None: nothing could be read); the first time the store is asked for those before."""
        seen = self._seen.get(service)
        if seen is None:
            # Up to `at`: the store may hold this one already.
            seen = deque((s.at, s.value) for s in self._store.load(service, at - self._longest) if s.at < at)
            self._seen[service] = seen
        if value is not None:
            seen.append((at, value))
        while seen and not at - self._longest <= seen[0][0]:
            seen.popleft()

    def highest(self, service: str, at: float, seconds: float) -> float | None:
        """The highest load read within the last `seconds`; None: none was."""
        known = (v for t, v in self._seen.get(service, ()) if v is not None and abs(at - t) <= seconds)
        return max(known, default=None)

    def forget(self, service: str) -> None:
        """Drop a removed service."""
        self._seen.pop(service, None)
