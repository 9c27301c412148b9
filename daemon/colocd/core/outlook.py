"""When waiting jobs are expected to start: the queue played forward over what services leave, counted in GPUs.

Two runs make a window: one with median run times and the median forecast, one with both at their careful quantiles. GPUs
are counted over the whole cluster, not per node, so a job that needs a whole node may wait longer than the window says.
"""

from heapq import heapify, heappop, heappush

from colocd.core.fill import waiting
from colocd.core.need import counted, lead_time, needed, replicas_for
from colocd.core.queueing import place_of
from colocd.core.runtimes import remaining
from colocd.core.victims import gpu_count
from colocd.core.view import Held, Job, JobFacts, JobState, View
from colocd.core.wishes import is_wish

MOST = 2000
"""Jobs of the queue that are played forward; those behind them have no window."""
CAREFUL = 0.9
Window = tuple[float | None, float | None]
"""Earliest and latest expected start, Unix seconds; None: not within what is foreseen."""


def windows(view: View) -> dict[str, Window]:
    """Expected start of each waiting job of coloc's, by ref; jobs that are parked or pause are left out."""
    queue = []
    for job in view.jobs:
        facts = view.facts.get(job.ref, JobFacts())
        free = job.state is JobState.PENDING and job.checkpoint is not None and job.held is Held.NO
        if facts.parked is None and (free or waiting(job, facts, view.policy)):
            queue.append((place_of(job, facts, view.policy), job, facts))
    queue.sort(key=lambda entry: entry[0])
    jobs = [(job, facts) for _, job, facts in queue[:MOST]]
    early = _play(jobs, view, 0.5, 0.5)
    late = _play(jobs, view, view.policy.valley_quantile, CAREFUL)
    return {job.ref: (early.get(job.ref), late.get(job.ref)) for job, _ in jobs}


def _play(jobs: list[tuple[Job, JobFacts]], view: View, load_at: float, time_at: float) -> dict[str, float]:
    """Starts of jobs taken strictly in order, as far as the forecast goes."""
    pool = _pool(view, load_at)
    ends = [
        (view.at + remaining(j, view.facts.get(j.ref, JobFacts()), view.runs, view.at, time_at), gpu_count(j))
        for j in view.jobs
        if j.checkpoint is not None and j.gpus
    ]
    heapify(ends)
    held = sum(gpus for _, gpus in ends)
    now, step = view.at, 0
    starts: dict[str, float] = {}
    for job, facts in jobs:
        need = gpu_count(job)
        pause = max(facts.retry_at or 0.0, (facts.evicted_at or 0.0) + view.policy.cooldown)
        while held + need > pool[step][1]:
            nexts = [
                t for t in (ends[0][0] if ends else None, pool[step + 1][0] if step + 1 < len(pool) else None) if t
            ]
            if not nexts:
                return starts
            now = max(now, min(nexts))
            while ends and ends[0][0] <= now:
                held -= heappop(ends)[1]
            while step + 1 < len(pool) and pool[step + 1][0] <= now:
                step += 1
        begins = max(now, pause)
        starts[job.ref] = begins
        heappush(ends, (begins + remaining(job, facts, view.runs, view.at, time_at), need))
        held += need
    return starts


def _pool(view: View, quantile: float) -> list[tuple[float, int]]:
    """(from when, GPUs that batch jobs may hold): what they hold, what is free, less what services may need then."""
    partitions = set(view.policy.batch_partitions)
    free = sum(n.free.bit_count() for n in view.nodes if partitions & set(n.partitions) and not n.reserved)
    base = free + sum(gpu_count(j) for j in view.jobs if j.checkpoint is not None and j.gpus)
    services = [s for s in view.services if not is_wish(s.spec.name)]
    times = sorted({0.0} | {p.ahead for s in services if s.forecast is not None for p in s.forecast.points})
    pool = []
    for ahead in times:
        taken = 0
        for service in services:
            size = service.spec.gpus_per_replica * service.spec.nodes
            wanted = needed(service, view.policy, view.at, lead_time(service), quantile)
            points = service.forecast.points if service.forecast is not None else ()
            later = next((p for p in points if p.ahead >= ahead), None)
            if wanted is not None and later is not None and ahead > 0:
                ranked = sorted((float(q), v) for q, v in later.values.items())
                value = next((v for q, v in ranked if q >= quantile - 1e-9), ranked[-1][1])
                wanted = replicas_for(value, service, view.policy)
            taken += ((service.spec.max_replicas if wanted is None else wanted) - len(counted(service))) * size
        pool.append((view.at + ahead, max(0, int(view.quota.share * (base - taken)))))
    return pool
