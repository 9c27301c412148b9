"""The site's rules that the planner obeys; part of every view, so a plan can be reproduced from one file."""

import msgspec


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
    spare_replicas: int = 0
    """Replicas kept above the forecast need, per service."""
    cooldown: float = 0.0
    """After an eviction a job is not started again for this long."""
