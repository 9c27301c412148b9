"""How long victims may keep their GPUs once they were told: their grace, then Slurm's `KillWait`. Pure."""

from collections.abc import Iterable

from colocd.core.policy import Policy
from colocd.core.queueing import class_of
from colocd.core.view import Job, JobState

HOLDING = (JobState.RUNNING, JobState.SUSPENDED, JobState.CONFIGURING)


def grace_of(jobs: Iterable[Job], policy: Policy, *, emergency: bool) -> float:
    """Seconds the slowest victim gets: what it asks for, at most its class's and the site's grace; 0: none takes a signal.

    In an emergency the site's grace is the short one. Jobs that hold no GPUs any more count for nothing.
    """
    most = min(policy.grace, policy.emergency_grace) if emergency else policy.grace
    wanted = []
    for job in jobs:
        facts, kind = job.checkpoint, class_of(job, policy)
        if facts is not None and facts.signal is not None and job.state in HOLDING:
            limits = (most, facts.grace, kind.grace if kind is not None else None)
            wanted.append(min(limit for limit in limits if limit is not None))
    return max(wanted, default=0.0)
