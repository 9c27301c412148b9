"""What the nodes of a partition have when they are empty: on how many of them a job sits, and whether it can ever start.

A job that says how many GPUs it wants and not on how many nodes sits on as many as it takes, as Slurm would have it. A held job
that fits nowhere is not refused by Slurm as others are when they are submitted, so coloc says so. Pure.
"""

from collections.abc import Iterable, Sequence

import msgspec

from colocd.core.view import Job, JobState, Node


class Room:
    """GPUs and CPUs of the nodes of each partition, whatever their state. CPUs that nobody knows suffice for any job."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._sizes: dict[str, list[tuple[int, float]]] = {}
        self._counts: dict[tuple[str, int, int], int] = {}

    def sizes(self, partition: str) -> list[tuple[int, float]]:
        """(GPUs, CPUs) of each node of the partition."""
        if partition not in self._sizes:
            some = [n for n in self._nodes if partition in n.partitions]
            self._sizes[partition] = [(n.gpus, float("inf") if n.cpus is None else n.cpus) for n in some]
        return self._sizes[partition]

    def count(self, partition: str, gpus: int, cpus: int) -> int:
        """How many nodes of the partition have so many GPUs and CPUs."""
        key = (partition, gpus, cpus)
        if key not in self._counts:
            self._counts[key] = sum(g >= gpus and c >= cpus for g, c in self.sizes(partition))
        return self._counts[key]

    def never(self, job: Job) -> str | None:
        """Why a waiting job cannot start on its partition as it is, even if all of it were free; None: it could."""
        nodes = max(1, job.nodes_requested)
        gpus = -(-job.gpus_requested // nodes) if job.gpus_per_node is None else job.gpus_per_node
        cpus = -(-job.cpus_requested // nodes)
        sizes = self.sizes(job.partition)
        have = self.count(job.partition, gpus, cpus)
        if not sizes or have >= nodes:
            return None
        if have:
            lacks = f"only {have} nodes of partition {job.partition} are that large"
        elif (most := max(g for g, _ in sizes)) < gpus:
            lacks = f"the nodes of partition {job.partition} have {most} GPUs at most"
        else:
            lacks = f"no node of partition {job.partition} has that many of both"
        return (
            f"can never start as it was submitted: it asks for {gpus} GPUs and {cpus} CPUs on each of {nodes} nodes, and {lacks};"
            f" `scancel {job.ref}` and submit it anew"
        )


def spread(jobs: Iterable[Job], nodes: Sequence[Node]) -> tuple[Job, ...]:
    """The jobs; those of coloc's that wait and are too large for the nodes they were counted on, on as many as they need.

    The largest node of the partition says how many. Where that does not help either, the job stays as it is.
    """
    room = Room(nodes)
    return tuple(
        _spread(job, room) if job.state is JobState.PENDING and job.checkpoint is not None else job for job in jobs
    )


def _spread(job: Job, room: Room) -> Job:
    nodes = max(1, job.nodes_requested)
    per_node = job.gpus_per_node
    each = -(-job.gpus_requested // nodes) if per_node is None else per_node
    sizes = room.sizes(job.partition)
    if not sizes or room.count(job.partition, each, -(-job.cpus_requested // nodes)):
        return job
    gpus, cpus = max(g for g, _ in sizes), max(c for _, c in sizes)
    if gpus < 1 or cpus < 1:
        return job
    if nodes == 1 and each > gpus:
        per_node = None  # of one node a job tells the same, whether it asked for GPUs on each node or in all
    by_gpus = -(-job.gpus_requested // gpus) if per_node is None else nodes
    needed = max(nodes, by_gpus, int(-(-job.cpus_requested // cpus)))
    wide = msgspec.structs.replace(
        job,
        nodes_requested=needed,
        gpus_per_node=per_node,
        gpus_requested=job.gpus_requested if per_node is None else per_node * needed,
    )
    return wide if room.never(wide) is None else job
