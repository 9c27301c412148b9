"""How long a batch job will still run: from the past run times of its user and name, given what has already run.

Job names are taken by kind: digits do not count, so `sweep-17` and `sweep-18` are one kind.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from colocd.core.view import Job, JobFacts

ENOUGH = 3
"""Past runs that must have lasted longer than this one has, or a wider group of runs is asked."""
KEPT = 64
"""Newest past run times kept of each group."""
UNHEARD = 3600.0
"""Seconds expected of a job of which nothing is known: no past runs, no time limit."""
_DIGITS = re.compile(r"[0-9]+")


@lru_cache(maxsize=1 << 16)
def kind_of(user: str, name: str) -> str:
    """The group of runs that a job belongs to. No user name holds a slash."""
    return f"{user}/{_DIGITS.sub('#', name)[:80]}"


def learn(times: dict[str, list[float]], user: str, name: str, seconds: float) -> None:
    """Add the run time of a job that has ended to its groups; the newest come first."""
    for kind in (kind_of(user, name), f"{user}/"):
        times.setdefault(kind, []).insert(0, round(seconds, 3))
        del times[kind][KEPT:]


def run_times(times: Mapping[str, Sequence[float]], jobs: Iterable[Job]) -> dict[str, tuple[float, ...]]:
    """`View.runs` for these jobs."""
    kinds = {kind for job in jobs for kind in (kind_of(job.user, job.name), f"{job.user}/")}
    return {kind: tuple(sorted(times[kind])) for kind in sorted(kinds & times.keys())}


def ran(job: Job, facts: JobFacts, at: float) -> float:
    """Seconds the job has run by now, earlier runs included."""
    return facts.ran + (max(0.0, at - job.started) if job.gpus and job.started is not None else 0.0)


def remaining(
    job: Job, facts: JobFacts, runs: Mapping[str, Sequence[float]], at: float, quantile: float = 0.5
) -> float:
    """Seconds the job will still run at this quantile; never more than its time limit leaves it.

    The distribution is that of the runs of the same kind which lasted longer than this one has; when fewer than three did,
    that of all runs of its user. When these do not tell either: its time limit, and without one as long again as it has run
    (the guess that fits heavy-tailed run times), at least an hour in all.
    """
    so_far = ran(job, facts, at)
    left = limit_left(job, at)
    for kind in (kind_of(job.user, job.name), f"{job.user}/"):
        known = runs.get(kind, ())
        longer = known[bisect_right(known, so_far) :]
        if len(longer) >= ENOUGH:
            guess = longer[min(len(longer) - 1, int(quantile * len(longer)))] - so_far
            return guess if left is None else min(guess, left)
    return left if left is not None else max(so_far, UNHEARD - so_far)


def expected_works(jobs: Iterable[Job], runs: Mapping[str, Sequence[float]], at: float) -> dict[str, float]:
    """GPU-seconds that each job is expected to take in all, by ref: its GPUs times the mean run time of its kind.

    The mean, for the errors of many jobs of a user cancel out. Where too few runs are known: `remaining`.
    """
    means = {kind: sum(known) / len(known) for kind, known in runs.items() if len(known) >= ENOUGH}
    found = {}
    for job in jobs:
        seconds = means.get(kind_of(job.user, job.name), means.get(f"{job.user}/"))
        if seconds is None:
            seconds = remaining(job, JobFacts(), runs, at)
        elif job.time_limit is not None:
            seconds = min(seconds, job.time_limit)
        found[job.ref] = max(1, job.gpus_requested) * seconds
    return found


def limit_left(job: Job, at: float) -> float | None:
    """Seconds until Slurm would end the job; None: it has no time limit. A requeued job gets its whole limit again."""
    if job.time_limit is None:
        return None
    begun = at - job.started if job.gpus and job.started is not None else 0.0
    return max(0.0, job.time_limit - max(0.0, begun))
