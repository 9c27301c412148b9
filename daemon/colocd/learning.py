"""What coloc learns of services: minutes of their replicas become capacity, past starts lead time, rises of the load a margin.

Kept in the store (`learned`), so a restart loses ten minutes at most.
"""

from collections.abc import Mapping

import msgspec

from colocd.core.capacity import Carries, Knowledge, Minute, carries, learn
from colocd.core.lead import KEPT, Lead, Start, lead_of
from colocd.core.service import ServiceSpec
from colocd.core.surge import Rises, Surge, SurgeWatch
from colocd.core.view import Reading
from colocd.store.port import Store
from colocd.store.records import Handover, Learned
from colocd.telemetry.load import WHOLE, ServiceLoad
from colocd.telemetry.meter import Metered

CAPACITY, LEAD, RISES = "capacity", "lead", "rises"
MINUTE = 60.0
SAVE_EVERY = 600.0
_MOST_MINUTES = 2000
"""Minutes of one service that wait to be learned from."""


class _Sum:
    """A replica's readings of the minute under way; `sharing`: over how many alike replicas they are spread."""

    def __init__(self, at: float, sharing: int) -> None:
        self.since, self.sharing = at, sharing
        self.meters: list[Metered] = []
        self.loads: list[float] = []

    def minute(self) -> Minute:
        """All of them as one."""
        last = self.meters[-1]
        lengths = {
            name: tuple(
                (value, share * spread.total)
                for meter in self.meters
                if (spread := getattr(meter, f"new_{name}")) is not None and spread.total > 0
                for value, share in spread.shares()
            )
            for name in ("outputs", "prompts")
        }
        running, waiting, queued = (self._mean(name) for name in ("running", "waiting", "queued"))
        return Minute(
            load=sum(self.loads) / len(self.loads) / self.sharing,
            concurrency=None if running is None else (running + (waiting or 0.0)) / self.sharing,
            queued=None if queued is None else queued / self.sharing,
            kv_use=self._mean("kv_use"),
            kv_tokens=None if last.kv_tokens is None else last.kv_tokens / self.sharing,
            preempted=self._mean("preempted"),
            ttft=last.ttft,
            itl=last.itl,
            **lengths,
        )

    def _mean(self, name: str) -> float | None:
        known = [value for meter in self.meters if (value := getattr(meter, name)) is not None]
        return sum(known) / len(known) if known else None


