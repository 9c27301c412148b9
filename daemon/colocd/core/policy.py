"""The site's rules that the planner obeys; part of every view, so a plan can be reproduced from one file."""

from typing import Literal

import msgspec


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the batch GPUs a user is meant to get, against others (`[[policy.shares]]`, any number of them)."""

    user: str
    """The user's login name."""
    weight: float = 1.0
    """Twice the weight: the same queue passes twice as fast. Who is not listed has 1, or what `policy.weights` says."""


class JobClass(msgspec.Struct, frozen=True, kw_only=True):
    """A class of batch work (`[[policy.classes]]`). Jobs of a lower level are evicted first and start last."""

    name: str
    """Its name; the class `normal` need not be written down."""
    level: int = 0
    """-2 to 2; jobs of no class have 0. With each level up, what an eviction costs counts a thousand times as much."""
    partitions: tuple[str, ...] = ()
    """Jobs in these partitions are in the class."""
    qos: tuple[str, ...] = ()
    """Jobs with these QOS are in the class."""
    open: bool = False
    """Users may put their jobs into it themselves, with `--coloc-class`. Meant for levels below 0."""
    grace: float | None = None
    """Longest time its jobs get to checkpoint, if shorter than `policy.grace`: so each partition can have its own."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Durations are seconds, costs are GPU-seconds."""

    batch_partitions: tuple[str, ...] = ("batch",)
    """Partitions whose jobs coloc starts and evicts, if they opted in; jobs elsewhere are left alone."""
    online_partitions: tuple[str, ...] = ("online",)
    """Pending jobs here that carry a coloc request in their comment are placed like replicas."""
    grace: float = 120.0
    """Longest time a victim gets to checkpoint; a job may ask for less, never for more."""
    protected_runtime: float = 300.0
    """A job that has run for less than this since its last start is never a victim."""
    max_evictions_per_job: int = 3
    """A job that has been evicted this often is not a victim again."""
    eviction_cost: float = 600.0
    """Fixed cost of one eviction, in GPU-seconds: prefers fewer victims."""
    max_unsaved: float = 3600.0
    """Seconds of unsaved work a job can claim at most: silence must not pay."""
    surge_quantile: float = 0.9
    """The load may grow within the lead time as it did in this share of cases before; that is added to it. 0: nothing is."""
    valley_quantile: float = 0.9
    """GPUs that services may need at this quantile of the forecast are not given to batch jobs."""
    peak_quantile: float = 0.9
    """Replicas are started for the load at this quantile within the service's lead time."""
    min_useful: float = 600.0
    """A batch job without a checkpoint interval is started only into a valley at least this long."""
    stale_after: float = 60.0
    """A reading older than this counts as unknown."""
    start_timeout: float = 120.0
    """A released batch job or a placed replica that has not started after this is taken back."""
    retry_after: float = 300.0
    """Pause before the same job or placement is tried again after it failed."""
    scale_down_after: float = 300.0
    """Load must have been low for this long before a replica is drained."""
    scale_down_margin: float = 0.1
    """A replica is given up only when the others would carry the load times one and this: no to and fro around a limit."""
    min_stay: float = 300.0
    """A replica is not drained before it has been placed for this long."""
    spare_replicas: int = 0
    """Replicas kept above the forecast need, per service."""
    cooldown: float = 0.0
    """After an eviction a job is not started again for this long."""
    emergency_grace: float = 60.0
    """Longest time a victim gets when the load is there already and was not foreseen; never more than `grace`."""
    plan_ahead: float = 900.0
    """Reclaims that the forecast sees coming by this much more than a service's lead time may begin early; 0: none does."""
    user_evictions_per_hour: int = 0
    """Jobs of one user that may be evicted within an hour; 0: no limit."""
    evictions_per_hour: int = 0
    """Jobs that may be evicted within an hour in all; 0: no limit."""
    deadline_protection: float = 3600.0
    """A job that can still meet its own deadline is no victim within this time before it."""
    useful_intervals: float = 1.0
    """A job with a checkpoint interval is started only into a valley of this many intervals and its restart cost."""
    longest_valley: float = 4 * 3600.0
    """A job that cannot checkpoint is not made to wait for a valley longer than this."""
    ageing: float = 1.0
    """GPU-seconds by which each second of waiting moves a job forward in the queue."""
    reserve_within: float = 2 * 3600.0
    """GPUs are reserved for the first job that does not fit if enough of them come free within this time; 0: never."""
    eviction_target: float = 0.25
    """Share of runs that may end by an eviction before fewer batch jobs are admitted; 1: the quota is always whole."""
    quota_min: float = 0.25
    """The quota of the batch jobs never falls below this share of the GPUs that services leave."""
    quota_period: float = 600.0
    """The quota changes at most this often."""
    weights: Literal["equal", "slurm"] = "equal"
    """Weight of users who are not in `[[policy.shares]]`: the same for all, or by the shares of Slurm's fair-share."""
    shares: tuple[Share, ...] = ()
    """See `[[policy.shares]]` below."""
    classes: tuple[JobClass, ...] = ()
    """See `[[policy.classes]]` below."""
