"""What a plan may still use, while it is made: free GPUs, evictable jobs with their cost, open nodes, GPUs that come free."""

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.budgets import spent_rows
from colocd.core.index import NO_FACTS, PlannerIndex
from colocd.core.keys import NodeKeys
from colocd.core.search import JOBS_BITS, Found, Request
from colocd.core.victims import COST_SCALE, barred, barred_for_good, eviction_cost
from colocd.core.view import Job, ReplicaState, View


class Ground(NodeKeys):
    """Mutable state of one plan over an index, which it leaves alone. Node and job rows are the index's.

    `later[n]`: GPUs of node n that come free without any further eviction, once a handover is through that is open or planned.
    `lifted`: no budget keeps a job from being evicted.
    `cpu_reach[n]`: CPUs of node n that are free or can be freed; `cramped`: rows that bring a service too few, as was found out.
    `hosts`: node rows of each service's replicas, for services whose replicas may not share a node.
    """

    def __init__(self, view: View, index: PlannerIndex) -> None:
        self.view, self.index, self.lifted = view, index, False
        self.free_masks: Ints = index.free.copy()
        self.open: Bools = index.open.copy()
        self.hosts: dict[str, set[int]] = {}
        self._reachable: Bools = index.open.copy()
        self.later: Ints = np.zeros(len(index.nodes), dtype=np.int64)
        self.why_closed: dict[int, str] = {}
        self.hits: Ints = np.zeros(max(1, len(index.users)), dtype=np.int64)
        self.gone: set[str] = {ref for h in view.handovers for ref in h.victims}
        self._ok, self._alive, self._milli, weighed = index.costs(view)
        self._cost: Ints = (weighed << JOBS_BITS) | 1
        leaving = [index.job_row[ref] for ref in self.gone if ref in index.job_row]
        self._ok[leaving] = self._alive[leaving] = False
        self._masks: Ints = np.where(self._ok[index.holder_job], index.holder_mask, 0)
        self._costs: Ints = self._cost[index.holder_job]
        self._found: dict[Request, Found] = {}
        freed = np.where(self._masks != 0, index.job_cpus[index.holder_job], 0).sum(axis=1)
        self.cpu_reach: Ints = index.cpus + freed
        self.cramped: dict[str, set[int]] = {}
        for service in view.services:
            names = {name for r in service.replicas if r.state is not ReplicaState.GONE for name in r.places}
            names |= {name for h in view.handovers if h.service == service.spec.name for name in h.places}
            self.hosts[service.spec.name] = {index.row[name] for name in names if name in index.row}
        self._lease()

    def _lease(self) -> None:
        """GPUs that open handovers want are out of bounds; what else their victims free comes later."""
        index, view = self.index, self.view
        wanted: dict[int, int] = {}
        for handover in view.handovers:
            for i, want in ((index.row[n], want) for n, want in handover.places.items() if n in index.row):
                wanted[i] = wanted.get(i, 0) | want
                self.later[i] |= index.free[i]
                self._close(i, "has a handover under way")
        for i in wanted:
            node = index.nodes[i]
            self._reachable[i] = node.up and node.used is not None and not node.reserved
        for ref in sorted(self.gone & index.known.keys()):
            self._comes_free(index.known[ref])
        for i, want in wanted.items():
            self.free_masks[i] &= ~want
            self.later[i] &= ~want

    def _close(self, i: int, why: str) -> None:
        self.open[i] = False
        self.why_closed.setdefault(i, why)

    def _comes_free(self, job: Job) -> list[int]:
        """Count the GPUs of a job that is to go as coming free; returns the rows of its nodes."""
        rows = [self.index.row[name] for name in job.gpus or () if name in self.index.row]
        for i in rows:
            if self._reachable[i]:
                self.later[i] |= (job.gpus or {})[self.index.nodes[i].name] & ~self.index.nodes[i].failed
        return rows

    def copy(self) -> "Ground":
        """A second state that starts where this one stands."""
        twin = object.__new__(Ground)
        twin.view, twin.index, twin.lifted = self.view, self.index, self.lifted
        for name in ("free_masks", "open", "later", "hits", "_ok", "_alive", "_masks"):
            setattr(twin, name, getattr(self, name).copy())
        twin._cost, twin._costs, twin._milli, twin._reachable = self._cost, self._costs, self._milli, self._reachable
        twin.cpu_reach = self.cpu_reach
        twin.cramped = {name: set(rows) for name, rows in self.cramped.items()}
        twin.hosts = {name: set(rows) for name, rows in self.hosts.items()}
        twin.why_closed, twin.gone = dict(self.why_closed), set(self.gone)
        twin._found = {
            request: Found._make(column.copy() for column in found) for request, found in self._found.items()
        }
        return twin

    # -- what there is -----------------------------------------------------------------------------------------------

    def content(self, i: int) -> tuple[int, Ints, Ints]:
        """Free GPUs, and GPUs and keys of the evictable jobs of one node."""
        return int(self.free_masks[i]), self._masks[i], self._costs[i]

    def gpus_of(self, ref: str) -> dict[str, int]:
        """GPUs by node name that evicting a job brings; those that have failed are of no use."""
        held, failed = self.index.known[ref].gpus or {}, self.index.failed
        return {name: mask & ~failed.get(name, 0) for name, mask in held.items()} if failed else held

    def holder_column(self, i: int, ref: str) -> int:
        """Where an evictable job stands in the arrays that `content` gives for one of its nodes."""
        return int(np.flatnonzero(self.index.holder_job[i] == self.index.job_row[ref])[0])

    def room_later(self, i: int) -> int:
        """GPUs of a node that come free without any further eviction."""
        return int(self.later[i])

    def reachable(self, i: int) -> bool:
        """Whether GPUs that come free on a node are of use: it is up, readable, and nobody else's reservation covers it."""
        return bool(self._reachable[i])

    def holders(self, i: int, gpus: int) -> list[Job]:
        """The jobs to be evicted if a replica takes these GPUs of a node, in order of their ids."""
        taken = np.flatnonzero(self._masks[i] & ~self.free_masks[i] & gpus)
        jobs = (self.index.jobs[j] for j in self.index.holder_job[i, taken].tolist())
        return [job for job in jobs if job is not None]

    def cost(self, jobs: Iterable[Job]) -> float:
        """GPU-seconds that evicting these jobs costs."""
        return sum(int(self._milli[self.index.job_row[job.ref]]) for job in jobs) / COST_SCALE

    def evictable(self) -> Ints:
        """Rows of the jobs that may be evicted now."""
        return np.flatnonzero(self._ok)

    def job_keys(self, rows: Ints) -> Ints:
        """What evicting the job of each row adds to a key."""
        return self._cost[rows]

    def again(self, rows: Ints, gpus: Ints) -> Ints:
        """How often the users of the jobs that these subsets evict were hit in this plan already."""
        hit = (self._masks[rows] & ~self.free_masks[rows][:, None] & gpus[:, None]) != 0
        counts: Ints = np.where(hit, self.hits[self.index.user[self.index.holder_job[rows]]], 0).sum(axis=1)
        return counts

    def take(self, i: int, gpus: int, victims: Iterable[Job]) -> set[int]:
        """Give GPUs of a node to a replica now, close the node, and evict the victims: the rest of theirs comes free later.

        Returns the rows of the nodes on which something changed.
        """
        changed = {i}
        self.later[i] |= self.free_masks[i]
        for job in victims:
            self.evict(job, changed)
        self.later[i] &= ~gpus
        self.free_masks[i] &= ~gpus
        self._close(i, "has a handover under way")
        self._renew(changed)
        return changed

    def evict(self, job: Job, changed: set[int]) -> None:
        """Strike a job; its nodes are added to `changed`."""
        row = self.index.job_row[job.ref]
        self._ok[row] = self._alive[row] = False
        self.gone.add(job.ref)
        self.hits[self.index.user[row]] += 1
        spent = [] if self.lifted else spent_rows(self.view, self.index, self.hits, self._ok, job.user)
        changed |= self.bar_rows(spent)
        for node in self._comes_free(job):
            self._masks[node, self.index.holder_job[node] == row] = 0
            changed.add(node)

    def bar_rows(self, rows: Iterable[int]) -> set[int]:
        """From now on the jobs of these rows may not be evicted; returns the node rows where that changes something."""
        changed: set[int] = set()
        for row in rows:
            self._ok[row] = False
            job = self.index.jobs[row]
            for node in (self.index.row[name] for name in (job.gpus if job is not None else None) or ()):
                self._masks[node, self.index.holder_job[node] == row] = 0
                changed.add(node)
        return changed

    def without_budgets(self) -> "Ground":
        """A state that starts where this one stands, and in which no budget keeps a job from being evicted."""
        twin = self.copy()
        twin.lifted, twin._ok, twin._found = True, twin._alive.copy(), {}
        twin._masks = np.where(twin._ok[self.index.holder_job], self.index.holder_mask, 0)
        return twin

    def only(self, rows: Iterable[int]) -> "Ground":
        """A state that starts where this one stands, and in which only the jobs of these rows may be evicted."""
        twin = self.copy()
        chosen = np.zeros_like(self._ok)
        chosen[list(rows)] = True
        twin._ok, twin._found = self._ok & chosen, {}
        twin._masks = np.where(twin._ok[self.index.holder_job], self._masks, 0)
        return twin

    def within(self, members: Bools) -> "Ground":
        """A state that starts where this one stands, and in which only these nodes take replicas."""
        found, self._found = self._found, {}
        twin = self.copy()
        self._found = found
        twin.open &= members
        return twin

    def seize(self, i: int, gpus: int, victims: Iterable[Job]) -> None:
        """Give GPUs to one part of a group: the node stays open, and what its victims free is free for the other parts."""
        changed = {i}
        for job in victims:
            self.evict(job, changed)
        for row in changed:
            if self.open[row]:
                self.free_masks[row] |= self.later[row]
                self.later[row] = 0
        self.free_masks[i] &= ~gpus
        self._renew(changed)

    def lease(self, i: int, gpus: int) -> None:
        """Keep GPUs that are free, or come free later, for a replica that waits for them."""
        self.free_masks[i] &= ~gpus
        self.later[i] &= ~gpus
        self._renew({i})

    def _renew(self, changed: set[int]) -> None:
        rows = np.array(sorted(i for i in changed if self.open[i]), dtype=np.int64)
        if not len(rows):
            return
        for request, found in self._found.items():
            self._look(request, found, rows)

    @property
    def free(self) -> dict[str, int]:
        """Free GPUs by node name, without those that are leased."""
        return dict(zip(self.index.row, self.free_masks.tolist(), strict=True))

    @property
    def closed(self) -> dict[str, str]:
        """Why a node takes no replica now, by name."""
        return {self.index.nodes[i].name: self.reason(i) for i in np.flatnonzero(~self.open).tolist()}

    def reason(self, i: int) -> str:
        """Why a closed node is closed."""
        return self.index.shut[i] or self.why_closed.get(i, "is closed")

    @property
    def victims(self) -> dict[str, Job]:
        """Jobs that may be evicted now, by ref."""
        jobs = (self.index.jobs[row] for row in np.flatnonzero(self._ok).tolist())
        return {job.ref: job for job in jobs if job is not None}

    @property
    def costs(self) -> dict[str, float]:
        """What evicting each of `victims` costs, in GPU-seconds."""
        return {
            ref: eviction_cost(job, self.view.facts.get(ref, NO_FACTS), self.view) for ref, job in self.victims.items()
        }

    @cached_property
    def barred(self) -> Mapping[str, str]:
        """Why a job that holds GPUs may not be evicted, by ref."""
        return {job.ref: text for job in self.view.jobs if (text := self.bar(job)) is not None}

    @cached_property
    def _holding(self) -> dict[str | None, list[Job]]:
        held: dict[str | None, list[Job]] = {None: []}
        for job in self.view.jobs:
            for name in (None,) if job.gpus is None else job.gpus:
                held.setdefault(name, []).append(job)
        return held

    def holding(self, node: str) -> list[Job]:
        """Jobs that hold GPUs of the node, and those of which nobody knows where theirs are."""
        return sorted(self._holding.get(node, []) + self._holding[None], key=lambda job: job.order)

    def bar(self, job: Job) -> str | None:
        """Why a job may not be evicted now; None: it may, or it holds no GPUs."""
        if job.gpus == {}:
            return None
        if job.ref in self.gone:
            return "gives up its GPUs already"
        facts = self.view.facts.get(job.ref, NO_FACTS)
        mine = int(self.hits[self.index.users[job.user]]) if job.user in self.index.users else 0
        now = barred(job, facts, self.view, mine, int(self.hits.sum()))
        return barred_for_good(job, self.view) if self.lifted else now
