"""The virtual scheduler: who starts next, and where."""

from bisect import insort
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush

from colocd.sim.model import VJob, VNode
from colocd.slurm.port import Partition

Class = tuple[object, ...]
Spot = tuple[VNode, ...]


def class_of(job: VJob) -> Class:
    """Jobs of one class fit in the same places: when the first does not fit, none does."""
    sub = job.sub
    inside = (job.reservation, job.user, sub.time_limit) if job.reservation is not None else ()
    return (sub.partition, sub.gpus, sub.gpu_type, sub.cpus, job.nodes_wanted, job.required, job.excluded, *inside)


class Queue:
    """Eligible pending jobs, ordered by partition tier, then nice, then submission; later ones fill what earlier leave.

    A pass looks only at classes that may have changed: `wake()` marks all (something was freed), `add` the job's own.
    """

    def __init__(self, nodes: Mapping[str, VNode], partitions: Mapping[str, Partition]) -> None:
        self._nodes = nodes
        self._partitions = partitions
        self._waiting: dict[Class, list[tuple[int, int, VJob]]] = {}
        self._changed: set[Class] = set()

    def add(self, job: VJob) -> None:
        """Let a job wait for its start."""
        kind = class_of(job)
        job.queued = kind
        insort(self._waiting.setdefault(kind, []), (job.nice, job.order, job), key=lambda entry: entry[:2])
        self._changed.add(kind)

    def remove(self, job: VJob) -> None:
        """Take a job out; nothing happens if it does not wait."""
        if job.queued is None:
            return
        line = self._waiting[job.queued]
        line[:] = [entry for entry in line if entry[2] is not job]
        self._drop_empty(job.queued)
        job.queued = None

    def wake(self) -> None:
        """Something was freed or changed: look at all classes in the next pass."""
        self._changed.update(self._waiting)

    @property
    def restless(self) -> bool:
        """Whether a pass might start something."""
        return bool(self._changed)

    def run(self, start: Callable[[VJob, Spot], None]) -> None:
        """One pass: call `start` for each job that can start now, with its nodes."""
        heads = [self._head(kind) for kind in self._changed if kind in self._waiting]
        self._changed.clear()
        heapify(heads)
        while heads:
            *_, job = heappop(heads)
            kind = job.queued
            spot = self.spot(job)
            if spot is None or kind is None:
                continue
            del self._waiting[kind][0]
            job.queued = None
            start(job, spot)
            if self._waiting[kind]:
                heappush(heads, self._head(kind))
            self._drop_empty(kind)

    def spot(self, job: VJob) -> Spot | None:
        """The nodes on which a job can start now; None: nowhere."""
        partition = self._partitions[job.sub.partition]
        if not partition.up:
            return None
        fitting = [n for n in self._candidates(job, partition) if self._fits(job, n)]
        wanted = [n for n in fitting if n.name in job.required]
        if len(wanted) < len(job.required):
            return None
        others = [n for n in fitting if n.name not in job.required]
        chosen = (*wanted, *others)[: max(job.nodes_wanted, len(job.required))]
        return chosen if len(chosen) >= job.nodes_wanted else None

    def _candidates(self, job: VJob, partition: Partition) -> Iterable[VNode]:
        names = job.required if job.required and len(job.required) >= job.nodes_wanted else partition.nodes
        return (self._nodes[name] for name in names if name in partition.nodes and name not in job.excluded)

    @staticmethod
    def _fits(job: VJob, node: VNode) -> bool:
        if not node.up or node.dying or node.cpus - node.cpus_used < job.sub.cpus:
            return False
        resv = node.reservation
        if job.reservation is None:
            if resv is not None:
                return False
        elif resv is None or resv.name != job.reservation:
            return False
        return not job.sub.gpus or node.free(job.sub.gpu_type).bit_count() >= job.sub.gpus

    def _head(self, kind: Class) -> tuple[int, int, int, VJob]:
        nice, order, job = self._waiting[kind][0]
        return (-self._partitions[job.sub.partition].tier, nice, order, job)

    def _drop_empty(self, kind: Class) -> None:
        if not self._waiting[kind]:
            del self._waiting[kind]
            self._changed.discard(kind)
