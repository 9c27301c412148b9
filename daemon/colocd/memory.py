"""What coloc remembers of its batch jobs from cycle to cycle: rows, runs, the fair clock and the quota, kept in the store."""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import TypeVar

import msgspec

from colocd.core.dependencies import Dependencies
from colocd.core.fill import ASIDE
from colocd.core.policy import Policy
from colocd.core.queueing import FairClock, advance, chain
from colocd.core.quota import Quota, steer
from colocd.core.runtimes import expected_works, learn, run_times
from colocd.core.view import Held, Job, JobFacts, JobState
from colocd.deaths import SOON, after_run, after_unseen
from colocd.habits import Habit, Habits
from colocd.store.port import Store
from colocd.store.records import BatchJob, Handover, Run

FAIR, QUOTA = "fair-clock", "quota"
"""Settings that hold the JSON of `FairClock` and `Quota`."""
LEARNT_FROM = 60 * 86400.0
"""Seconds back for which runs are looked at when run times are guessed."""
MOST_RUNS = 100_000
HOUR = 3600.0
SETTLED = 60.0
"""The fair clock is written when a job got a tag, and at least this often."""
S = TypeVar("S", FairClock, Quota)
_ENDED = (JobState.DONE, JobState.FAILED)
_GONE = (JobState.PENDING, *_ENDED)


class Remembered(msgspec.Struct, frozen=True):
    """The parts of a view that rest on memory."""

    facts: dict[str, JobFacts]
    runs: dict[str, tuple[float, ...]]
    evicted: dict[str, int]
    quota: Quota


