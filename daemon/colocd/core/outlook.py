"""When waiting jobs are expected to start: the queue played forward over what services leave, counted in GPUs.

Two runs make a window: one with median run times and the median forecast, one with both at their careful quantiles. As in
`fill`, a job starts when services will not need its GPUs before it has done useful work. GPUs are counted over the whole
cluster, not per node, so a job that needs a whole node may wait longer than the window says.
"""

from collections.abc import Collection
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from colocd.core.admission import useful_time
from colocd.core.dependencies import Dependencies, begin_of
from colocd.core.fill import ASIDE, rounded_up, waiting
from colocd.core.need import counted, lead_time, needed, replicas_for
from colocd.core.queueing import SETTLING, place_of
from colocd.core.room import Room
from colocd.core.runtimes import remaining
from colocd.core.victims import gpu_count
from colocd.core.view import Held, Job, JobFacts, JobState, View
from colocd.core.wishes import is_wish

MOST = 2000
"""Jobs of the queue that are played forward; those behind them have no window."""
CAREFUL = 0.9
Window = tuple[float | None, float | None]
"""Earliest and latest expected start, Unix seconds; None: not within what is foreseen."""


class Waiting(NamedTuple):
    """A job of the queue: GPUs, seconds for which it wants them at least, and not started before `ready` (Unix seconds).

    `let`: nothing but Slurm itself keeps it from starting.
    """

    job: Job
    facts: JobFacts
    gpus: int
    useful: float
    ready: float
    let: bool


def windows(view: View, starting: Collection[str] | None = None) -> dict[str, Window]:
    """Expected start of each waiting job of coloc's, by ref; none of those that are parked, that can never start, or that
    a dependency or an array's limit keeps back: when that ends nobody knows.

    `starting`: the jobs that the plan of this view releases. Whatever the counts say, no other one starts before something
    changes. None: not known, then the counts decide.
    """
    queue, room, depends = [], Room(view.nodes), Dependencies(view.jobs, view.at)
    for job in view.jobs:
        facts = view.facts.get(job.ref, JobFacts())
        let = job.state is JobState.PENDING and job.checkpoint is not None and job.held is Held.NO
        if let and job.reason in ASIDE and not (job.restarts and job.reason == "BeginTime"):
            continue
        if not let and not depends.fulfilled(job):
            continue
        if facts.parked is None and (let or waiting(job, facts, view.policy)) and room.never(job) is None:
            useful = rounded_up(useful_time(job, view.policy, view, facts))
            let = let or (starting is not None and job.ref in starting)
            one = Waiting(job, facts, gpu_count(job), useful, _ready(job, facts, view), let)
            queue.append((place_of(job, facts, view.policy), one))
    queue.sort(key=lambda entry: entry[0])
    jobs = [one for _, one in queue[:MOST]]
    at_once = starting is None
    early = _Play(view, 0.5, 0.5).run(jobs, at_once)
    late = _Play(view, view.policy.valley_quantile, CAREFUL).run(jobs, at_once)
    return {one.job.ref: (early.get(one.job.ref), late.get(one.job.ref)) for one in jobs}


def foreseen_until(view: View) -> float | None:
    """Unix time until which the loads of all services are foreseen; None: that of some service is not at all."""
    ends = []
    for service in view.services:
        if is_wish(service.spec.name) or service.removed:
            continue
        if service.load is None or service.forecast is None or not service.forecast.points:
            return None
        ends.append(service.forecast.points[-1].ahead)
    return None if not ends else view.at + min(ends)


def _ready(job: Job, facts: JobFacts, view: View) -> float:
    """Before when a job is not started: a pause, its cool-down, its begin time, and Slurm's own delay after a requeue.

    coloc cuts that delay short for the jobs that it holds and releases; of others Slurm says that their time has not come.
    """
    times = [view.at, facts.retry_at or 0.0, begin_of(job, view.at) or 0.0]
    if facts.evicted_at is not None:
        times.append(facts.evicted_at + view.policy.cooldown)
    if job.restarts and job.submitted is not None:
        slow = job.held is Held.NO and job.reason == "BeginTime"
        times.append(job.submitted + ((view.delays.requeue or SETTLING) if slow else SETTLING))
    return max(times)


