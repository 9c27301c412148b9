"""Ranges and units of the `[policy]` table."""

from collections.abc import Callable
from typing import Any

from colocd.units import Rule, duration, one_line


def _distinct(field: str) -> Callable[[Any], str | None]:
    """A check that no two tables name the same thing."""

    def check(items: Any) -> str | None:
        names = [getattr(item, field) for item in items]
        twice = next((name for name in names if names.count(name) > 1), None)
        return None if twice is None else f"names {twice!r:.60} twice"

    return check


_QUANTILE = Rule(above=0.0, below=1.0)

POLICY_RULES: dict[str, Rule] = {
    "policy.batch_partitions": Rule(check=lambda names: None if names else "must name at least one partition"),
    "policy.batch_partitions[]": Rule(check=one_line),
    "policy.online_partitions": Rule(),
    "policy.online_partitions[]": Rule(check=one_line),
    "policy.grace": duration(),
    "policy.protected_runtime": duration(zero=True),
    "policy.max_evictions_per_job": Rule(low=0, high=1_000_000),
    "policy.eviction_cost": Rule(low=0.0, high=1e12, unit="GPU-seconds"),
    "policy.max_unsaved": duration(zero=True),
    "policy.valley_quantile": _QUANTILE,
    "policy.peak_quantile": _QUANTILE,
    "policy.surge_quantile": Rule(low=0.0, below=1.0),
    "policy.min_useful": duration(zero=True),
    "policy.stale_after": duration(),
    "policy.start_timeout": duration(),
    "policy.retry_after": duration(),
    "policy.scale_down_after": duration(zero=True),
    "policy.scale_down_margin": Rule(low=0.0, high=10.0),
    "policy.min_stay": duration(zero=True),
    "policy.spare_replicas": Rule(low=0, high=10_000),
    "policy.cooldown": duration(zero=True),
    "policy.emergency_grace": duration(),
    "policy.plan_ahead": duration(zero=True),
    "policy.user_evictions_per_hour": Rule(low=0, high=1_000_000),
    "policy.evictions_per_hour": Rule(low=0, high=1_000_000),
    "policy.deadline_protection": duration(zero=True),
    "policy.useful_intervals": Rule(low=0.0, high=1000.0),
    "policy.longest_valley": duration(zero=True),
    "policy.ageing": Rule(above=0.0, high=1e6, unit="GPU-seconds"),
    "policy.reserve_within": duration(zero=True),
    "policy.eviction_target": Rule(above=0.0, high=1.0),
    "policy.quota_min": Rule(above=0.0, high=1.0),
    "policy.quota_period": duration(),
    "policy.weights": Rule(),
    "policy.shares": Rule(check=_distinct("user")),
    "policy.shares[].user": Rule(check=one_line),
    "policy.shares[].weight": Rule(low=0.01, high=100.0),
    "policy.classes": Rule(check=_distinct("name")),
    "policy.classes[].name": Rule(check=one_line),
    "policy.classes[].level": Rule(low=-2, high=2),
    "policy.classes[].partitions": Rule(),
    "policy.classes[].partitions[]": Rule(check=one_line),
    "policy.classes[].qos": Rule(),
    "policy.classes[].qos[]": Rule(check=one_line),
    "policy.classes[].open": Rule(),
    "policy.classes[].grace": duration(zero=True),
}
"""By dotted key, as in `colocd.config.RULES`."""
