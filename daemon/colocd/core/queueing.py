"""Who goes first: user-weighted fair queueing by virtual time, after UWFQ, with ageing.

Virtual time is GPU-seconds of service to a user of weight 1. It runs at GPUs / (sum of the weights of the users who have jobs):
as fast as each of them would be served if the GPUs were shared out fairly at every moment. A job of L GPU-seconds gets the
tag max(virtual time, last tag of its user) + L / weight when it is first seen, and keeps it. The smallest tag goes first:
that is the order in which fair sharing would finish the jobs. Each task of an array is a job.

Work that was guessed wrong is settled when the job has ended: the difference moves its user's next tags (see `settle`).

Ageing: a job's place is tag + ageing * time of submission, so each second of waiting is worth `ageing` GPU-seconds. A job
that comes later by more than (tag - virtual time then) / (speed of virtual time + ageing) can never overtake. See `overtaking`.
"""

from collections.abc import Iterable, Mapping

import msgspec

from colocd.core.policy import JobClass, Policy
from colocd.core.runtimes import expected_work
from colocd.core.view import Job, JobFacts

ORDINARY = 0
"""Level of the jobs that are in no class."""


class FairClock(msgspec.Struct, frozen=True, kw_only=True):
    """Virtual time at Unix second `at`, and the last tag of each user whose jobs are ahead of it."""

    at: float
    virtual: float = 0.0
    last: dict[str, float] = msgspec.field(default_factory=dict)


def weight_of(user: str, policy: Policy) -> float:
    """The weight of a user: 1 for those who are not listed."""
    return next((share.weight for share in policy.shares if share.user == user), 1.0)


def advance(clock: FairClock, now: float, gpus: int, active: Iterable[str], policy: Policy) -> FairClock:
    """The clock at `now`, if these users had jobs all the time and these GPUs were theirs.

    A wall clock that went backwards stops virtual time until it has caught up.
    """
    weights = sum(weight_of(user, policy) for user in set(active))
    passed = max(0.0, now - clock.at)
    virtual = clock.virtual + (passed * gpus / weights if weights else 0.0)
    last = {user: tag for user, tag in clock.last.items() if tag > virtual}
    return FairClock(at=max(now, clock.at), virtual=virtual, last=last)


def stamp_all(
    clock: FairClock, jobs: Iterable[Job], runs: Mapping[str, tuple[float, ...]], policy: Policy
) -> tuple[FairClock, dict[str, float]]:
    """Tags for jobs seen for the first time, in order of their submission, for the work they are expected to be."""
    last, tags, weights = dict(clock.last), {}, {share.user: share.weight for share in policy.shares}
    for job in sorted(jobs, key=lambda j: (j.submitted or 0.0, j.order)):
        work = expected_work(job, runs, clock.at)
        tag = max(clock.virtual, last.get(job.user, 0.0)) + work / weights.get(job.user, 1.0)
        last[job.user] = tags[job.ref] = tag
    return msgspec.structs.replace(clock, last=last), tags


def settle(clock: FairClock, user: str, owed: float, policy: Policy) -> FairClock:
    """Charge a user with the GPU-seconds by which a job took more than was expected of it (less: give them back)."""
    tag = max(clock.virtual, clock.last.get(user, 0.0)) + owed / weight_of(user, policy)
    return msgspec.structs.replace(clock, last={**clock.last, user: tag})


def class_of(job: Job, policy: Policy) -> JobClass | None:
    """The job's class: the first that names its partition or QOS, else the open one that its mark names; None: ordinary."""
    for kind in policy.classes:
        if job.partition in kind.partitions or (job.qos is not None and job.qos in kind.qos):
            return kind
    asked = job.checkpoint.rank if job.checkpoint is not None else None
    return next((kind for kind in policy.classes if kind.open and kind.name == asked), None)


def level_of(job: Job, policy: Policy) -> int:
    """Level of the job's class, -2 to 2."""
    kind = class_of(job, policy) if policy.classes else None
    return ORDINARY if kind is None else kind.level


SETTLING = 2.0
"""Seconds for which a requeued job is not started again: Slurm fails one that starts in the second in which its nodes were told
to end it ("job credential revoked"). Slurm itself waits for longer than its credentials live; a release by coloc does not."""


def settling(job: Job, at: float) -> float:
    """Seconds until a requeued job may be started again; 0: now. Slurm's submit time of a requeued job is its requeue."""
    if job.restarts == 0 or job.submitted is None:
        return 0.0
    return max(0.0, job.submitted + SETTLING - at)


def place_of(job: Job, facts: JobFacts, policy: Policy) -> tuple[int, float, float, tuple[int, int]]:
    """Sort key of a waiting job, smallest first: class, tag with ageing, age. A job without a tag goes by its age alone."""
    submitted = job.submitted or 0.0
    return (-level_of(job, policy), (facts.tag or 0.0) + policy.ageing * submitted, submitted, job.order)


def overtaking(tag: float, virtual: float, speed: float, policy: Policy) -> float:
    """Seconds after its submission until no new job of its class can overtake a job any more, which got its tag at `virtual`.

    `speed`: least speed of virtual time meanwhile (GPUs / sum of the weights of all users).
    """
    return max(0.0, tag - virtual) / (speed + policy.ageing)