class Learner:
    """Watches loads and answers with what was learned."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Knowledge] | None = None
        self._starts: dict[str, list[Start]] = {}
        self._sums: dict[tuple[str, int], _Sum] = {}
        self._minutes: dict[str, list[Minute]] = {}
        self._saved: dict[str, float] = {}
        self._watches: dict[str, SurgeWatch] = {}
        self._rises: dict[str, Learned] | None = None

    def watch(self, specs: Mapping[str, ServiceSpec], loads: Mapping[str, ServiceLoad], at: float) -> None:
        """Take the readings of a cycle over; writes to the store now and then."""
        known = self._read()
        self._starts = {name: _starts(row) for name, row in self._store.learned(LEAD).items()}
        for name in set(known) - set(specs):
            del known[name]
        for name in set(self._watches) - set(specs):
            del self._watches[name]
        for name, spec in specs.items():
            load = loads[name]
            for slot, meter in load.meters.items():
                value, sharing = load.replicas.get(slot), 1
                if slot == WHOLE:
                    value, sharing = None if load.reading is None else load.reading.value, load.sharing
                if sharing == 0 or meter.doubt is not None or value is None:
                    self._sums.pop((name, slot), None)
                    continue
                self._add(name, slot, meter, value, sharing, at)
            if at - self._saved.setdefault(name, at) >= SAVE_EVERY:
                self._save(spec, at)

    def _add(self, name: str, slot: int, meter: Metered, value: float, sharing: int, at: float) -> None:
        found = self._sums.get((name, slot))
        if found is None or found.sharing != sharing:
            found = self._sums[name, slot] = _Sum(at, sharing)
        found.meters.append(meter)
        found.loads.append(value)
        if not 0 <= at - found.since < MINUTE:
            minutes = self._minutes.setdefault(name, [])
            if len(minutes) < _MOST_MINUTES:
                minutes.append(found.minute())
            del self._sums[name, slot]

    def _save(self, spec: ServiceSpec, at: float) -> None:
        known = self._read()
        minutes = self._minutes.pop(spec.name, [])
        self._saved[spec.name] = at
        if minutes or spec.name in known:
            known[spec.name] = made = learn(known.get(spec.name), spec, minutes, at)
            row = Learned(service=spec.name, topic=CAPACITY, at=at, data=msgspec.to_builtins(made, str_keys=True))
            self._store.put_learned(row)
        watch = self._watches.get(spec.name)
        if watch is not None and watch.known is not None:
            data = msgspec.to_builtins(watch.known, str_keys=True)
            self._store.put_learned(Learned(service=spec.name, topic=RISES, at=at, data=data))

    def _read(self) -> dict[str, Knowledge]:
        if self._known is None:
            found = {}
            for name, row in self._store.learned(CAPACITY).items():
                try:
                    found[name] = msgspec.convert(row.data, Knowledge, str_keys=True)
                except msgspec.ValidationError:
                    continue  # another release's: learned anew
            self._known = found
        return self._known

    def capacity(self, spec: ServiceSpec) -> Carries:
        """What one replica of the service carries."""
        return carries(self._read().get(spec.name), spec)

    def lead(self, spec: ServiceSpec, kill_wait: float | None = None) -> Lead:
        """How long it takes from a decision to a ready replica; `kill_wait`: see `lead_of`."""
        return lead_of(self._starts.get(spec.name, ()), spec, kill_wait)

    def surge(self, spec: ServiceSpec, load: Reading | None, lead: float, quantile: float, at: float) -> Surge | None:
        """Take the reading over (None: unknown) and say what it may grow by within `lead` seconds; None: not known."""
        watch = self._watches.get(spec.name)
        if watch is None:
            watch = self._watches[spec.name] = SurgeWatch(spec.season, self._known_rises(spec))
        if load is None:
            return None
        floor = self.capacity(spec).per_replica * spec.capacity.target_use / 2
        watch.see(at, load.value, lead, floor)
        return watch.surge(at, load.value, lead, floor, quantile)

    def _known_rises(self, spec: ServiceSpec) -> Rises | None:
        if self._rises is None:
            self._rises = self._store.learned(RISES)
        row = self._rises.pop(spec.name, None)
        try:
            found = None if row is None else msgspec.convert(row.data, Rises, str_keys=True)
        except msgspec.ValidationError:
            return None  # another release's: learned anew
        return found


def remember_start(store: Store, handover: Handover, ready_at: float) -> None:
    """Write down how long a replica took that is ready now."""
    times = handover.data.get("t", {})
    freed, placed = times.get("freed"), times.get("placed")
    if not isinstance(freed, int | float) or not isinstance(placed, int | float):
        return
    requeued = times.get("requeued")
    waited = float(handover.data.get("waited") or 0.0)  # for its victims' own moments, with time to spare
    ending = freed - requeued if handover.victims and isinstance(requeued, int | float) else None
    start = Start(
        at=ready_at,
        reclaim=freed - handover.created_at - waited,
        start=placed - freed,
        ready=ready_at - placed,
        ending=ending,
    )
    if min(start.reclaim, start.start, start.ready) < 0:
        return  # the clock was set back meanwhile
    old = store.learned(LEAD).get(handover.service)
    starts = [*([] if old is None else _starts(old)), start][-KEPT:]
    data = {"starts": msgspec.to_builtins(starts)}
    store.put_learned(Learned(service=handover.service, topic=LEAD, at=ready_at, data=data))


def _starts(row: Learned) -> list[Start]:
    try:
        return msgspec.convert(row.data.get("starts", []), list[Start])
    except msgspec.ValidationError:
        return []
