"""What bench_lost counts: steps done again, from the jobs' journals, and GPU time of replicas, from Slurm's records. Pure."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from bench.lost_job import STEP


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """A peak of the load, seconds from the beginning; `more`: replicas needed beyond the one that is always there."""

    start: float
    end: float
    more: int


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One start of a batch job: the step it went on from, the last one it did, and when that was (Unix seconds)."""

    begin: int
    last: int
    at: float


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A batch job: its GPUs, what it is, and all its runs in order."""

    name: str
    gpus: int
    kind: str
    runs: tuple[Run, ...]


class Reclaim(msgspec.Struct, kw_only=True):
    """What one peak cost. `late`: see `late`; `gpus`: those of its victims; `lost` in GPU-seconds."""

    late: float | None
    victims: int = 0
    gpus: int = 0
    lost: float = 0.0


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs that a replica held by Slurm's record, in Unix seconds; `end` None: it runs still."""

    gpus: int
    start: float
    end: float | None


def runs_of(starts: str, journal: str) -> tuple[Run, ...]:
    """The runs of a job from its two files; a torn last line does not count. Steps belong to the run whose number they bear."""
    done: dict[str, tuple[int, float]] = {}
    for line in journal.split("\n")[:-1]:
        run, step, at = line.split()
        done[run] = (int(step), float(at))
    found = []
    for line in starts.split("\n")[:-1]:
        run, begin, at = line.split()
        last, when = done.get(run, (int(begin), float(at)))
        found.append(Run(begin=int(begin), last=last, at=when))
    return tuple(found)


def losses(work: Work, saved: int | None = None) -> list[tuple[float, int]]:
    """For each run that was followed by another one: when its last step was, and how many steps had to be done again.

    `saved`: the step in the checkpoint of a job that has not started again yet; its last run counts by that.
    """
    found = [(a.at, a.last - b.begin) for a, b in zip(work.runs, work.runs[1:], strict=False)]
    if saved is not None and work.runs:
        found.append((work.runs[-1].at, work.runs[-1].last - saved))
    return found


def gpu_seconds(held: Sequence[Held], begin: float, end: float) -> float:
    """GPU-seconds of these records between two times."""
    spans = ((h.gpus, max(begin, h.start), end if h.end is None else min(end, h.end)) for h in held)
    return sum(gpus * max(0.0, last - first) for gpus, first, last in spans)


def late(held: Sequence[Held], peak: Peak, begin: float) -> float | None:
    """Seconds into a peak until all its replicas ran; below 0: they ran before it. None: they never did.

    Slurm's records are whole seconds. Each GPU of a replica counts once, so all must be of one size.
    """
    ends = begin + peak.end
    running = sorted(h.start for h in held if h.start < ends and (h.end is None or h.end > begin + peak.start))
    return running[peak.more] - begin - peak.start if len(running) > peak.more else None


def account(
    works: Sequence[Work],
    saved: Mapping[str, int],
    before: Mapping[str, int],
    held: Sequence[Held],
    peaks: Sequence[Peak],
    *,
    begin: float,
    end: float,
    always: int,
) -> dict[str, Any]:
    """One arm's row. `always`: GPUs of the replica that is there all the time. `saved`: see `losses`; `before`: steps done before
    `begin`; both by name of the job.

    Lost is what batch jobs had to do again; reclaimed is the time for which replicas beyond that one held GPUs. An eviction
    belongs to the first peak that ends after the job's last step.
    """
    each = [Reclaim(late=late(held, peak, begin)) for peak in peaks]
    by_kind: dict[str, float] = {}
    outside = useful = 0.0
    for work in works:
        for at, steps in losses(work, saved.get(work.name)):
            lost = steps * STEP * work.gpus
            number = next((k for k, peak in enumerate(peaks) if at < begin + peak.end), None)
            if number is None or at < begin:
                outside += lost
                continue
            each[number].victims += 1
            each[number].gpus += work.gpus
            each[number].lost = round(each[number].lost + lost, 3)
            by_kind[work.kind] = round(by_kind.get(work.kind, 0.0) + lost, 3)
        reached = max((run.last for run in work.runs), default=0)
        useful += (reached - before.get(work.name, 0)) * STEP * work.gpus
    hours = (gpu_seconds(held, begin, end) - always * (end - begin)) / 3600
    total = sum(one.lost for one in each)
    times = [one.late for one in each if one.late is not None]
    return {
        "peaks": len(peaks),
        "reclaims": sum(peak.more for peak in peaks),
        "victims": sum(one.victims for one in each),
        "reclaimed_gpu_hours": round(hours, 4),
        "lost_gpu_seconds": round(total, 1),
        "lost_per_gpu_hour": round(total / hours, 1) if hours > 0 else None,
        "lost_per_peak_median": round(statistics.median(one.lost for one in each), 1) if each else None,
        "lost_per_peak_max": max((one.lost for one in each), default=None),
        "lost_by_kind": dict(sorted(by_kind.items())),
        "lost_outside_of_peaks": round(outside, 1),
        "late_s_median": round(statistics.median(times), 1) if times else None,
        "late_s_max": round(max(times), 1) if times else None,
        "never_complete": len(each) - len(times),
        "batch_gpu_hours": round(useful / 3600, 4),
        "each": [msgspec.to_builtins(one) for one in each],
    }