class Memory:
    """Reads the store once, then keeps what it wrote; used by the cycle's thread only."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: dict[str, Run] | None = None
        self._past: list[Run] = []
        """Ended runs of the last hours, newest first."""
        self._ran: dict[str, float] = {}
        self._times: dict[str, list[float]] = {}
        self._clock: FairClock | None = None
        self._quota: Quota | None = None
        self._written = 0.0
        self._habits = Habits()
        self._looked = 0.0
        self._last_run: dict[str, int] = {}

    def look(
        self, jobs: Sequence[Job], handovers: Sequence[Handover], policy: Policy, gpus: int, now: float
    ) -> Remembered:
        """Bring the memory up to what Slurm says now. `gpus`: those that batch jobs could use if no service ran."""
        self._load(now)
        victims = {ref: h for h in handovers for ref in h.victims}
        mine = {j.ref: j for j in jobs if j.checkpoint is not None}
        known = {r.ref: r for r in self._store.jobs()}
        if any(ref not in known for ref in mine):
            known |= {r.ref: r for r in self._store.jobs(unended=False) if r.ref in mine or r.ended is None}
        self._habits.note(known.values())
        ended = self._follow_runs(mine, known, victims, now)
        runs = run_times(self._times, [j for j in mine.values() if j.state not in _ENDED])
        floors, tags = self._tags(mine, known, policy, runs, gpus, Dependencies(jobs, now))
        changed: list[BatchJob] = []
        facts: dict[str, JobFacts] = {}
        for ref, job in mine.items():
            old = known.get(ref)
            new = follow(old, job, ref in victims, ended.get(ref), now)
            new = after_unseen(old, new, job, self._unseen(job, now), now)
            if ref in floors:
                new = msgspec.structs.replace(new, tag=floors[ref])
            if new != old:
                changed.append(new)
            facts[ref] = facts_of(new, self._ran.get(ref, 0.0), tags.get(ref), self._habits.of(job.user, job.name))
        for ref, old in known.items():
            if ref not in mine and old.ended is None:
                changed.append(msgspec.structs.replace(old, ended="forgotten by Slurm", last_seen=now))
        self._looked = now
        self._last_run = {ref: number for ref, number in self._last_run.items() if ref in mine}
        if changed:
            self._store.put_jobs(changed)
        recent = [r for r in self._past if r.ended is not None and r.ended > now - HOUR]
        return Remembered(facts, runs, _hits(recent), self._steer(recent, mine, policy, now))

    def _unseen(self, job: Job, now: float) -> int:
        """Resumes since the last look that were over before anybody saw them; 0 after a pause in which much may have happened.

        Runs are numbered by the restarts before them: of a job that waits the last one was the one before its number.
        """
        current = job.restarts - (job.state is JobState.PENDING)
        last = self._last_run.get(job.ref)
        self._last_run[job.ref] = current if last is None else max(last, current)
        if last is None or now - self._looked >= SOON:
            return 0
        over = job.restarts if job.state in _ENDED else job.restarts - 1
        return max(0, over - max(last, 0))

    def _load(self, now: float) -> None:
        if self._open is None:
            rows = self._store.runs(now - LEARNT_FROM, limit=MOST_RUNS)
            self._open = {r.ref: r for r in rows if r.ended is None}
            self._past = [r for r in rows if r.ended is not None]
            for run in reversed(self._past):
                self._count(run)
            self._habits.note(self._store.jobs(unended=False))
            self._clock = _read(self._store, FAIR, FairClock) or FairClock(at=now)
            self._quota = _read(self._store, QUOTA, Quota) or Quota(at=now)

    def _follow_runs(
        self, mine: dict[str, Job], known: dict[str, BatchJob], victims: dict[str, Handover], now: float
    ) -> dict[str, Run]:
        """Open, refresh and close runs; returns those that ended now, by ref."""
        assert self._open is not None
        changed: dict[tuple[str, float], Run] = {}
        ended: dict[str, Run] = {}
        for ref, job in mine.items():
            run = self._open.get(ref)
            running = job.state is JobState.RUNNING and job.started is not None
            again = run is not None and running and abs((job.started or 0.0) - run.started) > 1.0
            if run is not None and (job.state in _GONE or again):
                evicted = ref in victims or (known[ref].evicted_at or 0.0) >= run.started if ref in known else False
                ended[ref] = run = _closed(run, job, evicted, victims.get(ref), now)
                del self._open[ref]
            elif run is not None and running and _saved(job, run) != run.saved:
                run = self._open[ref] = msgspec.structs.replace(run, saved=_saved(job, run))
            elif run is not None:
                continue
            if run is not None:
                changed[run.ref, run.started] = run
            if running and ref not in self._open:
                fresh = Run(ref=ref, started=job.started or now, user=job.user, name=job.name, gpus=_gpus(job))
                fresh = self._open[ref] = msgspec.structs.replace(fresh, saved=_saved(job, fresh))
                changed[ref, fresh.started] = fresh
        for ref in self._open.keys() - mine.keys():
            run = self._open.pop(ref)
            ended[ref] = run = msgspec.structs.replace(run, ended=max(run.started, now), end="gone")
            changed[ref, run.started] = run
        self._past = [*ended.values(), *takewhile(lambda r: (r.ended or now) > now - 2 * HOUR, self._past)]
        for run in ended.values():
            self._count(run)
        if changed:
            self._store.put_runs(list(changed.values()))
        return ended

    def _count(self, run: Run) -> None:
        """Add a run that has ended to what its job ran; when it was the last, learn that."""
        total = self._ran.get(run.ref, 0.0) + _length(run)
        self._ran[run.ref] = total
        if run.end in (str(JobState.DONE), str(JobState.FAILED)):
            del self._ran[run.ref]
            learn(self._times, run.user, run.name, total)

    def _tags(
        self,
        mine: dict[str, Job],
        known: dict[str, BatchJob],
        policy: Policy,
        runs: dict[str, tuple[float, ...]],
        gpus: int,
        depends: Dependencies,
    ) -> tuple[dict[str, float], dict[str, float]]:
        """Advance the fair clock; floors for the jobs that have none yet, and the tags of all that wait."""
        assert self._clock is not None
        now = depends.at
        alive = [j for j in mine.values() if j.state not in _ENDED]
        active: dict[str, int] = {}
        for job in alive:
            active[job.user] = active.get(job.user, 0) + (0 if job.state is JobState.PENDING else _gpus(job))
        waiting = [j for j in alive if j.state is JobState.PENDING and not _aside(j, known.get(j.ref), depends)]
        self._clock = clock = advance(self._clock, now, gpus, active, {j.user for j in waiting}, policy)
        old = {j.ref: known[j.ref].tag for j in alive if j.ref in known}
        floors = {j.ref: clock.floor for j in alive if old.get(j.ref) is None}
        if floors or now - self._written >= SETTLED:
            self._written = now
            self._store.put_setting(FAIR, msgspec.json.encode(clock).decode())
        least = floors | {ref: floor for ref, floor in old.items() if floor is not None}
        return floors, chain(clock, waiting, expected_works(waiting, runs, now), least, policy)

    def _steer(self, recent: Sequence[Run], mine: dict[str, Job], policy: Policy, now: float) -> Quota:
        assert self._quota is not None
        waiting = any(j.state is JobState.PENDING and j.held is not Held.NO for j in mine.values())
        evicted = sum(r.end == "evicted" for r in recent)
        new = steer(self._quota, evicted, len(recent), waiting, policy, now)
        if new != self._quota:
            self._quota = new
            self._store.put_setting(QUOTA, msgspec.json.encode(new).decode())
        return new


def follow(old: BatchJob | None, job: Job, victim: bool, ended: Run | None, now: float) -> BatchJob:
    """The row of a job after looking at it; equal to `old` when nothing of interest changed. `ended`: its run that ended now."""
    new = old or BatchJob(ref=job.ref, user=job.user, name=job.name, first_seen=now, last_seen=now)
    mark = job.checkpoint
    new = msgspec.structs.replace(
        new,
        saved=mark.saved if mark is not None else None,
        ended=str(job.state) if job.state in _ENDED else None,
        deadline=new.deadline if new.deadline is not None else (mark.deadline if mark is not None else None),
    )
    if new.parked is not None and mark is not None and (mark.unparked or 0.0) > (new.parked_at or 0.0):
        new = msgspec.structs.replace(new, parked=None, parked_at=None, deaths=0)
    if job.state is JobState.RUNNING:
        new = msgspec.structs.replace(new, released_at=None, retry_at=None, ever_released=True)
        if not victim:
            new = msgspec.structs.replace(new, ours=False)
    elif job.state is JobState.PENDING and job.held is Held.NO and not victim:
        # Released, maybe by somebody else, or by coloc just before it ended. Its time to start begins when Slurm may start it.
        begun = None if job.reason in ASIDE else now if new.released_at is None else new.released_at
        new = msgspec.structs.replace(new, released_at=begun, ever_released=True, ours=False)
    if ended is not None:
        new = after_run(new, job, ended, now)
    return new if new == old else msgspec.structs.replace(new, last_seen=now)


def facts_of(row: BatchJob, ran: float, tag: float | None, others: Habit | None) -> JobFacts:
    """The planner's part of a row; `tag`: its place in the queue while it waits; `others`: how its user's like jobs answer."""
    told = row.answered > 0 or row.silent > 0
    own = Habit(row.answered, row.silent, row.took)
    habit = own if told or others is None else others
    return JobFacts(
        evictions=row.evictions,
        evicted_at=row.evicted_at,
        released_at=row.released_at,
        ever_released=row.ever_released,
        retry_at=row.retry_at,
        ours=row.ours,
        pinned=row.pinned,
        tag=tag,
        ran=round(ran, 3),
        deaths=row.deaths,
        parked=row.parked,
        deadline=row.deadline,
        answered=habit.answered,
        silent=habit.silent,
        took=habit.took,
        alike=habit is not own,
    )


def _closed(run: Run, job: Job, evicted: bool, handover: Handover | None, now: float) -> Run:
    """The run at its end."""
    finished = job.state in _ENDED
    ended = job.ends if finished and job.ends is not None else now
    saved = _saved(job, run)
    mark = job.checkpoint
    acked = evicted and handover is not None and job.ref in handover.data.get("acked", ())
    if acked and mark is not None and mark.signal is not None and (mark.yielded or 0.0) < run.started:
        saved = ended  # It requeued itself after it was told; one that yielded says itself what it saved.
    end = str(job.state) if finished else "evicted" if evicted else "requeued"
    return msgspec.structs.replace(run, saved=saved, ended=max(run.started, ended), end=end)


def _saved(job: Job, run: Run) -> float | None:
    """The last checkpoint of this run; a time from before its start or from the future is none of it."""
    mark = job.checkpoint.saved if job.checkpoint is not None else None
    return mark if mark is not None and mark > run.started else run.saved


def _gpus(job: Job) -> int:
    held = sum(mask.bit_count() for mask in job.gpus.values()) if job.gpus else 0
    return held or job.gpus_requested


def _aside(job: Job, row: BatchJob | None, depends: Dependencies) -> bool:
    """Whether a pending job is in nobody's way: parked, held by its owner's own wish, or not to start before something else."""
    wish = job.held is Held.USER and job.checkpoint is not None and job.checkpoint.hold == "user"
    return wish or (row is not None and row.parked is not None) or depends.keeps(job) is not None


def _length(run: Run) -> float:
    return max(0.0, (run.ended if run.ended is not None else run.started) - run.started)


def _hits(recent: Iterable[Run]) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in recent:
        if run.end == "evicted":
            found[run.user] = found.get(run.user, 0) + 1
    return dict(sorted(found.items()))


def _read(store: Store, key: str, kind: type[S]) -> S | None:
    """A setting of coloc's own; one that cannot be read counts as not set."""
    text = store.setting(key)
    try:
        return None if text is None else msgspec.json.decode(text, type=kind)
    except msgspec.DecodeError:
        return None
