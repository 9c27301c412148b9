"""From samples to load: what a service's replicas carry now, by the measure its owner chose. No I/O, no clock."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import assert_never

import msgspec

from coloc_topology.shape import idx
from colocd.core.service import Measure, ServiceSpec
from colocd.core.view import Reading, Replica, ReplicaState
from colocd.telemetry.meter import Meter, Metered
from colocd.telemetry.scrape import Failure
from colocd.telemetry.serving import ServingSample
from colocd.telemetry.targets import per_replica

Answer = ServingSample | Failure
Key = tuple[str, int | None]
REASONS = 3
"""Sentences about the silent replicas of one service: a network that fails must not bury everything else."""
WHOLE = -1
"""Stands for the whole service where slots are keys."""


class ServiceLoad(msgspec.Struct, frozen=True):
    """Load of a service and of its replicas by slot. None: unknown; `problems` says why, one sentence each.

    `idle`: slots that are known to have no request at all, running or waiting, whatever the measure is. (A rate of 0 is not
    that: some servers count tokens only when a request ends.)
    """

    reading: Reading | None
    replicas: Mapping[int, float | None]
    problems: tuple[str, ...] = ()
    idle: frozenset[int] = frozenset()
    meters: Mapping[int, Metered] = msgspec.field(default_factory=dict)
    """What each replica (slot; -1: the whole service) tells beside its load."""
    parts: Mapping[str, float] = msgspec.field(default_factory=dict)
    """The load's components that are known of all ready replicas: `concurrency`, `prompt`, `generation` (tokens/s)."""
    sharing: int = 0
    """A load read as a whole: ready replicas that share it evenly, as far as one can tell; 0: one cannot (some come or go)."""


def not_ready(service: str) -> str:
    """The sentence for a service of which no replica is ready."""
    return f"service {service}: no replica is ready, so its load cannot be read"


def silences(service: str, silent: Mapping[str, Sequence[int]]) -> tuple[str, ...]:
    """A sentence for each reason why ready replicas (slots) tell no load, the commonest first; few, however many they are."""
    told = []
    for why, slots in sorted(silent.items(), key=lambda found: (-len(found[1]), found[1]))[:REASONS]:
        who = f"replica {slots[0]}" if len(slots) == 1 else f"replicas {idx(sum(1 << slot for slot in slots))}"
        told.append(f"service {service}: load of {who} is unknown: {why}")
    left = sum(map(len, silent.values())) - sum(map(len, sorted(silent.values(), key=len, reverse=True)[:REASONS]))
    return (
        (*told, f"service {service}: load of {left} more replicas is unknown, for other reasons")
        if left
        else tuple(told)
    )


