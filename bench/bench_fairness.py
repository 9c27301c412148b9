"""Who waits how long: coloc's queue against FIFO and against the order of Slurm's fair-share, on recorded and made-up work.

A cluster is a number of GPUs; jobs take some of them for their recorded run time. All arms place the first job of
their order that fits, and keep GPUs for the first that does not (coloc and Slurm; FIFO without looks at the oldest only).
The recorded jobs have no users: they are dealt out at random (fixed seed), a few users have most of them.
`python bench/bench_fairness.py --data ../shared/data/batch/philly_vc1-2_jobs.csv.gz`
"""

import argparse
import csv
import gzip
import random
from bisect import insort
from collections import defaultdict
from collections.abc import Callable
from heapq import heappop, heappush
from statistics import mean, median

from fair_orders import FairShare, Fifo, GuessingFairShare, Order, RunningFairShare, Work, job_of

from colocd.core.policy import Policy
from colocd.core.queueing import FairClock, advance, chain, place_of
from colocd.core.runtimes import expected_works, learn, remaining, run_times
from colocd.core.view import Job, JobFacts


def recorded(path: str, users: int, seed: int) -> tuple[list[Work], int]:
    """The recorded jobs, dealt out to users whose sizes fall off like 1/rank; and GPUs for a load of 95 %."""
    dice = random.Random(seed)
    with gzip.open(path, "rt") as file:
        rows = sorted((float(r["submit_s"]), int(r["gpus"]), float(r["duration_s"])) for r in csv.DictReader(file))
    names = dice.choices([f"u{n}" for n in range(users)], [1 / (n + 1) for n in range(users)], k=len(rows))
    work = [Work(n, u, g, at, max(1.0, s)) for n, ((at, g, s), u) in enumerate(zip(rows, names, strict=True))]
    span = work[-1].at - work[0].at
    return work, max(max(w.gpus for w in work), round(sum(w.gpus * w.seconds for w in work) / span / 0.95))


def crowded(seed: int) -> tuple[list[Work], int]:
    """Two users with 1,000 jobs at once, twenty with a job of 1 to 8 GPUs every hour or so, for two days, on 64 GPUs."""
    dice = random.Random(seed)
    rows = [(0.0, f"many{n % 2}", 1, dice.uniform(1800, 7200)) for n in range(2000)]
    for user in range(20):
        at = dice.uniform(0, 3600)
        while at < 2 * 86400:
            rows.append((at, f"few{user}", dice.choice([1, 1, 2, 4, 8]), dice.expovariate(1 / 1200) + 60))
            at += dice.expovariate(1 / 3600)
    return [Work(n, u, g, at, s) for n, (at, u, g, s) in enumerate(sorted(rows))], 64


class Coloc(Order):
    """coloc's own code; run times are guessed from the jobs that have ended, never known."""

    fixed = False

    def __init__(self, gpus: int) -> None:
        self.gpus, self.policy, self.clock = gpus, Policy(), FairClock(at=0.0)
        self.times: dict[str, list[float]] = {}
        self.alive: dict[str, int] = defaultdict(int)
        self.held: dict[str, int] = defaultdict(int)
        self.waiting: dict[str, Job] = {}
        self.floors: dict[str, float] = {}
        self.places: dict[str, tuple[object, ...]] = {}

    def _tick(self, now: float) -> None:
        active = {u: self.held[u] for u, n in self.alive.items() if n}
        self.clock = advance(self.clock, now, self.gpus, active, {j.user for j in self.waiting.values()}, self.policy)

    def arrive(self, job: Work, now: float) -> None:
        self._tick(now)
        self.alive[job.user] += 1
        self._tick(now)
        seen = job_of(job)
        self.waiting[seen.ref], self.floors[seen.ref] = seen, self.clock.floor

    def begin(self, job: Work, now: float) -> None:
        self.held[job.user] += job.gpus
        del self.waiting[str(job.number)]

    def end(self, job: Work, now: float) -> None:
        self._tick(now)
        self.alive[job.user] -= 1
        self.held[job.user] -= job.gpus
        learn(self.times, job.user, "job", job.seconds)

    def guess(self, job: Work) -> float:
        seen = job_of(job)
        return remaining(seen, JobFacts(), run_times(self.times, [seen]), 0.0, 0.9)

    def look(self, now: float) -> None:
        self._tick(now)
        jobs = list(self.waiting.values())
        one = {j.user: j for j in jobs}
        works = expected_works(jobs, run_times(self.times, one.values()), now)
        tags = chain(self.clock, jobs, works, self.floors, self.policy)
        self.places = {j.ref: place_of(j, JobFacts(tag=tags[j.ref]), self.policy) for j in jobs}

    def key(self, job: Work, now: float) -> object:
        return self.places[str(job.number)]


