"""Takes agents' batches, each sample once; keeps the newest, and what was measured since the last cycle."""

import threading
from collections import deque
from typing import NamedTuple

from colocd.agent.wire import Batch, GpuInfo, GpuSample, Reply
from colocd.gpus.seen import Seen, Spell

KEPT = 1024
"""Spells kept of a node until the cycle asks for them."""
SPELLS = 200_000
"""Spells kept of all nodes together (about a kilobyte each): after an outage the agents' backlog must not fill the memory."""
LIVE, BACKLOG = 16, 0.75
"""A batch of more samples is a backlog; backlogs may fill this share of `SPELLS`, so that there is room for what is live."""
GAP = 3.0
"""A sample stands for the time since the one before it, unless that is more than so many periods: then for none."""


class Count(NamedTuple):
    """Sums since colocd's start."""

    batches: int = 0
    samples: int = 0
    repeated: int = 0
    dropped: int = 0


class _Node:
    def __init__(self) -> None:
        self.run = ""
        self.seq = -1
        self.dropped = 0
        self.last_at: float | None = None
        self.seen: Seen | None = None
        self.spells: deque[Spell] = deque(maxlen=KEPT)


class Intake:
    """Thread-safe: the listener puts in, the cycle takes out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nodes: dict[str, _Node] = {}
        self._kept = 0
        self.count = Count()

    def take(self, batch: Batch, now: float) -> Reply:
        """Take a batch that arrived at `now` (Unix seconds) from the node that it says it is from."""
        with self._lock:
            node = self._nodes.setdefault(batch.node, _Node())
            if batch.run != node.run:
                node.run, node.seq, node.dropped, node.last_at = batch.run, -1, 0, None
            fresh = [sample for sample in batch.samples if sample.seq > node.seq]
            if len(fresh) > LIVE and self._kept + len(fresh) > BACKLOG * SPELLS:
                return Reply(ok=False, taken=node.seq, why="colocd has more to sum up than it can hold; send it again")
            for sample in fresh:
                at = now - sample.age
                self._spell(node, batch, at, sample.gpus)
                node.seq, node.last_at = sample.seq, at
                if node.seen is None or at >= node.seen.at:
                    node.seen = Seen(at, batch.gpus, sample.gpus, batch.problems)
            if not batch.samples and node.seen is not None:
                node.seen = node.seen._replace(problems=batch.problems)
            elif not batch.samples:
                node.seen = Seen(now, (), (), batch.problems)
            old = self.count
            self.count = Count(
                old.batches + 1,
                old.samples + len(fresh),
                old.repeated + len(batch.samples) - len(fresh),
                old.dropped + max(0, batch.dropped - node.dropped),
            )
            node.dropped = batch.dropped
            return Reply(ok=True, taken=node.seq)

    def _spell(self, node: _Node, batch: Batch, at: float, gpus: tuple[GpuSample, ...]) -> None:
        if node.last_at is None:
            return
        seconds = at - node.last_at
        if not 0 < seconds <= GAP * batch.period:
            return
        if len(node.spells) == node.spells.maxlen or (self._kept >= SPELLS and node.spells):
            node.spells.popleft()
            self._kept -= 1
        self._kept += 1
        told: list[tuple[GpuInfo, GpuSample]] = list(zip(batch.gpus, gpus, strict=True))
        node.spells.append(
            Spell(
                at,
                seconds,
                {info.index: gpu.sm for info, gpu in told if gpu.sm is not None},
                {info.index: gpu.power / 1000 for info, gpu in told if gpu.power is not None},
            )
        )

    def latest(self) -> dict[str, Seen]:
        """See `GpuSource.latest`."""
        with self._lock:
            return {name: node.seen for name, node in self._nodes.items() if node.seen is not None}

    def drain(self) -> dict[str, list[Spell]]:
        """See `GpuSource.drain`."""
        with self._lock:
            full = {name: list(node.spells) for name, node in self._nodes.items() if node.spells}
            for node in self._nodes.values():
                node.spells.clear()
            self._kept = 0
            return full

    def keep(self, nodes: set[str]) -> None:
        """Forget nodes that Slurm does not have any more."""
        with self._lock:
            for name in self._nodes.keys() - nodes:
                self._kept -= len(self._nodes.pop(name).spells)
