"""From load to replicas: how many a service needs, over which time, and why."""

import math

from colocd.core.actions import Need
from colocd.core.forecast import peak
from colocd.core.policy import Policy
from colocd.core.view import Reading, Replica, ReplicaState, ServiceView, View
from colocd.core.wishes import is_wish

_COUNTED = (ReplicaState.PLACING, ReplicaState.STARTING, ReplicaState.READY)


def counted(service: ServiceView) -> tuple[Replica, ...]:
    """Replicas that serve or will: not those that drain or are gone."""
    return tuple(r for r in service.replicas if r.state in _COUNTED)


def fresh(reading: Reading | None, at: float, policy: Policy) -> Reading | None:
    """The reading unless it is too old (or from the future by a clock jump) to act on."""
    return reading if reading is not None and abs(at - reading.at) <= policy.stale_after else None


def lead_time(service: ServiceView) -> float:
    """Seconds from a decision to a ready replica: measured, else what the service file says."""
    return service.spec.lead_time if service.lead is None else service.lead.seconds


def carried(service: ServiceView) -> float:
    """Load that one replica is planned to carry: its capacity at its target use."""
    capacity = service.spec.capacity
    per_replica = capacity.per_replica if service.capacity is None else service.capacity.per_replica
    return per_replica * capacity.target_use


def share_of(service: ServiceView) -> float:
    """Load below which margins are shares of this and not of the load: half of what a replica is planned to carry."""
    return carried(service) / 2


def braced(load: float, service: ServiceView) -> float:
    """The load read, and what it may grow by until a replica that is started now is ready."""
    return load if service.surge is None else load + service.surge.share * max(load, share_of(service))


def known_part(service: ServiceView) -> float | None:
    """Load of the replicas that tell theirs, which the whole cannot be below, while others do not; None: none tells."""
    told = [r.load for r in service.replicas if r.load is not None]
    return math.fsum(told) if told else None


def replicas_for(load: float, service: ServiceView, policy: Policy) -> int:
    """Replicas that carry `load` (units of the service's measure) at its target use, within its limits."""
    spec = service.spec
    if service.removed:
        return 0
    wanted = math.ceil(load / carried(service) - 1e-9) + policy.spare_replicas
    return max(spec.min_replicas, min(spec.max_replicas, wanted))


def needed(service: ServiceView, policy: Policy, at: float, until: float, quantile: float) -> int | None:
    """Most replicas needed between now and `until` seconds ahead, by the present load and the forecast; None: unknown.

    The present load counts with what it may grow by (`braced`). An unreadable load makes the answer unknown, whatever the
    forecast says: a dead exporter never opens a valley. Replicas that are there are given up only when the rest carries the
    load with the margin `scale_down_margin`.
    """
    most = _most(service, policy, at, until, quantile)
    if service.removed:
        return 0
    if most is None:
        return None
    have = len(counted(service))
    wanted = replicas_for(most, service, policy)
    return wanted if wanted >= have else min(have, replicas_for(most * (1 + policy.scale_down_margin), service, policy))


def _most(service: ServiceView, policy: Policy, at: float, until: float, quantile: float) -> float | None:
    """The highest load, read (and braced) or foreseen, between now and `until`; None: it cannot be read."""
    load = fresh(service.load, at, policy)
    if load is None:
        return None
    foreseen = peak(service.forecast, quantile, 0.0, until) if service.forecast is not None else None
    return max(braced(load.value, service), foreseen or 0.0)


def needed_for_sure(service: ServiceView, view: View) -> int:
    """Replicas needed within the lead time, without the margin that keeps what is there; 0 when the load is unknown."""
    most = _most(service, view.policy, view.at, lead_time(service), view.policy.peak_quantile)
    return 0 if most is None else replicas_for(most, service, view.policy)


def need(service: ServiceView, policy: Policy, at: float) -> Need:
    """Replicas that should be running one lead time from now, and the sentence that explains it."""
    spec, have = service.spec, len(counted(service))
    if service.removed:
        return Need(service=spec.name, now=0, have=have, why="the service was removed")
    if is_wish(spec.name):
        return Need(service=spec.name, now=1, have=have, why="the job asks for a place")
    lead = lead_time(service)
    wanted = needed(service, policy, at, lead, policy.peak_quantile)
    foreseen = peak(service.forecast, policy.peak_quantile, 0.0, lead) if service.forecast is not None else None
    if wanted is None:
        floor = spec.min_replicas if foreseen is None else replicas_for(foreseen, service, policy)
        told = known_part(service)
        least = 0 if told is None else replicas_for(told, service, policy)
        keep = min(spec.max_replicas, max(have, floor, least))
        why = "its load cannot be read: what runs stays"
        if told is not None and least > max(have, floor):
            known = f"those of its replicas that tell carry {told:.4g}, a replica carries {carried(service):.4g}"
            why = f"its load cannot be read; {known}"
        return Need(service=spec.name, now=keep, have=have, why=why)
    load = fresh(service.load, at, policy)
    parts = [f"load {load.value:.4g}" if load is not None else "load unknown"]
    if load is not None and service.surge is not None and service.surge.share > 0:
        parts[0] += f", or {braced(load.value, service):.4g} if it grows ({service.surge.why})"
    if foreseen is not None:
        parts.append(f"up to {foreseen:.4g} foreseen within {lead:.0f} s at q{policy.peak_quantile:g}")
    learned = service.capacity is not None and service.capacity.learned
    how = f" (learned: {service.capacity.why})" if learned and service.capacity is not None else ""
    return Need(
        service=spec.name,
        now=wanted,
        have=have,
        why=f"{', '.join(parts)}; a replica carries {carried(service):.4g}{how}",
    )


def reserve(service: ServiceView, policy: Policy, at: float, until: float) -> int:
    """Replicas beyond those it has that the service may need within `until` seconds; unknown load reserves its maximum.

    A load that was read within the last `scale_down_after` seconds counts still: what vanished at once opens no valley at once.
    """
    wanted = needed(service, policy, at, until, policy.valley_quantile)
    if wanted is not None and service.recent is not None and not service.removed:
        wanted = max(wanted, replicas_for(service.recent, service, policy))
    return max(0, (service.spec.max_replicas if wanted is None else wanted) - len(counted(service)))


def at_once(service: ServiceView, view: View) -> int:
    """Replicas that the load read just now needs, whatever is foreseen: those that are missing of them are an emergency."""
    load = fresh(service.load, view.at, view.policy)
    return 0 if load is None or is_wish(service.spec.name) else replicas_for(load.value, service, view.policy)
