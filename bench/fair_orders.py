"""Orders of a queue for `bench_fairness.py`: FIFO, and imitations of Slurm's fair-share."""

from collections import defaultdict
from typing import NamedTuple

from colocd.core.runtimes import learn, remaining, run_times
from colocd.core.view import Checkpoint, Job, JobFacts, JobState

HALF_LIFE = 7 * 86400.0
"""Half-life of usage in Slurm's fair-share (PriorityDecayHalfLife's default)."""


class Work(NamedTuple):
    """One job of a workload."""

    number: int
    user: str
    gpus: int
    at: float
    seconds: float


class Order:
    """An order of waiting jobs. `key` sorts, smallest first; `fixed`: it never changes while a job waits."""

    fixed = True
    reserves = True

    def arrive(self, job: Work, now: float) -> None: ...
    def begin(self, job: Work, now: float) -> None: ...
    def end(self, job: Work, now: float) -> None: ...
    def look(self, now: float) -> None: ...
    def guess(self, job: Work) -> float:
        """Seconds the arm believes that the job runs: without anything better the truth, as an exact time limit."""
        return job.seconds

    def key(self, job: Work, now: float) -> object:
        raise NotImplementedError


class Fifo(Order):
    """Oldest first; whatever fits starts."""

    reserves = False

    def key(self, job: Work, now: float) -> object:
        return job.number


class FairShare(Order):
    """Slurm's multifactor priority with fair-share alone: 2^(-usage/share), usage with its half-life; then age."""

    fixed = False

    def __init__(self) -> None:
        self.used: dict[str, float] = defaultdict(float)
        self.at = 0.0

    def end(self, job: Work, now: float) -> None:
        fade = 0.5 ** ((now - self.at) / HALF_LIFE)
        self.used = defaultdict(float, {u: v * fade for u, v in self.used.items()})
        self.at = now
        self.used[job.user] += job.gpus * job.seconds

    def key(self, job: Work, now: float) -> object:
        return (self.used[job.user], job.number)


class GuessingFairShare(FairShare):
    """The same order, with the run times that coloc guesses instead of the true ones: what both do not know is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[str, list[float]] = {}

    def end(self, job: Work, now: float) -> None:
        super().end(job, now)
        learn(self.times, job.user, "job", job.seconds)

    def guess(self, job: Work) -> float:
        seen = job_of(job)
        return remaining(seen, JobFacts(), run_times(self.times, [seen]), 0.0, 0.9)


class RunningFairShare(GuessingFairShare):
    """The same again, with usage charged while jobs run, as Slurm does it, and not when they have ended."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, int] = defaultdict(int)

    def look(self, now: float) -> None:
        fade = 0.5 ** ((now - self.at) / HALF_LIFE)
        for user in self.used.keys() | self.held.keys():
            self.used[user] = self.used[user] * fade + self.held[user] * (now - self.at)
        self.at = now

    def arrive(self, job: Work, now: float) -> None:
        self.look(now)

    def begin(self, job: Work, now: float) -> None:
        self.held[job.user] += job.gpus

    def end(self, job: Work, now: float) -> None:
        self.look(now)
        self.held[job.user] -= job.gpus
        learn(self.times, job.user, "job", job.seconds)


def job_of(work: Work) -> Job:
    """The job as coloc's code sees it."""
    return Job(
        ref=str(work.number), user=work.user, name="job", partition="batch", state=JobState.PENDING,
        gpus_requested=work.gpus, submitted=work.at, checkpoint=Checkpoint(),
    )  # fmt: skip
