"""A virtual cluster on which coloc's own plan serves recorded loads and fills the rest with batch jobs: `replay`.

No Slurm and no daemon: each minute a view is made, `colocd.core.plan.plan` decides, and what it decides happens. A replica
is ready one lead time after its decision, and holds its GPUs from then on; victims are gone at once.
Arms differ only in what they see and in their rules.
"""

import random
import sys
from collections.abc import Sequence

import msgspec
from bench.replay_arms import LEAD, STEP, Arm, Tide

from coloc_topology.shape import quads
from colocd.core.actions import Drain, Hold, Place, Release
from colocd.core.foresight.calendar import DAY, Calendar
from colocd.core.foresight.outlook import Outlook
from colocd.core.index import PlannerIndex
from colocd.core.need import need
from colocd.core.plan import plan
from colocd.core.policy import Policy
from colocd.core.surge import Surge, SurgeWatch
from colocd.core.view import (
    Checkpoint,
    Forecast,
    Held,
    Job,
    JobFacts,
    JobState,
    Node,
    Reading,
    Replica,
    ReplicaState,
    ServiceView,
    View,
)

WAITING = 10
"""Batch jobs that always wait."""
SHAPE = quads()
Told = tuple[Forecast | None, Surge | None]
"""What is foreseen of a service, and what its load may grow by."""


class Result(msgspec.Struct):
    """Totals of one arm; `short` and `unserved` by service: minutes with capacity below demand, share of the demand beyond it."""

    short: dict[str, int]
    unserved: dict[str, float]
    batch_hours: float = 0.0
    lost_hours: float = 0.0
    replica_hours: float = 0.0
    evictions: int = 0
    refused: int = 0
    """Minutes in which a service lacked a replica and the plan had no place for it."""


class _Batch:
    """A batch job: `work` seconds are left to do; None as `since`: it waits."""

    def __init__(self, number: int, rng: random.Random) -> None:
        self.ref, self.gpus = str(number), rng.choice((1, 1, 2, 2, 4))
        self.work = 600.0 * 48 ** rng.random()  # 10 min to 8 h, as many per octave
        self.mark = Checkpoint(signal="USR1" if number % 2 else None, to="batch", interval=1800.0, cost=30.0)
        self.submitted = float(number)
        self.since: float | None = None
        self.place = ("", 0)
        self.facts = JobFacts()

    def saved(self, at: float) -> float:
        """When it saved last; those that save when asked have just done so, at the cost of a save."""
        assert self.since is not None
        if self.mark.signal is not None:
            return max(self.since, at - 30.0)
        return self.since + (at - self.since) // 1800.0 * 1800.0

    def job(self, at: float) -> Job:
        mark = self.mark if self.since is None else msgspec.structs.replace(self.mark, saved=self.saved(at))
        return Job(
            ref=self.ref, user=f"u{int(self.ref) % 5}", name="train", partition="batch", checkpoint=mark,
            submitted=self.submitted, state=JobState.PENDING if self.since is None else JobState.RUNNING, gpus_per_node=self.gpus,
            gpus_requested=self.gpus, gpus={} if self.since is None else dict([self.place]), started=self.since,
            held=Held.USER if self.since is None else Held.NO,
        )  # fmt: skip


