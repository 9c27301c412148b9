"""Placing batch jobs: on which nodes a job that may start is put.

Slurm chooses the GPUs within a node, so a node is judged by what Slurm's own pick there would leave (see `picks`). A node is
better the fewer of these hold, in this order: the pick takes what is kept for services; it straddles islands although the job is
small enough for one; it breaks islands that are whole; it leaves the islands that it touches half empty; the node is emptier.
"""

import numpy as np

from colocd.core.ground import Ground
from colocd.core.index import NEAR, Bools, Ints, popcount
from colocd.core.picks import Picks
from colocd.core.view import Job, JobFacts


def per_node(job: Job) -> int:
    """GPUs the job takes on each of its nodes."""
    if job.gpus_per_node is not None:
        return job.gpus_per_node
    return -(-job.gpus_requested // max(1, job.nodes_requested))


def cpus_per_node(job: Job) -> int:
    """CPUs the job takes on each of its nodes."""
    return -(-job.cpus_requested // max(1, job.nodes_requested))


class Pack:
    """What is left for batch jobs while one plan is made: arrays over the index's nodes; jobs are struck as they are placed.

    `free`: GPUs as they will be free once Slurm has started what is struck here; a guess where a job sits within its node.
    """

    def __init__(self, land: Ground) -> None:
        self.land, self.index = land, land.index
        self.free: Ints = np.where(land.open, land.free_masks, 0)
        self.gpus: Ints = popcount(self.free)
        self.cpus: Ints = self.index.cpus.copy()
        self._picks = Picks(self.index)
        self._kept: dict[int, tuple[Ints, Ints]] = {}
        self._too_large: set[tuple[object, ...]] = set()

    def promise(self, job: Job) -> None:
        """Strike what a job will take that was released to its nodes earlier and has not started yet."""
        for name in job.required_nodes:
            if name in self.index.row and self.land.open[self.index.row[name]]:
                self._strike(self.index.row[name], per_node(job), cpus_per_node(job))

    def hosts(self, job: Job, facts: JobFacts, kept: Ints) -> tuple[str, ...] | None:
        """Nodes for a job, best first; None: it does not fit now. `kept`: masks per node that must stay free for services.

        Several nodes are as near each other as can be: in one NVLink domain, on one leaf, in one block.
        """
        need, asked = per_node(job), () if facts.pinned else job.required_nodes
        # What is left only shrinks: what was too large once in this plan stays so.
        like = (need, cpus_per_node(job), job.nodes_requested, job.partition, asked, id(kept))
        if like in self._too_large:
            return None
        rows = self._able(job, asked, kept)
        if len(rows) < job.nodes_requested:
            self._too_large.add(like)
            return None
        rank = self._rank(rows, need, kept)
        if job.nodes_requested > 1:
            rows, rank = self._together(rows, rank, job.nodes_requested)
        best = np.argsort(rank)[: job.nodes_requested]
        return tuple(self.index.nodes[i].name for i in rows[best].tolist())

    def _able(self, job: Job, asked: tuple[str, ...], kept: Ints) -> Ints:
        """Rows of the nodes with enough GPUs and CPUs; `asked`: those that the user named, empty: any."""
        if id(kept) not in self._kept:
            self._kept[id(kept)] = (kept, popcount(kept))
        fits = self.land.open & (self.gpus - self._kept[id(kept)][1] >= per_node(job))
        fits &= self.cpus >= cpus_per_node(job)
        members = self.index.partitions.get(job.partition)
        fits &= members if members is not None else np.zeros_like(fits)
        if asked:
            named = np.zeros_like(fits)
            named[[self.index.row[name] for name in asked if name in self.index.row]] = True
            fits &= named
        return np.flatnonzero(fits)

    def take(self, job: Job, hosts: tuple[str, ...]) -> None:
        """Strike what the job takes on these nodes."""
        for name in hosts:
            self._strike(self.index.row[name], per_node(job), cpus_per_node(job))

    def _strike(self, row: int, gpus: int, cpus: int) -> None:
        self.free[row] &= ~self._picks.of(int(self.index.shape[row]), int(self.free[row]), gpus).gpus
        self.gpus[row] -= gpus
        self.cpus[row] -= cpus

    def _rank(self, rows: Ints, need: int, kept: Ints) -> Ints:
        """One number a row, the smaller the better; no two are equal."""
        rank = self._picks.ranks(rows, self.free[rows], kept[rows], need)
        rank = rank << 6 | np.minimum(self.gpus[rows], 63)
        return rank << 24 | self.index.name_rank[rows]

    def _together(self, rows: Ints, rank: Ints, many: int) -> tuple[Ints, Ints]:
        """The rows of the smallest domain of the closest kind that has enough of them; all rows when none has."""
        for kind in NEAR:
            codes = self.index.near[kind][rows]
            known = codes >= 0
            names, counts = np.unique(codes[known], return_counts=True)
            enough = names[counts >= many]
            if len(enough):
                least = counts[counts >= many].min()
                firsts = [
                    int(self.index.name_rank[rows[codes == name]].min()) for name in names[counts == least].tolist()
                ]
                inside: Bools = codes == names[counts == least][int(np.argmin(firsts))]
                return rows[inside], rank[inside]
        return rows, rank
