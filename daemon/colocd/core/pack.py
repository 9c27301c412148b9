"""Placing batch jobs: on which nodes a job that may start is put.

Slurm chooses the GPUs within a node, so a node is judged by what Slurm's own pick there would leave (see `picks`). The best is
the first by

1. whether the pick takes what is kept for services, straddles islands although the job is small enough for one, or breaks islands
   that are whole;
2. how far the jobs in the islands it touches differ from this one in how dear they are to evict (see `dear`);
3. GPUs that it leaves free in these islands;
4. when the services will want the node's free GPUs: soon for a cheap job, late or never for a dear one;
5. free GPUs of the node, fewest first; name (last name first for a dear job: services take the first).
"""

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np

from colocd.core.arrays import Bools, Ints, popcount
from colocd.core.dear import Classes, residents
from colocd.core.ground import Ground
from colocd.core.index import NEAR
from colocd.core.picks import Picks
from colocd.core.search import NEVER
from colocd.core.valleys import kept_back
from colocd.core.victims import NEVER_AGAIN, cpus_per_node, dearness, is_dear
from colocd.core.view import Job, JobFacts

HORIZONS = (3600.0, 4 * 3600.0, 12 * 3600.0)
"""Seconds ahead for which is asked which free GPUs the services will want."""
FAR = 4
"""Classes of dearness that two jobs must be apart before a job avoids an island that is free beside the other."""
MOST_KINDS = 64
"""Kinds of jobs whose ranks of all nodes are remembered."""


