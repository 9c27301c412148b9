"""From readings of GPUs to what the view says: by Slurm's index, fresh ones only, and which GPUs have failed."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from coloc_topology.hostlist import fold
from colocd.clock import Clock
from colocd.config import Config
from colocd.core.readings import FailedGpu, NodeReadings, failure
from colocd.core.view import Job, Node
from colocd.errors import StoreUnavailable
from colocd.gpus.places import PlaceBook, Places
from colocd.gpus.seen import GpuSource, Seen
from colocd.gpus.use import UseBook
from colocd.store.port import Store
from colocd.store.records import Decision

log = logging.getLogger(__name__)
FAILURES, USE = "gpu-failures", "gpu-use"
"""Settings of the store: GPUs that had failed when colocd ended, and the sums of the jobs that ran then."""
SAVE_EVERY = 60.0
MOST = 16
MISSING = "the driver does not show it any more"


class Looked(NamedTuple):
    """Of one cycle: fresh readings, why GPUs must not be given out, and what does not work, one sentence each."""

    readings: dict[str, NodeReadings]
    unfit: dict[str, tuple[FailedGpu, ...]]
    problems: tuple[str, ...]


class GpuBoard:
    """Remembers failures until a newer reading says otherwise: silence mends no GPU."""

    def __init__(self, sources: Sequence[GpuSource], store: Store, clock: Clock) -> None:
        self._sources, self._store, self._clock = tuple(sources), store, clock
        self._book: PlaceBook | None = None
        self._unfit: dict[str, dict[int, str]] = {}
        self.use = UseBook()
        self._begun = False
        self._saved = ("", "")
        self._save_at = 0.0

    def forget_topology(self) -> None:
        """Read the files that tell the numbering again with the next cycle."""
        self._book = None

    def look(self, config: Config, nodes: Sequence[Node], jobs: Sequence[Job]) -> Looked:
        """Bring everything up to date; `nodes` and `jobs` are those of this cycle's reading of Slurm."""
        if not self._sources:
            return Looked({}, {}, ())
        self._begin()
        for source in self._sources:
            source.expect({node.name: node.address for node in nodes if node.gpus})
        if self._book is None:
            self._book = PlaceBook(config)
        now, stale = self._clock.now(), config.policy.stale_after
        seen = self._latest()
        readings: dict[str, NodeReadings] = {}
        order: dict[str, dict[int, int]] = {}
        unplaced: dict[str, list[str]] = {}
        silent: list[str] = []
        agents: list[str] = []
        problems = [problem for source in self._sources for problem in source.problems()]
        for node in nodes:
            found = seen.get(node.name)
            if found is None or not node.gpus:
                continue
            if now - found.at > stale:
                silent += [node.name] if node.up else []
                continue
            agents += [f"agent of {node.name}: {text}" for text in found.problems[:2]]
            if not found.gpus:
                continue
            places = self._book.places(node, found.gpus)
            if places.at is None:
                unplaced.setdefault(places.why or "", []).append(node.name)
                continue
            order[node.name] = {i: found.gpus[p].index for i, p in enumerate(places.at) if p is not None}
            readings[node.name] = _readings(found, places)
            self._judge(node.name, found, places)
        names = {node.name for node in nodes}
        self._unfit = {name: bad for name, bad in self._unfit.items() if name in names and bad}
        problems += [f"GPU readings of {fold(where)} cannot be used: {why}" for why, where in unplaced.items()]
        problems += _few(agents)
        if silent:
            problems.append(f"GPU readings of {fold(silent)} are older than {stale:.0f} s")
        problems += [*_few(_told(self._unfit, jobs)), *_strays(seen, order, jobs)]
        self._account(order, jobs)
        unfit = {
            name: tuple(FailedGpu(gpu, why) for gpu, why in sorted(bad.items()))
            for name, bad in self._unfit.items()
            if bad
        }
        return Looked(readings, unfit, tuple(problems))

    def counts(self) -> dict[str, int]:
        """What the sources counted since their start."""
        return {what: count for source in self._sources for what, count in source.counts().items()}

    def use_of(self, ref: str) -> str | None:
        """How much of its GPUs a running job used so far; None: nothing was measured."""
        use = self.use.jobs.get(ref)
        return use.words() if use is not None and use.seconds else None

    def _latest(self) -> dict[str, Seen]:
        merged: dict[str, Seen] = {}
        for source in self._sources:
            for name, found in source.latest().items():
                if name not in merged or found.at > merged[name].at:
                    merged[name] = found
        return merged

    def _judge(self, node: str, found: Seen, places: Places) -> None:
        bad: dict[int, str] = {}
        # Fewer GPUs than Slurm has, and all of them known: one is gone. Else only the mapping is in doubt.
        gone = len(found.gpus) < len(places.at or ()) and all(gpu.minor is not None for gpu in found.gpus)
        for gpu, place in enumerate(places.at or ()):
            if place is None:
                if gone:
                    bad[gpu] = MISSING
                continue
            sample = found.samples[place]
            why = failure(lost=sample.lost, xids=sample.xids, ecc=sample.ecc, remap=sample.remap)
            if why is not None:
                bad[gpu] = why
        self._unfit[node] = bad

    def _account(self, order: dict[str, dict[int, int]], jobs: Sequence[Job]) -> None:
        for source in self._sources:
            self.use.add(source.drain(), order, jobs)
        now = self._clock.now()
        rows = [
            Decision(at=now, subject=f"job:{ref}", kind="gpu-use", text=use.words())
            for ref, use in self.use.ended(jobs).items()
            if use.seconds
        ]
        if rows:
            self._store.add_decisions(rows)
        failures = msgspec.json.encode(self._unfit).decode()
        if failures != self._saved[0] or rows or self._clock.monotonic() >= self._save_at:
            self._save(failures)

    def _save(self, failures: str) -> None:
        use = self.use.text()
        if failures != self._saved[0]:
            self._store.put_setting(FAILURES, failures)
        if use != self._saved[1]:
            self._store.put_setting(USE, use)
        self._saved = (failures, use)
        self._save_at = self._clock.monotonic() + SAVE_EVERY

    def _begin(self) -> None:
        if self._begun:
            return
        text = self._store.setting(FAILURES)
        try:
            self._unfit = {} if text is None else msgspec.json.decode(text, type=dict[str, dict[int, str]])
        except msgspec.MsgspecError:
            self._unfit = {}
        self.use.load(self._store.setting(USE))
        self._begun = True

    def end(self) -> None:
        """Keep what was counted; a store that does not answer keeps what it has."""
        try:
            if self._begun:
                self._save(msgspec.json.encode(self._unfit).decode())
        except StoreUnavailable as error:
            log.warning("the use of GPUs in the last minute is not kept: %s", error)


