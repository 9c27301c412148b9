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
    """One start that came to be ready, in seconds: until its GPUs were free, until its job ran, until it answered.

    `ending`: the part of `reclaim` from the requeue of its victims until they had gone; None: it had none, or not known.
    """

    at: float
    reclaim: float
    start: float
    ready: float
    ending: float | None = None

    @property
    def total(self) -> float:
        """From the decision to the first answer."""
        return self.reclaim + self.start + self.ready

    def at_worst(self, kill_wait: float) -> float:
        """As `total`, had its victims ignored TERM, which the next ones may do."""
        return self.total if self.ending is None else self.total + max(0.0, kill_wait - self.ending)


class Lead(msgspec.Struct, frozen=True, kw_only=True):
    """How much ahead replicas are started, in seconds, and why."""

    seconds: float
    why: str


def lead_of(starts: Sequence[Start], spec: ServiceSpec, kill_wait: float | None = None) -> Lead:
    """The lead time by past starts; the service file's number until enough are known. Never beyond `ready.timeout` and that.

    `kill_wait`: Slurm's `KillWait`, by which victims that ignore TERM may be late; None: not known, nothing is added.
    """
    wait = kill_wait or 0.0
    known = sorted(start.at_worst(wait) for start in starts[-KEPT:] if start.total >= 0)
    told = f", and Slurm's KillWait of {wait:g} s for victims that ignore TERM" if wait else ""
    configured = spec.lead_time + wait
    if len(known) < ENOUGH:
        return Lead(seconds=configured, why=f"configured: {spec.lead_time:g} s{told}; {len(known)} starts are known")
    slow = known[min(len(known) - 1, int(SHARE * len(known)))]
    most = spec.ready.timeout + configured
    return Lead(seconds=min(slow, most), why=f"nine of ten of the last {len(known)} starts took no longer{told}")
