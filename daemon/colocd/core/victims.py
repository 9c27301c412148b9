"""Which jobs may be evicted and what that costs: facts of one job, without regard to where a replica would sit."""

from math import inf, log2

from colocd.core.proof import save_time
from colocd.core.runtimes import remaining
from colocd.core.view import Job, JobFacts, JobState, View

COST_DIGITS = 3
"""Costs are kept to a thousandth of a GPU-second, so that sums are exact and the same in any order."""
COST_SCALE = 1000
MAX_COST = 1e9
"""Highest cost of one eviction, in GPU-seconds."""
NEVER_AGAIN = 31
"""Class of what cannot be evicted at all."""
_FLOOR = 60.0
"""Losses up to this many seconds are the cheapest class; each half doubling is one more."""
LEVEL_FACTOR = 1000.0
"""How many times as much an eviction counts with each level of a job's class, when victims are compared."""


def unsaved(job: Job, at: float, limit: float) -> float:
    """Seconds of work a requeue would lose: since the last checkpoint or start, at most `limit` (silence must not pay)."""
    saved = job.checkpoint.saved if job.checkpoint is not None else None
    since = max((t for t in (job.started, saved) if t is not None and t <= at), default=None)
    return limit if since is None else min(limit, at - since)


def at_stake(job: Job, facts: JobFacts, view: View) -> float:
    """Seconds of work that an eviction now would cost: `unsaved`, or one save of a job that was seen to save when told."""
    lost = unsaved(job, view.at, view.policy.max_unsaved)
    return min(lost, save_time(job, facts, view.policy))


def expected_loss(job: Job, facts: JobFacts, view: View) -> float:
    """Seconds that an eviction at some unknown time is expected to lose for each GPU of one node; a job's further nodes count.

    Half a checkpoint interval on average, `max_unsaved` when the job tells of none, one save at most when it was seen to save
    when told; and its restart.
    """
    limit = view.policy.max_unsaved
    interval = job.checkpoint.interval if job.checkpoint is not None else None
    lost = limit if interval is None else min(limit, interval) / 2
    lost = min(lost, save_time(job, facts, view.policy))
    return (lost + restart_cost(job, view)) * max(1, job.nodes_requested)


def dearness(job: Job, facts: JobFacts, view: View) -> int:
    """Class of a job, 1 (cheapest) to 31 (it cannot be evicted): by `expected_loss`."""
    loss = inf if facts.evictions >= view.policy.max_evictions_per_job else expected_loss(job, facts, view)
    return NEVER_AGAIN if loss == inf else min(NEVER_AGAIN - 1, 1 + round(2 * log2(max(_FLOOR, loss) / _FLOOR)))


def is_dear(job: Job, facts: JobFacts, view: View) -> bool:
    """Whether a job belongs where services expand last: an eviction is expected to lose half of what may be lost at all."""
    return facts.evictions >= view.policy.max_evictions_per_job or (
        expected_loss(job, facts, view) >= view.policy.max_unsaved / 2
    )


def cpus_per_node(job: Job) -> int:
    """CPUs the job takes on each of its nodes, rounded up."""
    return -(-job.cpus_requested // max(1, job.nodes_requested))


def gpu_count(job: Job) -> int:
    """GPUs the job holds on all its nodes, or asked for when that is unknown."""
    held = sum(m.bit_count() for m in job.gpus.values()) if job.gpus else 0
    return held or job.gpus_requested


def restart_cost(job: Job, view: View) -> float:
    """Seconds the job says its restart takes, else one save of its, at most `max_unsaved`; 0 when it says nothing."""
    facts = job.checkpoint
    told = None if facts is None else facts.cost if facts.restart is None else facts.restart
    return min(told or 0.0, view.policy.max_unsaved)


def eviction_cost(job: Job, facts: JobFacts, view: View) -> float:
    """GPU-seconds that evicting the job costs: work at stake and restart cost on all its GPUs, and the fixed cost."""
    policy = view.policy
    lost = at_stake(job, facts, view) + restart_cost(job, view)
    return round(min(MAX_COST, lost * gpu_count(job) + policy.eviction_cost), COST_DIGITS)


def barred_for_good(job: Job, view: View) -> str | None:
    """Why the job may not be evicted at all, whoever says so; None: it may, budgets permitting."""
    if job.checkpoint is None:
        return "not submitted through coloc"
    if job.partition not in view.policy.batch_partitions:
        return f"partition {job.partition} is not a batch partition"
    if job.state is not JobState.RUNNING:
        return f"is {job.state}"
    if job.gpus is None:
        return "its GPUs could not be read"
    return "its start time could not be read" if job.started is None else None


def budget(job: Job, facts: JobFacts, view: View, planned: int = 0, planned_all: int = 0) -> str | None:
    """The budget that keeps the job from being evicted now, in words; None: none does. An operator may override these."""
    policy, at = view.policy, view.at
    if facts.evictions >= policy.max_evictions_per_job:
        return f"evicted {facts.evictions} times already (policy.max_evictions_per_job)"
    if job.started is not None and (left := job.started + policy.protected_runtime - at) > 0:
        return f"protected for another {left:.0f} s (policy.protected_runtime)"
    spent = spent_budget(view, job.user, planned, planned_all)
    if spent is not None:
        return spent
    if protected_by_deadline(job, facts, view):
        return (
            f"has its own deadline in {(facts.deadline or at) - at:.0f} s and can meet it (policy.deadline_protection)"
        )
    return None


def spent_budget(view: View, user: str, planned: int = 0, planned_all: int = 0) -> str | None:
    """The hourly budget that is used up for a user's jobs; `planned`, `planned_all`: evictions of this plan so far."""
    policy = view.policy
    mine = view.evicted.get(user, 0) + planned
    if 0 < policy.user_evictions_per_hour <= mine:
        return f"{mine} jobs of {user} were evicted within the hour (policy.user_evictions_per_hour)"
    everybody = sum(view.evicted.values()) + planned_all
    if 0 < policy.evictions_per_hour <= everybody:
        return f"{everybody} jobs were evicted within the hour (policy.evictions_per_hour)"
    return None


def protected_by_deadline(job: Job, facts: JobFacts, view: View) -> bool:
    """Whether the job's first deadline is near, ahead, and still met if nobody evicts it."""
    if facts.deadline is None:
        return False
    left = facts.deadline - view.at
    return 0 < left <= view.policy.deadline_protection and remaining(job, facts, view.runs, view.at) <= left


def barred(job: Job, facts: JobFacts, view: View, planned: int = 0, planned_all: int = 0) -> str | None:
    """Why the job may not be evicted now; None: it may. `planned`, `planned_all`: see `spent_budget`."""
    return barred_for_good(job, view) or budget(job, facts, view, planned, planned_all)
