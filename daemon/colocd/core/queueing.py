"""Who goes first: user-weighted fair queueing by virtual time, after UWFQ, charged by what users received, with ageing.

Virtual time is GPU-seconds of service to a user of weight 1. Each user has a start: the GPU-seconds that the user's jobs
received, divided by the weight. A waiting job's tag is its user's start and, of the jobs of the same user before it, the work
that is expected. The smallest tag goes first. So a long job of a user who took little is not put back for its length, and no
guess of a run time is ever paid for: what is charged was received. Each task of an array is a job.

A user who comes anew starts at virtual time, less `CREDIT`. Virtual time keeps to the start of the waiting user who received
least, but runs at most as fast as fair shares would be served, GPUs / (sum of the weights of the users who have jobs), and at
least at `LEAST` of that, or a job that can never start would stop it. Departures from UWFQ as published: docs/planning.md.

Ageing: a job's place is tag + ageing * time of submission, so each second of waiting is worth `ageing` GPU-seconds. No job has
a tag below virtual time at its first sight less `CREDIT`: so none is overtaken for ever. See `overtaking`.
"""

from collections.abc import Collection, Iterable, Mapping

import msgspec

from colocd.core.policy import JobClass, Policy
from colocd.core.view import Job, JobFacts

ORDINARY = 0
"""Level of the jobs that are in no class."""
CREDIT = 3600.0
"""Seconds of all GPUs by which a user who took little goes ahead of virtual time. Measured: docs/benchmarks-batch.md."""
LEAST = 0.1
"""Virtual time runs at this part of the fair speed at least, whoever waits."""


class FairClock(msgspec.Struct, frozen=True, kw_only=True):
    """Virtual time at Unix second `at`, the GPUs that were shared out then, and each user's start.

    Users without jobs are in `served` while their start is later than a newcomer's: nobody gets rid of a debt by leaving.
    """

    at: float
    virtual: float = 0.0
    gpus: int = 0
    served: dict[str, float] = msgspec.field(default_factory=dict)

    @property
    def floor(self) -> float:
        """The start of a user who comes now, and the least tag of such a job; nothing was saved up before the clock began."""
        return max(0.0, self.virtual - CREDIT * self.gpus)


def weight_of(user: str, policy: Policy) -> float:
    """The weight of a user: 1 for those who are not listed."""
    return next((share.weight for share in policy.shares if share.user == user), 1.0)


def advance(
    clock: FairClock, now: float, gpus: int, active: Mapping[str, int], waiting: Collection[str], policy: Policy
) -> FairClock:
    """The clock at `now`, if it was all the time as it is now.

    `gpus`: those that are shared out. `active`: GPUs held by the jobs of each user who has jobs (0: all of them wait).
    `waiting`: users who have a job that waits. A wall clock that went backwards stops virtual time until it has caught up.
    """
    passed = max(0.0, now - clock.at)
    at = max(now, clock.at)
    listed = {share.user: share.weight for share in policy.shares}
    total = sum(listed.get(user, 1.0) for user in active)
    if not total:
        return msgspec.structs.replace(clock, at=at)
    speed = gpus / total
    served = {u: s + passed * active.get(u, 0) / listed.get(u, 1.0) for u, s in clock.served.items()}
    fair = clock.virtual + passed * speed
    known = [served[u] for u in waiting if u in served] or [served[u] for u in active if u in served]
    virtual = max(clock.virtual + LEAST * passed * speed, min([fair, *known]))
    made = FairClock(at=at, virtual=virtual, gpus=gpus)
    kept = {u: s for u, s in served.items() if u in active or s > made.floor}
    return msgspec.structs.replace(made, served=kept | {u: made.floor for u in active if u not in kept})


def chain(
    clock: FairClock, jobs: Iterable[Job], works: Mapping[str, float], floors: Mapping[str, float], policy: Policy
) -> dict[str, float]:
    """Tags of the waiting jobs, by ref: each user's one after the other, by class, those that ran before first, then by age.

    `works`: GPU-seconds expected of each. `floors`: `FairClock.floor` when each was first seen.
    """
    listed = {share.user: share.weight for share in policy.shares}
    ends: dict[str, float] = {}
    tags: dict[str, float] = {}
    for job in sorted(jobs, key=lambda j: (-level_of(j, policy), j.restarts == 0, j.submitted or 0.0, j.order)):
        start = ends.get(job.user, clock.served.get(job.user, clock.floor))
        tags[job.ref] = max(start, floors.get(job.ref, clock.floor))
        ends[job.user] = start + works[job.ref] / listed.get(job.user, 1.0)
    return tags


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


def overtaking(tag: float, least: float, speed: float, policy: Policy) -> float:
    """Seconds after its submission until no job of its class that comes later can stand before a job any more.

    `tag`: the job's now; it grows only by what its user receives beyond what was expected. `least`: virtual time when the
    job was first seen, less `CREDIT` * GPUs; below 0 while the clock is young, for then the floor stands still. `speed`: least
    speed of virtual time since: `LEAST` * GPUs / (sum of the weights of all users).
    """
    return max(0.0, tag - least) / (speed + policy.ageing)
