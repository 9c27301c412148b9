"""Planned reclaims: the forecast sees the need by more than a lead time, so each victim is taken at its moment of least loss.

Nothing of this is stored until the first victim's moment has come: it is worked out again each cycle from the forecast and from
what the jobs have told, so it survives any crash. Then the handover begins, with the moments of the others; until then
the plan says what it waits for.
"""

from collections.abc import Sequence
from math import inf

import msgspec

from colocd.core.joint import Spot
from colocd.core.need import counted, fresh, lead_time, needed, replicas_for
from colocd.core.proof import askable, ignores, save_time
from colocd.core.runtimes import remaining
from colocd.core.victims import gpu_count, restart_cost, unsaved
from colocd.core.view import Job, JobFacts, Node, Quantiles, ServiceView, View
from colocd.core.wishes import is_wish

IDLE_WORTH = 0.5
"""What a GPU-second is worth during which a replica runs before it is needed, against one of lost batch work."""
_ROUND = 1e-6


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """When a victim is best taken: seconds ahead (0: now), GPU-seconds it loses then, and what is waited for in words."""

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


def moments(spot: Spot, node: Node, latest: float, view: View, *, together: bool = False) -> dict[str, Moment]:
    """When each victim of a place is best taken within `latest` seconds, by job: where work lost and GPUs idle cost least.

    A job that nobody can ask goes at a moment of its own: now, after one of its next checkpoints, at its natural end, at
    the latest moment. Those that can be asked are told together and last, for they wait for their requeue; each loses only
    the time of one save, whenever that is, unless it was silent when it was told. The node is fenced from the first of these
    moments to the last: where that keeps more free GPUs from others than it saves, or with `together`, all go at one common
    moment.
    """

    def price(jobs: Sequence[Job], ahead: float) -> float:
        held = sum(((job.gpus or {}).get(node.name, 0) & spot.gpus).bit_count() for job in jobs)
        return sum(_lost(job, ahead, view) for job in jobs) + IDLE_WORTH * held * (latest - ahead)

    def best(jobs: Sequence[Job], not_before: float = 0.0) -> tuple[float, str]:
        options = {t: why for t, why in _options(jobs, latest, view).items() if t >= not_before}
        options.setdefault(not_before, "until the others have gone")
        ahead = min(sorted(options), key=lambda t: (price(jobs, t), -t))
        return ahead, options[ahead]

    asked = [job for job in spot.victims if askable(job)]
    own = {job.ref: best([job]) for job in spot.victims if job not in asked}
    last = max((ahead for ahead, _ in own.values()), default=0.0)
    if asked:
        at_last = best(asked, last)
        own |= {job.ref: at_last for job in asked}
        last = at_last[0]
    first = min(ahead for ahead, _ in own.values())
    fence = IDLE_WORTH * (node.free & ~spot.gpus).bit_count() * (last - first)
    common = best(spot.victims)
    apart = sum(price([job], own[job.ref][0]) for job in spot.victims) + fence
    if together or apart >= price(spot.victims, common[0]) - _ROUND:
        own = dict.fromkeys(own, common)
    return {
        job.ref: Moment(ahead=own[job.ref][0], lost=_lost(job, own[job.ref][0], view), waits_for=own[job.ref][1])
        for job in spot.victims
    }


def _options(jobs: Sequence[Job], latest: float, view: View) -> dict[float, str]:
    """Moments to choose from, in seconds ahead, and what is waited for until then."""
    options: dict[float, str] = {latest: "until the service needs it"}
    for job in jobs:
        options |= dict.fromkeys(_saves(job, view.at, latest), f"for the next checkpoint of job {job.ref}")
        end = _end(job, view)
        if end <= latest:
            options[end] = f"for the end of job {job.ref}"
            options[latest] = f"for the end of job {job.ref}"
    options[0.0] = ""
    return options


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
