"""From samples to load: what a service's replicas carry now, by the measure its owner chose. No I/O, no clock."""

import math
from collections.abc import Iterable, Mapping
from typing import assert_never

import msgspec

from colocd.core.service import Measure, ServiceSpec
from colocd.core.view import Reading, Replica, ReplicaState
from colocd.telemetry.scrape import Failure
from colocd.telemetry.serving import ServingSample
from colocd.telemetry.targets import per_replica

Answer = ServingSample | Failure
Key = tuple[str, int | None]


class ServiceLoad(msgspec.Struct, frozen=True):
    """Load of a service and of its replicas by slot. None: unknown; `problems` says why, one sentence each.

    `idle`: slots that are known to have no request at all, running or waiting, whatever the measure is. (A rate of 0 is not
    that: some servers count tokens only when a request ends.)
    """

    reading: Reading | None
    replicas: Mapping[int, float | None]
    problems: tuple[str, ...] = ()
    idle: frozenset[int] = frozenset()


class _Count(msgspec.Struct):
    """Where the counters of one endpoint stood, and the rates of the last interval."""

    job: str | None
    tick: float
    prompt: float | None
    generated: float | None
    rates: tuple[float | None, float | None] = (None, None)
    why: str = "first sample: a rate needs two"


class LoadReader:
    """Remembers the counters of the endpoints it is shown, and nothing else.

    A rate is taken over at least `min_gap` and at most `max_gap` monotonic seconds, so a jump of the wall clock does no harm;
    over a longer hole there is no rate.
    """

    def __init__(self, *, min_gap: float = 1.0, max_gap: float = 180.0) -> None:
        self._min_gap = min_gap
        self._max_gap = max_gap
        self._counts: dict[Key, _Count] = {}

    def read(self, spec: ServiceSpec, replicas: Iterable[Replica], answers: Mapping[Key, Answer]) -> ServiceLoad:
        """Turn one round of answers (keys as in `load_targets`) into the load of the service.

        The sum is over all replicas that told their load. When a READY one did not, or none is there at all, the service's
        load is None: a partial sum would look like a valley. Samples need `at` and `tick`.
        """
        mine = [replica for replica in replicas if replica.service == spec.name]
        if not per_replica(spec.load.url):
            return self._whole(spec, answers.get((spec.name, None)))
        self._forget(spec.name, {replica.slot for replica in mine})
        values: dict[int, float | None] = {}
        times: list[float] = []
        problems: list[str] = []
        missing = not any(replica.state is ReplicaState.READY for replica in mine)
        if missing:
            problems.append(f"service {spec.name}: no replica is ready, so its load cannot be read")
        for replica in mine:
            if replica.state in (ReplicaState.PLACING, ReplicaState.GONE):
                values[replica.slot] = None
                continue
            answer = answers.get((spec.name, replica.slot))
            value, why = self._one(spec, (spec.name, replica.slot), replica.job, answer)
            values[replica.slot] = value
            if value is not None and isinstance(answer, ServingSample) and answer.at is not None:
                times.append(answer.at)
            elif replica.state is ReplicaState.READY:
                missing = True
                problems.append(f"service {spec.name}: load of replica {replica.slot} is unknown: {why}")
        idle = frozenset(replica.slot for replica in mine if _idle(answers.get((spec.name, replica.slot))))
        known = [value for value in values.values() if value is not None]
        reading = None if missing else Reading(math.fsum(known), min(times))
        return ServiceLoad(reading, values, tuple(problems), idle)

    def forget(self, service: str) -> None:
        """Drop what is remembered of a removed service."""
        self._forget(service, set())

    def _whole(self, spec: ServiceSpec, answer: Answer | None) -> ServiceLoad:
        self._forget(spec.name, {None})
        value, why = self._one(spec, (spec.name, None), None, answer)
        if value is None or not isinstance(answer, ServingSample) or answer.at is None:
            return ServiceLoad(None, {}, (f"service {spec.name}: load is unknown: {why}",))
        return ServiceLoad(Reading(value, answer.at), {})

    def _one(self, spec: ServiceSpec, key: Key, job: str | None, answer: Answer | None) -> tuple[float | None, str]:
        """Load of one endpoint and, when that is None, the reason."""
        if answer is None:
            return None, "it was not read"
        if isinstance(answer, Failure):
            return None, answer.reason
        if answer.at is None or answer.tick is None:
            return None, "the sample has no time"
        measure = spec.load.measure
        match measure:
            case Measure.CONCURRENCY:
                return self._sum(answer, ("running", "waiting"), (answer.running, answer.waiting))
            case Measure.TOKENS:
                (prompt, generated), why = self._rates(key, job, answer, answer.tick)
                facts = ("prompt_tokens_total", "generation_tokens_total")
                value, reason = self._sum(answer, facts, (prompt, generated))
                return value, reason or why
            case Measure.GENERATED:
                (_, generated), why = self._rates(key, job, answer, answer.tick)
                value, reason = self._sum(answer, ("generation_tokens_total",), (generated,))
                return value, reason or why
            case _:
                assert_never(measure)

    @staticmethod
    def _sum(
        answer: ServingSample, facts: tuple[str, ...], parts: tuple[float | None, ...]
    ) -> tuple[float | None, str]:
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return math.fsum(known), ""
        return None, next((answer.reasons[fact] for fact in facts if fact in answer.reasons), "")

    def _rates(
        self, key: Key, job: str | None, answer: ServingSample, tick: float
    ) -> tuple[tuple[float | None, float | None], str]:
        new = _Count(job, tick, answer.prompt_tokens_total, answer.generation_tokens_total)
        old = self._counts.get(key)
        if old is None or old.job != job:
            self._counts[key] = new
            return new.rates, new.why
        gap = tick - old.tick
        if 0 <= gap < self._min_gap:
            return old.rates, old.why  # too short for a rate: the last one still holds
        self._counts[key] = new
        if gap < 0 or gap > self._max_gap:
            new.why = "the last sample is too old for a rate"
        elif _fell(old.prompt, new.prompt) or _fell(old.generated, new.generated):
            new.why = "its counters started again (the server was restarted)"
        else:
            new.rates = (_rate(old.prompt, new.prompt, gap), _rate(old.generated, new.generated, gap))
            new.why = "a counter was missing in the last sample"
        return new.rates, new.why

    def _forget(self, service: str, keep: set[int] | set[None]) -> None:
        for key in [key for key in self._counts if key[0] == service and key[1] not in keep]:
            del self._counts[key]


def _idle(answer: Answer | None) -> bool:
    return isinstance(answer, ServingSample) and answer.running == 0 and answer.waiting == 0


def _fell(old: float | None, new: float | None) -> bool:
    return old is not None and new is not None and new < old


def _rate(old: float | None, new: float | None, gap: float) -> float | None:
    return None if old is None or new is None else (new - old) / gap