def per_node(job: Job) -> int:
    """GPUs the job takes on each of its nodes."""
    if job.gpus_per_node is not None:
        return job.gpus_per_node
    return -(-job.gpus_requested // max(1, job.nodes_requested))


class Kind(NamedTuple):
    """What decides where a job goes; jobs of one kind share the ranks of the nodes. `kept`: which array of kept GPUs counts."""

    gpus: int
    cpus: int
    partition: str
    dearness: int
    dear: bool
    kept: int


class Pack:
    """What is left for batch jobs while one plan is made: arrays over the index's nodes; jobs are struck as they are placed.

    `looks`: how often places were looked for; jobs of a kind that has none are refused without.
    `free`: GPUs as they will be free once Slurm has started what is struck here; a guess where a job sits within its node.
    `placed`: see `kept_back`.
    """

    def __init__(self, land: Ground, placed: Mapping[str, int]) -> None:
        self.land, self.index, self._placed = land, land.index, placed
        self.free: Ints = np.where(land.open, land.free_masks, 0)
        for name, failed in self.index.failed.items():
            # Where Slurm takes a failed GPU for a free one, it may give it to the job, and nobody can tell it not to.
            if failed & ~(self.index.nodes[self.index.row[name]].used or 0):
                self.free[self.index.row[name]] = 0
        self.gpus: Ints = popcount(self.free)
        self.cpus: Ints = self.index.cpus.copy()
        self._picks = Picks(self.index)
        self._kept: dict[int, tuple[Ints, Ints]] = {}
        self._ranks: dict[Kind, tuple[Ints, int]] = {}
        self._struck: list[int] = []
        self.looks = 0
        self._full: set[tuple[Kind, int]] = set()

    def promise(self, job: Job) -> None:
        """Strike what a job will take that was released to its nodes earlier and has not started yet."""
        self.take(job, JobFacts(), job.required_nodes)

    def hosts(self, job: Job, facts: JobFacts, kept: Ints) -> tuple[str, ...] | None:
        """Nodes for a job, best first; None: it does not fit now. `kept`: masks per node that must stay free for services.

        Several nodes are as near each other as can be: in one NVLink domain, on one leaf, in one block. `kept` must not change.
        """
        if id(kept) not in self._kept:
            self._kept[id(kept)] = (kept, popcount(kept))
        view = self.land.view
        kind = Kind(
            per_node(job), cpus_per_node(job), job.partition, dearness(job, facts, view), is_dear(job, facts, view), id(kept)
        )  # fmt: skip
        if (kind, job.nodes_requested) in self._full:
            return None  # Nothing is given back while a plan is made.
        self.looks += 1
        rank = self._ranked(kind)
        if job.required_nodes and not facts.pinned:
            asked = [self.index.row[name] for name in job.required_nodes if name in self.index.row]
            named = np.full_like(rank, NEVER)
            named[asked] = rank[asked]
            rank = named
        elif np.count_nonzero(rank < NEVER) < max(1, job.nodes_requested):
            self._full.add((kind, job.nodes_requested))
            return None
        if job.nodes_requested <= 1:
            best = int(rank.argmin()) if len(rank) else -1
            return (self.index.nodes[best].name,) if best >= 0 and rank[best] < NEVER else None
        rows: Ints = np.flatnonzero(rank < NEVER)
        if len(rows) < job.nodes_requested:
            return None
        rows = self._together(rows, job.nodes_requested)
        rows = rows[np.argsort(rank[rows])][: job.nodes_requested]
        return tuple(self.index.nodes[i].name for i in rows.tolist())

    def take(self, job: Job, facts: JobFacts, hosts: tuple[str, ...]) -> None:
        """Strike what the job takes on these nodes."""
        gpus, dear = per_node(job), dearness(job, facts, self.land.view)
        for row in (self.index.row[name] for name in hosts if name in self.index.row):
            if not self.land.open[row]:
                continue
            pick = self._picks.of(int(self.index.shape[row]), int(self.free[row]), gpus).gpus
            self.free[row] &= ~pick
            self.gpus[row] -= gpus
            self.cpus[row] -= cpus_per_node(job)
            for gpu in range(self._classes.shape[1]):
                if pick >> gpu & 1:
                    self._classes[row, gpu] = dear
            self._struck.append(row)

    @cached_property
    def _classes(self) -> Classes:
        return residents(self.land.view, self.index)

    @cached_property
    def _soon(self) -> Ints:
        """Per node how soon the services want some of its free GPUs: number of the horizon, the last number for never."""
        soon: Ints = np.full(len(self.index.nodes), len(HORIZONS), dtype=np.int64)
        for nth in reversed(range(len(HORIZONS))):
            soon[kept_back(self.land.view, self.land, HORIZONS[nth], self._placed) != 0] = nth
        return soon

    def _ranked(self, kind: Kind) -> Ints:
        """The rank of every node for this kind of job, the smaller the better, `NEVER` where it does not fit; none are equal."""
        known = self._ranks.get(kind)
        if known is None:
            if len(self._ranks) >= MOST_KINDS:
                self._ranks.clear()
            ranks: Ints = np.full(len(self.index.nodes), NEVER, dtype=np.int64)
            stale = np.arange(len(ranks))
        else:
            ranks, seen = known
            stale = np.unique(np.array(self._struck[seen:], dtype=np.int64))
        if len(stale):
            ranks[stale] = self._work_out(kind, stale)
        self._ranks[kind] = (ranks, len(self._struck))
        return ranks

    def _work_out(self, kind: Kind, rows: Ints) -> Ints:
        kept, counts = self._kept[kind.kept]
        able = self.land.open[rows] & (self.gpus[rows] - counts[rows] >= kind.gpus) & (self.cpus[rows] >= kind.cpus)
        members = self.index.partitions.get(kind.partition)
        able &= members[rows] if members is not None else np.zeros_like(able)
        out: Ints = np.full(len(rows), NEVER, dtype=np.int64)
        rows = rows[able]
        if not len(rows):
            return out
        harm, beside, islands = self._picks.ranks(rows, self.free[rows], kept[rows], kind.gpus)
        soon, name = self._soon[rows], self.index.name_rank[rows]
        if kind.dear:
            soon, name = len(HORIZONS) - soon, len(self.index.nodes) - name
        rank = harm << 5 | self._unlike(kind.dearness, rows, islands)
        for value, size in ((beside, 4), (soon, 3), (np.minimum(self.gpus[rows], 63), 6), (name, 24)):
            rank = rank << size | value
        out[able] = rank
        return out

    def _unlike(self, dear: int, rows: Ints, islands: Ints) -> Ints:
        """How far the dearest job in these islands is from this one; beside free islands the node's count, if far."""
        classes = self._classes[rows]
        inside = (islands[:, None] >> np.arange(classes.shape[1]) & 1) != 0
        there: Ints = np.where(inside, classes, 0).max(axis=1).astype(np.int64)
        node: Ints = classes.max(axis=1).astype(np.int64)
        apart = np.abs(np.where(there > 0, there, node) - dear)
        none = np.where(there > 0, False, (node == 0) | (apart < FAR))
        return np.where(none, 0, np.minimum(apart, NEVER_AGAIN))

    def _together(self, rows: Ints, many: int) -> Ints:
        """The rows of the smallest domain of the closest kind that has enough of them; all rows when none has."""
        for near in NEAR:
            codes = self.index.near[near][rows]
            names, counts = np.unique(codes[codes >= 0], return_counts=True)
            enough = names[counts >= many]
            if len(enough):
                least = names[counts == counts[counts >= many].min()]
                firsts = [int(self.index.name_rank[rows[codes == name]].min()) for name in least.tolist()]
                inside: Bools = codes == least[int(np.argmin(firsts))]
                return rows[inside]
        return rows