class _Play:
    """One run through time, as far as the forecast goes."""

    def __init__(self, view: View, load_at: float, time_at: float) -> None:
        self.view, self.time_at = view, time_at
        self.pool = _pool(view, load_at)
        self.ends = [
            (view.at + remaining(j, view.facts.get(j.ref, JobFacts()), view.runs, view.at, time_at), gpu_count(j))
            for j in view.jobs
            if j.checkpoint is not None and j.gpus
        ]
        heapify(self.ends)
        self.held = sum(gpus for _, gpus in self.ends)
        self.now, self.step = view.at, 0
        self.horizon = foreseen_until(view)
        self.starts: dict[str, float] = {}
        self.alike: dict[tuple[int, float], list[tuple[int, Waiting]]] = {}
        self._least: dict[float, int] = {}

    def run(self, jobs: list[Waiting], at_once: bool) -> dict[str, float]:
        """Expected starts by ref; `at_once`: jobs may start now by the counts alone."""
        pauses: list[tuple[float, int, Waiting]] = []
        for number, one in enumerate(jobs):
            if one.let:
                self.begin(one, max(self.now, one.ready))
            elif one.ready > self.now:
                heappush(pauses, (one.ready, number, one))
            else:
                self.wait(number, one)
        if at_once:
            self.offer()
        while pauses or any(self.alike.values()):
            nexts = [heap[0][0] for heap in (self.ends, pauses) if heap]
            nexts += [self.pool[self.step + 1][0]] if self.step + 1 < len(self.pool) else []
            if not nexts:
                break
            self.now = max(self.now, min(nexts))
            if self.horizon is not None and self.now > self.horizon:
                break
            while self.ends and self.ends[0][0] <= self.now:
                self.held -= heappop(self.ends)[1]
            while self.step + 1 < len(self.pool) and self.pool[self.step + 1][0] <= self.now:
                self.step += 1
                self._least.clear()
            while pauses and pauses[0][0] <= self.now:
                _, number, one = heappop(pauses)
                self.wait(number, one)
            self.offer()
        return self.starts

    def wait(self, number: int, one: Waiting) -> None:
        """Into the queue: of jobs that want the same, only the first need be asked."""
        heappush(self.alike.setdefault((one.gpus, one.useful), []), (number, one))

    def begin(self, one: Waiting, at: float) -> None:
        """It starts."""
        self.starts[one.job.ref] = at
        left = remaining(one.job, one.facts, self.view.runs, self.view.at, self.time_at)
        heappush(self.ends, (at + left, one.gpus))
        self.held += one.gpus

    def offer(self) -> None:
        """Start those that fit, in order.

        For one that waits for batch jobs to end GPUs are kept, as `reserve_for` does; one that waits for a valley keeps none.
        """
        heads = [(heap[0][0], key) for key, heap in self.alike.items() if heap]
        heapify(heads)
        while heads:
            _, key = heappop(heads)
            gpus, useful = key
            room = self.least(useful)
            if self.held + gpus <= room:
                self.begin(heappop(self.alike[key])[1], self.now)
                if self.alike[key]:
                    heappush(heads, (self.alike[key][0][0], key))
            elif gpus <= room and self.held + gpus - self.soon() <= room:
                return

    def soon(self) -> int:
        """GPUs of the batch jobs that will have ended within `reserve_within`."""
        return sum(gpus for end, gpus in self.ends if end <= self.now + self.view.policy.reserve_within)

    def least(self, useful: float) -> int:
        """GPUs that batch jobs may hold throughout these seconds."""
        if useful not in self._least:
            until = max(self.now, self.pool[self.step][0]) + useful
            self._least[useful] = min(
                gpus for k, (at, gpus) in enumerate(self.pool) if k == self.step or (k > self.step and at < until)
            )
        return self._least[useful]


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
