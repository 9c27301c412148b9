"""When starting a batch job is worth while: how long it needs, and what a large job that waits is owed."""

import numpy as np

from colocd.core.arrays import Ints, popcount
from colocd.core.pack import Pack, per_node
from colocd.core.policy import Policy
from colocd.core.proof import ignores, unheard
from colocd.core.runtimes import remaining
from colocd.core.victims import cpus_per_node
from colocd.core.view import Job, JobFacts, View

MOST_NODES = 1024
"""Nodes looked at for a reservation."""
LATE = 0.9
"""Quantile of its run time at which a job counts as ended when others rely on it."""


def useful_time(job: Job, policy: Policy, view: View | None = None, facts: JobFacts | None = None) -> float:
    """Seconds a job needs before starting it was worth while.

    With a checkpoint interval: some intervals (with the cost of a save each) and its restart. One that saves when it is
    asked: `min_useful`. One that cannot save, or did not when it was told, or never told of a save though it says it
    makes them: until its predicted end, at most `longest_valley`, when `view` is given.
    """
    mark = job.checkpoint
    facts = facts or JobFacts()
    if mark is not None and mark.interval is not None and not unheard(job, facts):
        restart = mark.restart or 0.0
        return min(policy.useful_intervals * (mark.interval + (mark.cost or 0.0)) + restart, policy.max_unsaved)
    if view is None or mark is None or (mark.signal is not None and not ignores(facts)):
        return policy.min_useful
    end = remaining(job, facts, view.runs, view.at)
    return max(policy.min_useful, min(end, policy.longest_valley))


class Reserved:
    """What is kept for the first job that does not fit: GPUs on the nodes where it can start soonest.

    `at`: when it can (Unix seconds). Jobs that will have ended by then may use these GPUs meanwhile.
    """

    def __init__(self, job: Job, at: float, rows: tuple[int, ...], held: Ints) -> None:
        self.job, self.at, self.rows, self.held, self.some = job, at, rows, held, bool(held.any())

    def allows(self, job: Job, facts: JobFacts, view: View) -> bool:
        """Whether a job will have ended before the reserved GPUs are needed."""
        return view.at + remaining(job, facts, view.runs, view.at, LATE) <= self.at


def reserve_for(job: Job, facts: JobFacts, view: View, pack: Pack, kept: Ints) -> Reserved | None:
    """A reservation for a job that waits for GPUs of batch jobs to come free; None: it must wait for something else.

    Nodes count that are open, in its partition and, once batch jobs on them have ended, have enough GPUs beyond `kept`. The
    job's nodes are those where that is soonest; ends are run times at their 0.9 quantile. None as well when it takes longer
    than `reserve_within`. On large clusters only the `MOST_NODES` nodes are looked at that lack the fewest GPUs.
    """
    need, index = per_node(job), pack.index
    asked = () if facts.pinned else job.required_nodes
    members = index.partitions.get(job.partition)
    if need <= 0 or members is None or view.policy.reserve_within <= 0:
        return None
    spare = pack.gpus - popcount(kept)
    able = members & pack.land.open & (np.fromiter((n.gpus for n in index.nodes), np.int64, len(index.nodes)) >= need)
    if asked:
        able &= np.isin(np.arange(len(able)), [index.row[name] for name in asked if name in index.row])
    rows = np.flatnonzero(able)
    rows = rows[np.lexsort((index.name_rank[rows], np.maximum(0, need - spare[rows])))][:MOST_NODES]
    ends: dict[int, list[tuple[float, int, int]]] = {}
    left_of: dict[int, float] = {}
    ready: list[tuple[float, int, int]] = []
    for row in rows.tolist():
        mine = ends[row] = []
        for mask, number in zip(index.holder_mask[row].tolist(), index.holder_job[row].tolist(), strict=True):
            other = index.jobs[number]
            if other is None:
                continue
            if number not in left_of:
                past = view.facts.get(other.ref, JobFacts())
                left_of[number] = remaining(other, past, view.runs, view.at, LATE)
            mine.append((left_of[number], mask.bit_count(), cpus_per_node(other)))
        mine.sort()
        found = _ready(int(spare[row]), int(pack.cpus[row]), mine, need, cpus_per_node(job))
        if found is not None:
            ready.append((found, int(index.name_rank[row]), row))
    ready.sort()
    chosen = ready[: job.nodes_requested]
    if len(chosen) < job.nodes_requested or chosen[-1][0] > view.policy.reserve_within:
        return None
    when = chosen[-1][0]
    held: Ints = np.zeros_like(kept)
    for _, _, row in chosen:
        later = sum(gpus for left, gpus, _ in ends.get(row, ()) if left <= when)
        surplus = max(0, int(spare[row]) + later - need)
        held[row] = _lowest(int(pack.free[row]) & ~int(kept[row]), max(0, int(spare[row]) - surplus))
    return Reserved(job, view.at + when, tuple(row for _, _, row in chosen), held)


def _ready(gpus: int, cpus: int, ends: list[tuple[float, int, int]], need: int, need_cpus: int) -> float | None:
    """Seconds until a node has room, if batch jobs there end as expected; None: never."""
    when = 0.0
    for left, freed, freed_cpus in [(0.0, 0, 0), *ends]:
        gpus, cpus, when = gpus + freed, cpus + freed_cpus, left
        if gpus >= need and cpus >= need_cpus:
            return when
    return None


def _lowest(mask: int, count: int) -> int:
    """The `count` lowest bits that are set."""
    out = 0
    while mask and count > 0:
        out |= mask & -mask
        mask &= mask - 1
        count -= 1
    return out