class LoadReader:
    """Remembers the readings of the endpoints it is shown, and nothing else.

    A rate is taken over at least `min_gap` and at most `max_gap` monotonic seconds, so a jump of the wall clock does no harm;
    over a longer hole there is no rate.
    """

    def __init__(self, *, min_gap: float = 1.0, max_gap: float = 180.0) -> None:
        self._min_gap = min_gap
        self._max_gap = max_gap
        self._meters: dict[Key, Meter] = {}

    def read(self, spec: ServiceSpec, replicas: Iterable[Replica], answers: Mapping[Key, Answer]) -> ServiceLoad:
        """Turn one round of answers (keys as in `load_targets`) into the load of the service.

        The sum is over all replicas that told their load. When a READY one did not, or none is there at all, the service's
        load is None: a partial sum would look like a valley. Samples need `at` and `tick`.
        """
        mine = [replica for replica in replicas if replica.service == spec.name]
        if not per_replica(spec.load.url):
            return self._whole(spec, mine, answers.get((spec.name, None)))
        self._forget(spec.name, {replica.slot for replica in mine})
        values: dict[int, float | None] = {}
        meters: dict[int, Metered] = {}
        times: list[float] = []
        silent: dict[str, list[int]] = {}
        ready = {replica.slot for replica in mine if replica.state is ReplicaState.READY}
        missing = not ready
        for replica in mine:
            if replica.state in (ReplicaState.PLACING, ReplicaState.GONE):
                values[replica.slot] = None
                continue
            answer = answers.get((spec.name, replica.slot))
            meter, why = self._meter((spec.name, replica.slot), replica.job, answer)
            value = None
            if meter is not None:
                meters[replica.slot] = meter
                value, why = _value(spec.load.measure, meter, answer)
            values[replica.slot] = value
            if value is not None and isinstance(answer, ServingSample) and answer.at is not None:
                times.append(answer.at)
            elif replica.slot in ready:
                missing = True
                silent.setdefault(why, []).append(replica.slot)
        problems = silences(spec.name, silent) if ready else (not_ready(spec.name),)
        idle = frozenset(slot for slot, meter in meters.items() if _idle(meter))
        known = [value for value in values.values() if value is not None]
        reading = None if missing else Reading(math.fsum(known), min(times))
        return ServiceLoad(reading, values, problems, idle, meters, _parts(meters, ready))

    def forget(self, service: str) -> None:
        """Drop what is remembered of a removed service."""
        self._forget(service, set())

    def _whole(self, spec: ServiceSpec, mine: Sequence[Replica], answer: Answer | None) -> ServiceLoad:
        self._forget(spec.name, {None})
        meter, why = self._meter((spec.name, None), None, answer)
        value = None
        if meter is not None:
            value, why = _value(spec.load.measure, meter, answer)
        if meter is None or value is None or not isinstance(answer, ServingSample) or answer.at is None:
            return ServiceLoad(None, {}, (f"service {spec.name}: load is unknown: {why}",))
        serving = [r for r in mine if r.state not in (ReplicaState.PLACING, ReplicaState.GONE)]
        sharing = len(serving) if all(r.state is ReplicaState.READY for r in serving) else 0
        parts = _parts({WHOLE: meter}, {WHOLE})
        return ServiceLoad(Reading(value, answer.at), {}, meters={WHOLE: meter}, parts=parts, sharing=sharing)

    def _meter(self, key: Key, job: str | None, answer: Answer | None) -> tuple[Metered | None, str]:
        """What one endpoint does and, when that is None, the reason."""
        if answer is None:
            return None, "it was not read"
        if isinstance(answer, Failure):
            return None, answer.reason
        if answer.at is None or answer.tick is None:
            return None, "the sample has no time"
        meter = self._meters.setdefault(key, Meter(self._min_gap, self._max_gap))
        return meter.take(job, answer, answer.tick), ""

    def _forget(self, service: str, keep: set[int] | set[None]) -> None:
        for key in [key for key in self._meters if key[0] == service and key[1] not in keep]:
            del self._meters[key]


def _value(measure: Measure, meter: Metered, answer: Answer | None) -> tuple[float | None, str]:
    """Load by the measure and, when that is None, the reason."""
    if meter.doubt is not None:
        return None, meter.doubt
    facts: tuple[str, ...]
    parts: tuple[float | None, ...]
    match measure:
        case Measure.CONCURRENCY:
            facts, parts = ("running", "waiting"), (meter.running, meter.waiting)
        case Measure.TOKENS:
            facts, parts = ("prompt_tokens_total", "generation_tokens_total"), (meter.prompt, meter.generation)
        case Measure.GENERATED:
            facts, parts = ("generation_tokens_total",), (meter.generation,)
        case Measure.PROMPT:
            facts, parts = ("prompt_tokens_total",), (meter.prompt,)
        case Measure.BUSY:
            return None, "it is read from the GPUs"  # by `busy_load`
        case _:
            assert_never(measure)
    known = [part for part in parts if part is not None]
    if len(known) == len(parts):
        return math.fsum(known), ""
    reasons = answer.reasons if isinstance(answer, ServingSample) else {}
    return None, next((reasons[fact] for fact in facts if fact in reasons), meter.why)


def _parts(meters: Mapping[int, Metered], ready: Collection[int]) -> dict[str, float]:
    """Sums of what every ready replica tells; a component that one of them does not tell is left out."""
    mine = [meters.get(slot) for slot in ready]
    found: dict[str, float] = {}
    for name in ("concurrency", "prompt", "generation"):
        told = [None if m is None or m.doubt is not None else _component(m, name) for m in mine]
        known = [value for value in told if value is not None]
        if known and len(known) == len(told):
            found[name] = math.fsum(known)
    return found


def _component(meter: Metered, name: str) -> float | None:
    if name != "concurrency":
        return meter.prompt if name == "prompt" else meter.generation
    return None if meter.running is None or meter.waiting is None else meter.running + meter.waiting


def _idle(meter: Metered) -> bool:
    return meter.doubt is None and meter.running == 0 and meter.waiting == 0
