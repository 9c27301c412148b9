"""What a waiting job depends on (`sbatch --dependency`, `--begin`), in words, and whether the view shows it to be fulfilled.

Of a job that is held Slurm says nothing but that it is held, and looks only once a minute whether its dependency has come true.
So what the view itself shows counts, too: a job that it shows to have ended well fulfils `afterok`. What it does not show is
left to Slurm's word, and a dependency counts as failed by Slurm's word alone. Pure.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from colocd.core.view import Job, JobState

SHOWN = 3
"""Conditions that are told one by one; the others are counted."""
_ITEM = re.compile(r"([a-z]+)(?::(\d+)(?:_(\d+|\*))?(?:\+(\d+))?)?\(?([a-z]*)\)?")
_ENDED = (JobState.DONE, JobState.FAILED)
_STARTED = (JobState.RUNNING, JobState.SUSPENDED, JobState.COMPLETING, *_ENDED)
_HOW = {
    "after": "start",
    "afterany": "end",
    "afterok": "end",
    "afternotok": "fail",
    "aftercorr": "end",
    "afterburstbuffer": "have its data stored",
}


class Condition(NamedTuple):
    """`afterok:17_3(failed)`: its kind, the job and its array task (`*`: all tasks, empty: none), minutes after, Slurm's word."""

    kind: str
    number: str
    task: str
    minutes: int
    word: str
    text: str


class Dependency(NamedTuple):
    """All of the conditions must come true, or `either` of them."""

    conditions: tuple[Condition, ...]
    either: bool


@lru_cache(4096)
def parse(text: str) -> Dependency:
    """Slurm's text, as squeue tells it; a condition that cannot be read has its text only, and is left to Slurm."""
    either = "?" in text
    found = []
    for item in text.split("?" if either else ","):
        match = _ITEM.fullmatch(item.strip())
        if match is None:
            found.append(Condition("", "", "", 0, "", item.strip()))
        else:
            kind, number, task, minutes, word = match.groups()
            found.append(Condition(kind, number or "", task or "", int(minutes or 0), word, item.strip()))
    return Dependency(tuple(found), either)


def never(job: Job) -> str | None:
    """Why a job's dependency can never be fulfilled, with the next step; None: it can, or has none."""
    if job.dependency is None:
        return None
    told = parse(job.dependency)
    failed = [c for c in told.conditions if c.word == "failed"]
    if len(failed) < (len(told.conditions) if told.either else 1):
        return None
    because = " and ".join(_failure(c) for c in failed[:SHOWN])
    # Slurm makes its hold an administrator's then: its user may still change the dependency, and cannot release the job any more.
    return f"can never start: {because}; `scancel {job.ref}` and submit it anew"


def waits_for(job: Job) -> str | None:
    """What a job still has to wait for by Slurm's word: `job 17 to end (afterok)`; None: it depends on nothing."""
    if job.dependency is None:
        return None
    told = parse(job.dependency)
    parts = [_words(c) for c in told.conditions[:SHOWN]]
    more = len(told.conditions) - len(parts)
    return (" or " if told.either else " and ").join([*parts, *([f"{more} more"] if more else [])])


class Dependencies:
    """The jobs of a view, looked up only if some job depends on another."""

    def __init__(self, jobs: Sequence[Job], at: float) -> None:
        self.at = at
        self._jobs = jobs
        self._by_ref: dict[str, Job] | None = None
        self._by_name: dict[tuple[str, str], list[Job]] | None = None

    def keeps(self, job: Job) -> str | None:
        """Why a held job is not released yet: its dependency or its begin time. None: neither keeps it from starting."""
        if (why := never(job)) is not None:
            return why
        if job.dependency is not None and not self.fulfilled(job):
            return f"waits for {waits_for(job)}"
        if (begin := begin_of(job, self.at)) is not None:
            return f"waits for its begin time, in {begin - self.at:.0f} s"
        return None

    def fulfilled(self, job: Job) -> bool:
        """Whether the view shows that what the job depends on has happened."""
        if job.dependency is None:
            return True
        told = parse(job.dependency)
        enough: Callable[..., bool] = any if told.either else all
        return enough(self._true(c, job) for c in told.conditions)

    def _true(self, condition: Condition, job: Job) -> bool:
        if condition.word == "failed":
            return False
        if condition.kind == "singleton":
            return not any(self._before(other, job) for other in self._alike(job))
        number, task = condition.number, condition.task
        if condition.kind == "aftercorr":
            task = job.ref.partition("_")[2] if task == "*" else task
        # Of an array Slurm may have forgotten tasks, and how they ended: what all of them did it must say itself.
        other = None if not number or task == "*" else self._find(f"{number}_{task}" if task else number)
        if other is None:
            return False
        if condition.kind == "after":
            since = other.started
            if not condition.minutes:
                return other.state in _STARTED
            return other.state in _STARTED and since is not None and since + 60 * condition.minutes <= self.at
        wanted = {
            "afterany": _ENDED,
            "afterok": (JobState.DONE,),
            "aftercorr": (JobState.DONE,),
            "afternotok": (JobState.FAILED,),
        }
        return other.state in wanted.get(condition.kind, ())

    def _find(self, ref: str) -> Job | None:
        if self._by_ref is None:
            self._by_ref = {job.ref: job for job in self._jobs}
        return self._by_ref.get(ref)

    def _alike(self, job: Job) -> list[Job]:
        if self._by_name is None:
            self._by_name = {}
            for other in self._jobs:
                self._by_name.setdefault((other.user, other.name), []).append(other)
        return self._by_name.get((job.user, job.name), [])

    @staticmethod
    def _before(other: Job, job: Job) -> bool:
        """Whether a job of the same user and name goes before one that is to run alone."""
        if other.state in _ENDED or other.order[0] == job.order[0]:
            return False
        return other.state is not JobState.PENDING or other.order < job.order


def begin_of(job: Job, at: float) -> float | None:
    """When a held job may start by its user's `--begin`; None: now. After a requeue that time is Slurm's own delay."""
    return job.begins if job.begins is not None and job.begins > at and not job.restarts else None


def _who(condition: Condition) -> str:
    if condition.kind == "aftercorr" and condition.task == "*":
        return f"the same task of array {condition.number}"
    if condition.task == "*":
        return f"all tasks of array {condition.number}"
    return f"job {condition.number}" + (f"_{condition.task}" if condition.task else "")


def _words(condition: Condition) -> str:
    if condition.kind == "singleton":
        return "its user's other jobs of the same name to end (singleton)"
    how = _HOW.get(condition.kind)
    if how is None or not condition.number:
        return condition.text
    then = f" and {condition.minutes} min to pass" if condition.minutes else ""
    return f"{_who(condition)} to {how}{then} ({condition.kind})"


def _failure(condition: Condition) -> str:
    how = {"afterok": "did not end well", "aftercorr": "did not end well", "afternotok": "did not fail"}
    if condition.kind not in how or not condition.number:
        return f"what it waits for cannot come true any more ({condition.text})"
    return f"{_who(condition)} {how[condition.kind]} ({condition.kind})"