def _readings(found: Seen, places: Places) -> NodeReadings:
    samples = [None if place is None else found.samples[place] for place in places.at or ()]
    return NodeReadings(
        at=found.at,
        sm=tuple(None if s is None else s.sm for s in samples),
        used=tuple(None if s is None else s.used for s in samples),
        power=tuple(None if s is None or s.power is None else s.power / 1000 for s in samples),
    )


def _few(sentences: list[str]) -> list[str]:
    """No more than people read: a driver that dies everywhere at once must not bury everything else."""
    return sentences if len(sentences) <= MOST else [*sentences[:MOST], f"… and {len(sentences) - MOST} more like that"]


def _told(unfit: dict[str, dict[int, str]], jobs: Sequence[Job]) -> list[str]:
    """One sentence for each failed GPU, with the job that sits on it."""
    told = []
    for node, bad in sorted(unfit.items()):
        for gpu, why in sorted(bad.items()):
            holder = next((job.ref for job in jobs if (job.gpus or {}).get(node, 0) >> gpu & 1), None)
            sits = f"; job {holder} holds it" if holder is not None else ""
            told.append(f"GPU {gpu} of {node} has failed and is not given out: {why}{sits}")
    return told


def _strays(seen: dict[str, Seen], order: dict[str, dict[int, int]], jobs: Sequence[Job]) -> list[str]:
    """Jobs whose processes are on a GPU that Slurm did not give to them. Array tasks have another number there: left out."""
    held = {job.ref: job.gpus for job in jobs if job.gpus is not None}
    told: list[str] = []
    for node, known in order.items():
        samples = {info.index: sample for info, sample in zip(seen[node].gpus, seen[node].samples, strict=True)}
        for gpu, index in known.items():
            found = [use.job for use in samples[index].jobs or () if use.job in held]
            strays = [job for job in found if not held[job].get(node, 0) >> gpu & 1]
            told += [f"job {job} runs on GPU {gpu} of {node}, which Slurm did not give to it" for job in strays]
    return told[:8]
