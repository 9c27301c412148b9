"""From load to replicas: how many a service needs, over which time, and why."""

import math

from colocd.core.actions import Need
from colocd.core.forecast import peak
from colocd.core.policy import Policy
from colocd.core.view import Reading, Replica, ReplicaState, ServiceView
from colocd.core.wishes import is_wish

_COUNTED = (ReplicaState.PLACING, ReplicaState.STARTING, ReplicaState.READY)


def counted(service: ServiceView) -> tuple[Replica, ...]:
    """Replicas that serve or will: not those that drain or are gone."""
    return tuple(r for r in service.replicas if r.state in _COUNTED)


def fresh(reading: Reading | None, at: float, policy: Policy) -> Reading | None:
    """The reading unless it is too old (or from the future by a clock jump) to act on."""
    return reading if reading is not None and abs(at - reading.at) <= policy.stale_after else None


def replicas_for(load: float, service: ServiceView, policy: Policy) -> int:
    """Replicas that carry `load` (units of the service's measure) at its target use, within its limits."""
    spec = service.spec
    if service.removed:
        return 0
    wanted = math.ceil(load / (spec.capacity.per_replica * spec.capacity.target_use) - 1e-9) + policy.spare_replicas
    return max(spec.min_replicas, min(spec.max_replicas, wanted))


def needed(service: ServiceView, policy: Policy, at: float, until: float, quantile: float) -> int | None:
    """Most replicas needed between now and `until` seconds ahead, by the present load and the forecast; None: unknown.

    An unreadable load makes the answer unknown, whatever the forecast says: a dead exporter never opens a valley.
    """
    load = fresh(service.load, at, policy)
    if service.removed:
        return 0
    if load is None:
        return None
    foreseen = peak(service.forecast, quantile, 0.0, until) if service.forecast is not None else None
    return replicas_for(max(load.value, foreseen or 0.0), service, policy)


def need(service: ServiceView, policy: Policy, at: float) -> Need:
    """Replicas that should be running one lead time from now, and the sentence that explains it."""
    spec, have = service.spec, len(counted(service))
    if service.removed:
        return Need(service=spec.name, now=0, have=have, why="the service was removed")
    if is_wish(spec.name):
        return Need(service=spec.name, now=1, have=have, why="the job asks for a place")
    wanted = needed(service, policy, at, spec.lead_time, policy.peak_quantile)
    if wanted is None:
        foreseen = (
            peak(service.forecast, policy.peak_quantile, 0.0, spec.lead_time) if service.forecast is not None else None
        )
        floor = spec.min_replicas if foreseen is None else replicas_for(foreseen, service, policy)
        keep = min(spec.max_replicas, max(have, floor))
        return Need(service=spec.name, now=keep, have=have, why="its load cannot be read: what runs stays")
    load = fresh(service.load, at, policy)
    foreseen = (
        peak(service.forecast, policy.peak_quantile, 0.0, spec.lead_time) if service.forecast is not None else None
    )
    parts = [f"load {load.value:.4g}" if load is not None else "load unknown"]
    if foreseen is not None:
        parts.append(f"up to {foreseen:.4g} foreseen within {spec.lead_time:.0f} s at q{policy.peak_quantile:g}")
    carries = spec.capacity.per_replica * spec.capacity.target_use
    return Need(service=spec.name, now=wanted, have=have, why=f"{', '.join(parts)}; a replica carries {carries:.4g}")


def reserve(service: ServiceView, policy: Policy, at: float, until: float) -> int:
    """Replicas beyond those it has that the service may need within `until` seconds; unknown load reserves its maximum."""
    wanted = needed(service, policy, at, until, policy.valley_quantile)
    return max(0, (service.spec.max_replicas if wanted is None else wanted) - len(counted(service)))
