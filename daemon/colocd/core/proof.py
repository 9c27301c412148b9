"""Whether a job that says it saves when it is asked has shown it: by how it, or jobs like it, answered when they were told.

A word alone changes nothing, and neither does a lie for long: the next eviction shows it. Pure.
"""

from math import inf

from colocd.core.policy import Policy
from colocd.core.view import Job, JobFacts

PATIENCE = 600.0
"""Seconds that a job runs at least before it is expected to have told of a save."""
MISSED = 3.0
"""Intervals of its own that a job runs without a save before it counts as one that makes none."""


def askable(job: Job) -> bool:
    """Whether it takes a signal that asks it to save."""
    return job.checkpoint is not None and job.checkpoint.signal is not None


def shown(facts: JobFacts) -> bool:
    """Whether it answered the last time it was told, and more often than it was silent."""
    return facts.took is not None and facts.answered > facts.silent


def ignores(facts: JobFacts) -> bool:
    """Whether it was silent, and has not made up for it: then its word that it saves when it is asked counts for nothing."""
    return facts.silent > 0 and not shown(facts)


def unheard(job: Job, facts: JobFacts) -> bool:
    """Whether it says that it saves by itself, and ran for long without telling of a save: then that word is worth nothing."""
    mark = job.checkpoint
    if mark is None or mark.interval is None or mark.saved is not None:
        return False
    return facts.ran > max(PATIENCE, MISSED * mark.interval)


def save_time(job: Job, facts: JobFacts, policy: Policy) -> float:
    """Seconds in which the job was seen to save when it was told; infinite: nobody vouches for it.

    One that needs longer than the grace of an emergency is not vouched for: nobody knows beforehand which grace it will get.
    """
    mark = job.checkpoint
    if mark is None or mark.signal is None or facts.took is None or not shown(facts):
        return inf
    return facts.took if facts.took <= min(policy.grace, policy.emergency_grace) else inf


def told(job: Job, facts: JobFacts, policy: Policy) -> str:
    """By what the loss of an eviction is weighed, in words."""
    saves = save_time(job, facts, policy)
    who = "jobs of its user and name" if facts.alike else "it"
    record = f"{who} answered {facts.answered} of {facts.answered + facts.silent} times when told"
    if saves < inf:
        return f"one save of {saves:.0f} s, if that is less than what it did since its last: {record}"
    since = "what it did since its last save"
    if not askable(job):
        return f"{since}: it cannot be asked to save"
    if not facts.answered and not facts.silent:
        return f"{since}: it says that it saves when it is asked, which nobody has seen yet"
    if shown(facts):
        return f"{since}: {record}, but took {facts.took or 0.0:.0f} s, longer than the grace of an emergency"
    return f"{since}: {record}, {'but not oftener than it was silent' if facts.took is not None else 'and not the last time'}"