def play(work: list[Work], gpus: int, order: Order) -> dict[int, float]:
    """Waiting time of each job."""
    free, waits, todo = gpus, {}, list(work)
    waiting: list[Work] = []
    ends: list[tuple[float, int, Work, float]] = []
    todo.reverse()
    while todo or ends:
        now = min(todo[-1].at if todo else 1e18, ends[0][0] if ends else 1e18)
        while ends and ends[0][0] <= now:
            job = heappop(ends)[2]
            free += job.gpus
            order.end(job, now)
        while todo and todo[-1].at <= now:
            job = todo.pop()
            order.arrive(job, now)
            if order.fixed:
                insort(waiting, job, key=lambda j: order.key(j, now))
            else:
                waiting.append(job)
        if not order.fixed and free and waiting:
            order.look(now)
            waiting.sort(key=lambda j: order.key(j, now))
        if free:
            free = _start(waiting, free, ends, order, now, waits)
    return waits


def _start(
    waiting: list[Work],
    free: int,
    ends: list[tuple[float, int, Work, float]],
    order: Order,
    now: float,
    waits: dict[int, float],
) -> int:
    shadow, spare, started = None, 0, set()
    for job in waiting:
        if not free:
            break
        fits = job.gpus <= free
        if fits and shadow is not None and job.gpus > spare and now + order.guess(job) > shadow:
            continue
        if not fits:
            if shadow is None and order.reserves:
                shadow, spare = _shadow(job, free, ends, now)
            continue
        free -= job.gpus
        spare -= job.gpus if shadow is not None and now + order.guess(job) > shadow else 0
        started.add(job.number)
        order.begin(job, now)
        waits[job.number] = now - job.at
        heappush(ends, (now + job.seconds, job.number, job, now + order.guess(job)))
    if started:
        waiting[:] = [job for job in waiting if job.number not in started]
    return free


def _shadow(job: Work, free: int, ends: list[tuple[float, int, Work, float]], now: float) -> tuple[float, int]:
    """When the job will have room by the guessed ends, and how many GPUs are left over then."""
    for _, _, other, guessed in sorted(ends, key=lambda e: e[3]):
        free += other.gpus
        if free >= job.gpus:
            return max(now, guessed), free - job.gpus
    return 1e18, free


def table(name: str, work: list[Work], gpus: int, arms: dict[str, Callable[[], Order]]) -> None:
    """Print a workload's numbers: small users are the lower half by GPU-time."""
    used: dict[str, float] = defaultdict(float)
    for job in work:
        used[job.user] += job.gpus * job.seconds
    ranked = sorted(used, key=lambda u: used[u])
    small = set(ranked[: len(ranked) // 2])
    print(f"{name}: {len(work)} jobs of {len(ranked)} users, {gpus} GPUs")
    print(
        "| order | small users: mean wait (min) | median | p95 | slowdown, mean | all: mean wait (min) | longest (h) |"
    )
    print("|---|---|---|---|---|---|---|")
    for arm, make in arms.items():
        waits = play(work, gpus, make())
        mine = [j for j in work if j.user in small]
        times = sorted(waits[j.number] / 60 for j in mine)
        slow = mean((waits[j.number] + j.seconds) / max(j.seconds, 600.0) for j in mine)
        print(
            f"| {arm} | {mean(times):.1f} | {median(times):.1f} | {times[int(0.95 * len(times))]:.1f} | {slow:.2f} "
            f"| {mean(waits.values()) / 60:.1f} | {max(waits.values()) / 3600:.1f} |"
        )


def main() -> None:
    """Run both workloads."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", required=True, help="philly_vc1-2_jobs.csv.gz")
    options.add_argument("--users", type=int, default=40)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    for name, (work, gpus) in (
        ("recorded", recorded(given.data, given.users, given.seed)),
        ("crowded", crowded(given.seed)),
    ):
        arms = {
            "FIFO": Fifo,
            "Slurm's fair-share, knows run times": FairShare,
            "the same, guesses as coloc does": GuessingFairShare,
            "guesses, charges while jobs run": RunningFairShare,
            "coloc": lambda gpus=gpus: Coloc(gpus),
        }
        table(name, work, gpus, arms)


if __name__ == "__main__":
    main()
