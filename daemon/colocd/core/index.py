"""The planner's arrays: what a choice needs of each node and job, kept between cycles and changed where the view changed.

An index holds nothing that the view does not say: an index brought up to date and one built afresh give the same plan.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coloc_topology.fit import FitTable, fit_table
from colocd.core.arrays import Bools, Floats, Ints, differences, others
from colocd.core.places import domain_of, shut
from colocd.core.policy import Policy
from colocd.core.proof import save_time
from colocd.core.queueing import level_of
from colocd.core.service import Closeness
from colocd.core.victims import (
    COST_SCALE,
    LEVEL_FACTOR,
    MAX_COST,
    barred_for_good,
    cpus_per_node,
    dearness,
    gpu_count,
    protected_by_deadline,
    restart_cost,
    spent_budget,
)
from colocd.core.view import Job, JobFacts, Node, View

NO_FACTS = JobFacts()
UNKNOWN_CPUS = 1 << 40
"""Free CPUs of a node where nobody knows: enough for any job."""
NEAR = (Closeness.NVLINK, Closeness.LEAF, Closeness.BLOCK)
"""Kinds of domains that nodes are in, closest first."""
_SPARE = 64
_JOB_COLUMNS = {
    "started": np.float64, "saved": np.float64, "gpus": np.float64, "restart": np.float64,
    "level": np.float64, "evictions": np.float64, "save": np.float64,
    "user": np.int64, "dear": np.int8, "alive": np.bool_, "job_cpus": np.int64, "span": np.int64,
}  # fmt: skip


class PlannerIndex:
    """Arrays over nodes (in the view's order) and over the jobs that could ever be victims. `update` before each use.

    `holder_mask[n]` and `holder_job[n]` list the jobs that hold GPUs of node n, in order of their ids; unused places have
    mask 0 and point at job row 0, which is nobody. `uniform`: all nodes have the one shape there is.
    """

    def __init__(self) -> None:
        self.rebuilds = 0
        self._policy: Policy | None = None
        self._clear()

    def _clear(self) -> None:
        self.nodes: list[Node] = []
        self.row: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.tables: list[FitTable] = []
        self._shapes: dict[str, int] = {}
        self._shape_defs: dict[str, object] = {}
        self.uniform = False
        self.partitions: dict[str, Bools] = {}
        self.job_row: dict[str, int] = {}
        self.jobs: list[Job | None] = [None]
        self.users: dict[str, int] = {}
        self.known: dict[str, Job] = {}
        self._seen: tuple[Job, ...] = ()
        self._ids: Ints = np.zeros(0, dtype=np.int64)
        self._vacant: list[int] = []
        self._evicted: set[str] = set()
        self._holders: list[list[int]] = []
        self._grow_jobs(_SPARE)

    def _grow_jobs(self, size: int) -> None:
        """Make room for `size` job rows."""
        keep = len(self.jobs)
        for name, kind in _JOB_COLUMNS.items():
            fresh: NDArray[np.generic] = np.zeros(size, dtype=kind)
            if keep > 1:
                fresh[:keep] = getattr(self, name)[:keep]
            setattr(self, name, fresh)

    started: Floats
    saved: Floats
    gpus: Floats
    restart: Floats
    level: Floats
    evictions: Floats
    save: Floats
    user: Ints
    dear: NDArray[np.int8]
    alive: Bools
    job_cpus: Ints
    span: Ints

    def update(self, view: View) -> int:
        """Bring the arrays to this view; returns how many nodes' contents changed (all of them after a rebuild)."""
        moved = [] if len(view.nodes) != len(self.nodes) else others(view.nodes, self.nodes)
        same_nodes = len(view.nodes) == len(self.nodes) and all(view.nodes[i].name == self.nodes[i].name for i in moved)
        if not same_nodes or view.policy != self._policy or view.shapes != self._shape_defs:
            self._rebuild(view)
            return len(self.nodes)
        changed: set[int] = set()
        for i in moved:
            if view.nodes[i] != self.nodes[i]:
                self._set_node(i, view.nodes[i])
                changed.add(i)
            else:
                self.nodes[i] = view.nodes[i]
        if changed:
            self._set_uniform()
        self._update_jobs(view, changed)
        self._set_holders(sorted(changed))
        return len(changed)

    def costs(self, view: View) -> tuple[Bools, Bools, Ints, Ints]:
        """Per job row: may it be evicted now, might it but for a budget; `eviction_cost` in thousandths, plain and by class."""
        policy, size, at = view.policy, len(self.jobs), view.at
        started, saved = self.started[:size], self.saved[:size]
        since = np.maximum(np.where(started <= at, started, -np.inf), np.where(saved <= at, saved, -np.inf))
        lost = np.minimum(np.minimum(policy.max_unsaved, self.save[:size]), at - since) + self.restart[:size]
        cost = np.minimum(MAX_COST, lost * self.gpus[:size] + policy.eviction_cost)
        milli: Ints = np.rint(cost * COST_SCALE).astype(np.int64)
        weighed = np.clip(cost * LEVEL_FACTOR ** self.level[:size], 1 / COST_SCALE, MAX_COST)
        alive: Bools = self.alive[:size].copy()
        ok = alive & (started + policy.protected_runtime - at <= 0)
        ok &= self.evictions[:size] < policy.max_evictions_per_job
        for user, number in self.users.items() if policy.user_evictions_per_hour or policy.evictions_per_hour else ():
            if spent_budget(view, user) is not None:
                ok &= self.user[:size] != number
        for ref, facts in view.facts.items():
            if facts.deadline is not None and ref in self.job_row:
                ok[self.job_row[ref]] &= not protected_by_deadline(self.known[ref], facts, view)
        return ok, alive, milli, np.rint(weighed * COST_SCALE).astype(np.int64)

    def _rebuild(self, view: View) -> None:
        self.rebuilds += 1
        self._clear()
        self._policy, self._shape_defs = view.policy, dict(view.shapes)
        count = len(view.nodes)
        for name, shape in view.shapes.items():
            self._shapes[name] = len(self.tables)
            self.tables.append(fit_table(shape))
        self.nodes = list(view.nodes)
        self.row = {node.name: i for i, node in enumerate(view.nodes)}
        order = sorted(range(count), key=lambda i: view.nodes[i].name)
        self.name_rank: Ints = np.empty(count, dtype=np.int64)
        self.name_rank[order] = np.arange(count)
        self.free: Ints = np.zeros(count, dtype=np.int64)
        self.shape: Ints = np.full(count, -1, dtype=np.int64)
        self.shut: list[str | None] = [None] * count
        self.open: Bools = np.zeros(count, dtype=np.bool_)
        self.cpus: Ints = np.zeros(count, dtype=np.int64)
        self.near: dict[Closeness, Ints] = {kind: np.full(count, -1, dtype=np.int64) for kind in NEAR}
        self.domains: dict[tuple[Closeness, str], int] = {}
        self._holders = [[] for _ in range(count)]
        # Column by column in memory: sums and minima over the jobs of each node are ten times as quick.
        self.holder_mask: Ints = np.zeros((count, 8), dtype=np.int64, order="F")
        self.holder_job: Ints = np.zeros((count, 8), dtype=np.int64, order="F")
        for i, node in enumerate(view.nodes):
            self._set_node(i, node)
        self._set_uniform()
        changed: set[int] = set()
        self._update_jobs(view, changed)
        self._set_holders(sorted(changed))

    def _set_uniform(self) -> None:
        self.uniform = len(self.tables) == 1 and bool((self.shape >= 0).all())

    def _set_node(self, i: int, node: Node) -> None:
        self.nodes[i] = node
        self.free[i] = node.free
        self.failed.pop(node.name, None)
        if node.unfit:
            self.failed[node.name] = node.failed
        self.shape[i] = -1 if node.shape is None else self._shapes.get(node.shape, -1)
        self.shut[i] = shut(node)
        self.open[i] = self.shut[i] is None
        known = node.cpus is not None and node.cpus_used is not None
        self.cpus[i] = (node.cpus or 0) - (node.cpus_used or 0) if known else UNKNOWN_CPUS
        for kind, codes in self.near.items():
            name = domain_of(node, kind)
            codes[i] = -1 if name is None else self.domains.setdefault((kind, name), len(self.domains))
        for partition, members in self.partitions.items():
            members[i] = partition in node.partitions
        for partition in node.partitions:
            if partition not in self.partitions:
                self.partitions[partition] = np.zeros(len(self.nodes), dtype=np.bool_)
                self.partitions[partition][i] = True

    def _update_jobs(self, view: View, changed: set[int]) -> None:
        known = self.known
        ids: Ints = np.fromiter(map(id, view.jobs), dtype=np.int64, count=len(view.jobs))
        fresh, gone = differences(ids, self._ids)
        came = {view.jobs[i].ref: view.jobs[i] for i in fresh}
        for ref, job in came.items():
            old = known.get(ref)
            known[ref] = job
            if old is None or (old is not job and old != job):
                self._set_job(job, view, changed)
        for ref in (self._seen[i].ref for i in gone):
            if ref not in came:
                del known[ref]
                self._drop_job(ref, changed)
        self._seen, self._ids = view.jobs, ids
        evicted = {ref for ref, facts in view.facts.items() if facts.evictions or facts.answered}
        for ref in (evicted | self._evicted) & self.job_row.keys():
            row, facts = self.job_row[ref], view.facts.get(ref, NO_FACTS)
            save = save_time(known[ref], facts, view.policy)
            if self.evictions[row] != facts.evictions or self.save[row] != save:
                self.evictions[row], self.save[row] = facts.evictions, save
                self.dear[row] = dearness(known[ref], facts, view)
        self._evicted = evicted

    def _drop_job(self, ref: str, changed: set[int]) -> None:
        row = self.job_row.pop(ref, None)
        if row is None:
            return
        job = self.jobs[row]
        for name in (job.gpus if job is not None else None) or ():
            if name in self.row:
                i = self.row[name]
                self._holders[i].remove(row)
                changed.add(i)
        self.jobs[row] = None
        self.alive[row] = False
        self._vacant.append(row)

    def _set_job(self, job: Job, view: View, changed: set[int]) -> None:
        facts = view.facts.get(job.ref, NO_FACTS)
        able = bool(job.gpus) and job.started is not None and barred_for_good(job, view) is None
        stays = self.job_row.get(job.ref)
        before = None if stays is None else self.jobs[stays]
        if able and stays is not None and before is not None and before.gpus == job.gpus:
            self.jobs[stays] = job
            self._set_facts(stays, job, facts, view)
            return
        self._drop_job(job.ref, changed)
        if not able:
            return
        if self._vacant:
            row = self._vacant.pop()
            self.jobs[row] = job
        else:
            row = len(self.jobs)
            if row >= len(self.started):
                self._grow_jobs(2 * row)
            self.jobs.append(job)
        self.job_row[job.ref] = row
        self._set_facts(row, job, facts, view)
        for name in job.gpus or ():
            if name in self.row:
                i = self.row[name]
                self._holders[i].append(row)
                changed.add(i)

    def _set_facts(self, row: int, job: Job, facts: JobFacts, view: View) -> None:
        self.alive[row] = True
        saved = job.checkpoint.saved if job.checkpoint is not None else None
        self.started[row] = job.started or 0.0
        self.saved[row] = math.inf if saved is None else saved
        self.gpus[row] = gpu_count(job)
        self.job_cpus[row], self.span[row] = cpus_per_node(job), len(job.gpus or ())
        self.restart[row] = restart_cost(job, view)
        self.evictions[row], self.save[row] = facts.evictions, save_time(job, facts, view.policy)
        self.dear[row] = dearness(job, facts, view)
        self.level[row] = level_of(job, view.policy)
        self.user[row] = self.users.setdefault(job.user, len(self.users))

    def _set_holders(self, rows: Sequence[int]) -> None:
        if not rows:
            return
        for i in rows:
            if len(self._holders[i]) > 1:
                self._holders[i].sort(key=lambda r: _order(self.jobs[r]))
        most, width = max(len(self._holders[i]) for i in rows), self.holder_mask.shape[1]
        if most > width:
            more = np.zeros((len(self.nodes), most - width), dtype=np.int64)
            self.holder_mask = np.asfortranarray(np.concatenate([self.holder_mask, more], axis=1))
            self.holder_job = np.asfortranarray(np.concatenate([self.holder_job, more], axis=1))
            width = most
        masks, jobs = [], []
        for i in rows:
            name, good, held = self.nodes[i].name, ~self.nodes[i].failed, self._holders[i]
            spare = [0] * (width - len(held))
            masks.append([_mask(self.jobs[r], name) & good for r in held] + spare)
            jobs.append(held + spare)
        self.holder_mask[rows], self.holder_job[rows] = masks, jobs


def _order(job: Job | None) -> tuple[int, int]:
    return (-1, -1) if job is None else job.order


def _mask(job: Job | None, node: str) -> int:
    return 0 if job is None or not job.gpus else job.gpus[node]
