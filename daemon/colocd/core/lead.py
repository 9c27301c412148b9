"""The measured lead time: from the decision to a replica that is ready, as past ones of the service took. Pure."""

from collections.abc import Sequence

import msgspec

from colocd.core.service import ServiceSpec

KEPT = 50
"""Starts remembered per service."""
ENOUGH = 5
"""Starts that must be known before the service file's number is left."""
SHARE = 0.9
"""Of the starts were at least this quick."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One start that came to be ready, in seconds: until its GPUs were free, until its job ran, until it answered."""

    at: float
    reclaim: float
    start: float
    ready: float

    @property
    def total(self) -> float:
        """From the decision to the first answer."""
        return self.reclaim + self.start + self.ready


class Lead(msgspec.Struct, frozen=True, kw_only=True):
    """How much ahead replicas are started, in seconds, and why."""

    seconds: float
    why: str


def lead_of(starts: Sequence[Start], spec: ServiceSpec) -> Lead:
    """The lead time by past starts; the service file's number until enough are known. Never beyond `ready.timeout` and that."""
    known = sorted(start.total for start in starts[-KEPT:] if start.total >= 0)
    if len(known) < ENOUGH:
        return Lead(seconds=spec.lead_time, why=f"configured; {len(known)} starts are known")
    slow = known[min(len(known) - 1, int(SHARE * len(known)))]
    most = spec.ready.timeout + spec.lead_time
    return Lead(seconds=min(slow, most), why=f"nine of ten of the last {len(known)} starts took no longer")