class _World:
    """One arm's cluster."""

    def __init__(self, arm: Arm, tides: Sequence[Tide], nodes: int, begin: float, seed: int) -> None:
        self.arm, self.tides, self.begin = arm, tides, begin
        self.used = {f"n{i:02d}": 0 for i in range(nodes)}
        self.replicas: list[Replica] = []
        self.ends: dict[tuple[str, int], float] = {}
        self.low: dict[str, float] = {}
        self.seen: dict[str, list[float]] = {t.spec.name: [] for t in tides}
        self.rng, self.number = random.Random(seed), 0
        self.waiting: list[_Batch] = []
        self.running: dict[str, _Batch] = {}
        self.index = PlannerIndex()
        self.evicted, self.lost = 0, 0.0
        names = [t.spec.name for t in tides]
        self.result = Result(short=dict.fromkeys(names, 0), unserved=dict.fromkeys(names, 0.0))

    def minute(self, m: int, forecasts: Sequence[Told], scored: bool) -> None:
        at = self.begin + m * STEP
        self._pass(at)
        if scored:
            self._score(m)
        views = tuple(self._service(i, m, at, forecasts[i]) for i in range(len(self.tides)))
        self._queue()
        view = View(
            at=at, mode="act", policy=self.arm.policy, shapes={SHAPE.name: SHAPE}, services=views,
            nodes=tuple(
                Node(name=n, address=n, up=True, gpus=8, used=used, shape=SHAPE.name, partitions=("batch", "online"))
                for n, used in self.used.items()
            ),
            jobs=tuple(b.job(at) for b in (*self.running.values(), *self.waiting)),
            facts={b.ref: b.facts for b in (*self.running.values(), *self.waiting)},
        )  # fmt: skip
        done = plan(view, self.index)
        started, before = 0, (self.evicted, self.lost)
        for action in done.actions:
            if isinstance(action, Place):
                self._place(action, at)
                started += 1
            elif isinstance(action, Drain):
                self._drain(action, at)
            elif isinstance(action, Release):
                self._release(action, at)
            else:
                assert not isinstance(action, Hold), "released jobs start at once here"
        if scored:
            lacks = sum(max(0, n.now - n.have) for n in done.needs)
            self.result.refused += lacks > started
            self.result.evictions += self.evicted - before[0]
            self.result.lost_hours += self.lost - before[1]
            self.result.batch_hours += sum(b.gpus for b in self.running.values()) * STEP / 3600
            self.result.replica_hours += (
                sum(g.bit_count() for r in self.replicas for g in r.places.values()) * STEP / 3600
            )

    def _pass(self, at: float) -> None:
        """What ends or becomes ready by itself."""
        for ref, b in list(self.running.items()):
            if b.since is not None and b.since + b.work <= at:
                self._leave(ref)
        kept = []
        for r in self.replicas:
            due = self.ends.get((r.service, r.slot), at + 1)
            if r.state is ReplicaState.DRAINING and due <= at:
                for node, gpus in r.places.items():
                    self.used[node] &= ~gpus
            elif r.state is ReplicaState.STARTING and due <= at:
                kept.append(msgspec.structs.replace(r, state=ReplicaState.READY))
            else:
                kept.append(r)
        self.replicas = kept

    def _score(self, m: int) -> None:
        for t in self.tides:
            name, load = t.spec.name, float(t.demand[m])
            carried = t.spec.capacity.per_replica * self._ready(name)
            self.result.short[name] += load > carried * (1 + 1e-9)
            self.result.unserved[name] += max(0.0, load - carried)

    def _ready(self, name: str) -> int:
        return sum(r.service == name and r.state is ReplicaState.READY for r in self.replicas)

    def _service(self, i: int, m: int, at: float, told: Told) -> ServiceView:
        spec, seen = self.tides[i].spec, self.arm.see(i, m, *told)
        ready, past = max(1, self._ready(spec.name)), self.seen[spec.name]
        past.append(seen.load)
        del past[: -round(self.arm.policy.scale_down_after / STEP) - 1]
        each = float(self.tides[i].demand[m]) / ready
        view = ServiceView(
            spec=spec, load=Reading(float(seen.load), at), forecast=seen.forecast, surge=seen.surge, recent=float(max(past)),
            replicas=tuple(
                msgspec.structs.replace(r, load=each if r.state is ReplicaState.READY else None)
                for r in self.replicas if r.service == spec.name
            ),
        )  # fmt: skip
        wanted = need(view, self.arm.policy, at)
        if wanted.have <= wanted.now:
            self.low.pop(spec.name, None)
        else:
            self.low.setdefault(spec.name, at)
        return msgspec.structs.replace(view, low_since=self.low.get(spec.name))

    def _queue(self) -> None:
        while len(self.waiting) < WAITING:
            self.number += 1
            self.waiting.append(_Batch(self.number, self.rng))

    def _place(self, action: Place, at: float) -> None:
        for ref in action.victims:
            b = self.running[ref]
            assert b.since is not None
            saved = b.saved(at)
            self.lost += (at - saved) * b.gpus / 3600
            b.work -= saved - b.since
            b.facts = msgspec.structs.replace(
                b.facts, evictions=b.facts.evictions + 1, evicted_at=at, ours=True, ran=b.facts.ran + at - b.since
            )
            self._leave(ref)
            b.since = None
            self.waiting.append(b)
            self.evicted += 1
        for node, gpus in action.places.items():
            assert not self.used[node] & gpus
            self.used[node] |= gpus
        (node,) = action.places
        self.ends[action.service, action.slot] = at + LEAD
        self.replicas.append(
            Replica(
                service=action.service,
                slot=action.slot,
                state=ReplicaState.STARTING,
                job="1",
                node=node,
                places=action.places,
                level=action.level,
                since=at,
            )
        )

    def _leave(self, ref: str) -> None:
        b = self.running.pop(ref)
        self.used[b.place[0]] &= ~b.place[1]

    def _drain(self, action: Drain, at: float) -> None:
        for i, r in enumerate(self.replicas):
            if (r.service, r.slot) == (action.service, action.slot):
                self.replicas[i] = msgspec.structs.replace(r, state=ReplicaState.DRAINING)
                self.ends[r.service, r.slot] = at + STEP

    def _release(self, action: Release, at: float) -> None:
        """Start it as Slurm would: lowest GPUs of one socket if it has enough, else the lowest of the node."""
        b = next(b for b in self.waiting if b.ref == action.job)
        for node in action.nodes or tuple(self.used):
            free = 0xFF & ~self.used[node]
            if free.bit_count() < b.gpus:
                continue
            room = next((free & s for s in (0x0F, 0xF0) if (free & s).bit_count() >= b.gpus), free)
            mask = 0
            while mask.bit_count() < b.gpus:
                left = room & ~mask
                mask |= left & -left
            self.waiting.remove(b)
            self.used[node] |= mask
            b.since, b.place, self.running[b.ref] = at, (node, mask), b
            b.facts = msgspec.structs.replace(b.facts, released_at=at, ever_released=True)
            return


