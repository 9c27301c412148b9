"""Planned reclaims: the forecast sees the need by more than a lead time, so each place is taken at the moment of least loss.

Nothing of this is stored: it is worked out again each cycle from the forecast and from what the jobs have told, so it
survives any crash. A reclaim begins early only when this moment is now; until then the plan says what it waits for.
"""

from collections.abc import Sequence
from math import inf

import msgspec

from colocd.core.joint import Spot
from colocd.core.need import counted, fresh, lead_time, needed, replicas_for
from colocd.core.proof import ignores, save_time
from colocd.core.runtimes import remaining
from colocd.core.victims import gpu_count, restart_cost, unsaved
from colocd.core.view import Job, JobFacts, Quantiles, ServiceView, View
from colocd.core.wishes import is_wish

IDLE_WORTH = 0.5
"""What a GPU-second is worth during which a replica runs before it is needed, against one of lost batch work."""
_ROUND = 1e-6


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """When a place is best taken: seconds ahead (0: now), GPU-seconds lost then, and for what in words."""

    ahead: float
    lost: float
    waits_for: str


def ahead_of_need(service: ServiceView, now: int, view: View) -> list[float]:
    """Seconds until each further replica must be begun at the latest, for those the forecast needs beyond `now`.

    Soonest first; only those within `plan_ahead` of the service's lead time. Empty when the load is not known.
    """
    spec, policy = service.spec, view.policy
    if policy.plan_ahead <= 0 or is_wish(spec.name) or service.removed or service.forecast is None:
        return []
    load = fresh(service.load, view.at, policy)
    lead = lead_time(service)
    most = needed(service, policy, view.at, lead + policy.plan_ahead, policy.peak_quantile)
    if load is None or most is None:
        return []
    found: list[float] = []
    for point in service.forecast.points:
        wanted = replicas_for(max(load.value, _value(point, policy.peak_quantile)), service, policy)
        # `need` looks one step beyond the lead time, too: that is when the ordinary reclaim begins.
        latest = max(0.0, point.ahead - lead - service.forecast.step)
        if latest <= policy.plan_ahead:
            found += [latest] * (min(wanted, most) - max(now, len(counted(service))) - len(found))
    return found


def _value(point: Quantiles, quantile: float) -> float:
    ranked = sorted((float(q), v) for q, v in point.values.items())
    return next((v for q, v in ranked if q >= quantile - 1e-9), ranked[-1][1])


def best_moment(spot: Spot, latest: float, view: View) -> Moment:
    """The moment within `latest` seconds at which taking this place costs least: lost work and GPUs that serve too early.

    Candidates: now, the next own checkpoints and the natural ends of its victims, and the latest moment. A job that saves
    when it is asked loses only the time of one save, whenever that is, unless it was silent when it was told.
    """
    options: dict[float, str] = {latest: "until the service needs it"}
    for job in spot.victims:
        options |= dict.fromkeys(_saves(job, view.at, latest), f"for the next checkpoint of job {job.ref}")
        end = _end(job, view)
        if end <= latest:
            options[end] = f"for the end of job {job.ref}"
            options[latest] = f"for the end of job {job.ref}"
    options[0.0] = ""

    def cost(ahead: float) -> tuple[float, float]:
        lost = sum(_lost(job, ahead, view) for job in spot.victims)
        return lost + IDLE_WORTH * spot.gpus.bit_count() * (latest - ahead), -ahead

    best = min(sorted(options), key=cost)
    return Moment(ahead=best, lost=sum(_lost(job, best, view) for job in spot.victims), waits_for=options[best])


def _lost(job: Job, ahead: float, view: View) -> float:
    """GPU-seconds that evicting the job `ahead` seconds from now would lose; 0 when it has ended by then."""
    if ahead > 0 and _end(job, view) <= ahead + _ROUND:
        return 0.0
    mark, gpus = job.checkpoint, gpu_count(job)
    facts, most = view.facts.get(job.ref, JobFacts()), view.policy.max_unsaved
    again = restart_cost(job, view)
    if mark is not None and mark.signal is not None and not ignores(facts):
        seen = save_time(job, facts, view.policy)
        return (min(most, seen if seen < inf else mark.cost or 0.0) + again) * gpus
    saves = [t for t in _saves(job, view.at, ahead + _ROUND) if t <= ahead + _ROUND]
    since = ahead - saves[-1] if saves else unsaved(job, view.at, most) + ahead
    return (min(most, max(0.0, since)) + again) * gpus


def _saves(job: Job, at: float, until: float) -> Sequence[float]:
    """Seconds ahead of the checkpoints that the job will make by itself; none for a job that never told of one."""
    mark = job.checkpoint
    if mark is None or mark.saved is None or not mark.interval or mark.saved > at or job.started is None:
        return []
    step = mark.interval + (mark.cost or 0.0)
    last = max(mark.saved, job.started)
    first = last + step * max(1, -(-(at - last) // step)) - at
    return [first + i * step for i in range(max(0, min(64, int((until - first) // step) + 1)))]


def _end(job: Job, view: View) -> float:
    return remaining(job, view.facts.get(job.ref, JobFacts()), view.runs, view.at)
