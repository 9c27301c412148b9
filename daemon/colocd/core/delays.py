"""Slurm's own delays, as the site has set them. Pure."""

import re
from collections.abc import Mapping

import msgspec

CRED_EXPIRE = 120.0
"""Seconds for which a job's credential lives where `AuthInfo` does not say otherwise."""


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; None: not known."""

    kill_wait: float | None = None
    """`KillWait`, from TERM to KILL: a job that ignores TERM holds its GPUs for so long after its requeue."""
    requeue: float | None = None
    """After a requeue Slurm itself does not start the job sooner; coloc cuts this short when it releases one."""


def delays_of(settings: Mapping[str, str]) -> Delays:
    """From what `scontrol show config` says. A requeued job waits until its credential has expired, and a second more.

    Measured on 22.05 to 26.05; from 25.11 on `requeue_delay` among the scheduler's parameters comes before that.
    """
    wait = re.match(r"(\d+) sec", settings.get("KillWait", ""))
    own = re.search(r"\brequeue_delay=(\d+)", settings.get("SchedulerParameters", ""))
    lives = re.search(r"\bcred_expire=(\d+)", settings.get("AuthInfo", ""))
    known = own is not None or "AuthInfo" in settings
    requeue = float(own[1]) if own else 1 + (float(lives[1]) if lives else CRED_EXPIRE)
    return Delays(kill_wait=float(wait[1]) if wait else None, requeue=requeue if known else None)