def replay(
    tides: Sequence[Tide], arms: Sequence[Arm], nodes: int, begin: float, warm: int, minutes: int, seed: int = 1
) -> list[Result]:
    """Drive all arms side by side over `warm` minutes that do not count and `minutes` that do."""
    worlds = [_World(arm, tides, nodes, begin, seed) for arm in arms]
    outlooks = [Outlook(600.0, DAY, Calendar()) for _ in tides]
    watches = [SurgeWatch(DAY) for _ in tides]
    for m in range(warm + minutes):
        if m % 1440 == 0 and m:
            print(f"day {m // 1440} is over", file=sys.stderr, flush=True)
        at = begin + m * STEP
        forecasts = []
        for tide, outlook, watch in zip(tides, outlooks, watches, strict=True):
            outlook.feed(tide.history, at)  # reads only buckets that ended before `at`
            load, floor = float(tide.demand[m]), tide.spec.capacity.per_replica / 2
            found = outlook.forecast(Reading(load, at), at)
            watch.see(at, load, LEAD, floor)
            surge = watch.surge(at, load, LEAD, floor, Policy().surge_quantile)
            # No job and no start here looks further than an hour: three are enough, and quicker.
            found = found and msgspec.structs.replace(found, points=found.points[:13])
            forecasts.append((found, surge))
        for world in worlds:
            world.minute(m, forecasts, m >= warm)
    for world in worlds:
        for tide in tides:
            world.result.unserved[tide.spec.name] /= float(tide.demand[warm : warm + minutes].sum())
    return [world.result for world in worlds]
