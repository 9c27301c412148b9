"""What one replica carries: learned from what replicas carried well and badly, slowly, and with a reason in words. Pure.

A minute of a replica is *bad* when its service level was missed or it was full, else *good*. Loads are sorted into bins of 10 %;
the capacity is the load below which nine of ten minutes were good. It moves by at most half in a day and stays within a third and
three times what the owner configured, so a metric that lies cannot halve or double it at once.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import msgspec

from colocd.core.kvpeak import Lengths, requests_that_fit
from colocd.core.service import Measure, ServiceSpec, Slo

BIN = 1.1
"""Ratio of a bin's upper to its lower edge."""
ENOUGH = 60.0
"""Minutes of load that must have been seen before the configured number is left."""
ENOUGH_BAD = 5.0
"""Bad minutes above a limit before it counts as one."""
ENOUGH_REQUESTS = 50.0
"""Ended requests whose lengths must be known before the KV memory is judged."""
BAD_SHARE = 0.1
HALF_LIFE = 14 * 86400.0
"""A minute counts half as much after this long: models, prompts and servers change."""
PER_DAY = 1.5
"""Largest ratio by which the capacity moves in a day."""
LIMIT = 3.0
"""Largest ratio between the learned and the configured capacity."""
FULL = 0.95
"""KV use from which a replica counts as full."""
LATE, SLOW = "first tokens came late", "tokens came slowly"
_LONGEST = 3600.0
"""Seconds of movement at most that one update makes up for: after a long pause the capacity does not jump."""


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """One replica over about a minute; None: unknown. `load` is in units of the service's measure.

    `queued`: requests that waited because it was full. `ttft`, `itl`: seconds that nine of ten requests stayed below. `outputs`,
    `prompts`: lengths in tokens and numbers of the requests that ended.
    """

    load: float
    concurrency: float | None = None
    queued: float | None = None
    kv_use: float | None = None
    kv_tokens: float | None = None
    preempted: float | None = None
    ttft: float | None = None
    itl: float | None = None
    outputs: Lengths = ()
    prompts: Lengths = ()


class Knowledge(msgspec.Struct, frozen=True, kw_only=True):
    """What is learned of a service. `bins[i]`: good and bad minutes at loads around 1.1^i; counts fade with `HALF_LIFE`.

    `key` changes with what a replica is: then all begins anew. `capacity`: what is planned with, before `target_use`.
    """

    key: str
    at: float
    capacity: float
    bins: dict[int, tuple[float, float]] = msgspec.field(default_factory=dict)
    outputs: dict[int, float] = msgspec.field(default_factory=dict)
    prompts: dict[int, float] = msgspec.field(default_factory=dict)
    kv_tokens: float | None = None
    load_sum: float = 0.0
    concurrency_sum: float = 0.0
    why_bad: dict[str, float] = msgspec.field(default_factory=dict)


class Carries(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica carries, in units of the load's measure, and the sentence that explains it."""

    per_replica: float
    learned: bool
    why: str


def key_of(spec: ServiceSpec) -> str:
    """Names what a replica is and promises: with another script, size, measure or promise nothing of the old capacity holds."""
    text = f"{spec.gpus_per_replica}/{spec.nodes}/{spec.load.measure}/{spec.load.server}/{spec.capacity.per_replica}"
    slo = "" if spec.slo == Slo() else f"/{spec.slo.ttft}/{spec.slo.tpot}"
    return f"{text}/{zlib.crc32(spec.script.encode('utf-8', 'surrogatepass')):08x}{slo}"


def fault(minute: Minute, spec: ServiceSpec) -> str | None:
    """Why the minute was bad; None: it was good. Prefill groups answer for the first token only, decode groups for the others."""
    slo, measure = spec.slo, spec.load.measure
    if slo.ttft is not None and minute.ttft is not None and minute.ttft > slo.ttft and measure is not Measure.GENERATED:
        return LATE
    if slo.tpot is not None and minute.itl is not None and minute.itl > slo.tpot and measure is not Measure.PROMPT:
        return SLOW
    if (minute.queued or 0.0) >= 1.0:
        return "requests waited for room"
    if (minute.preempted or 0.0) > 0.0:
        return "requests were preempted"
    return "the KV cache was full" if (minute.kv_use or 0.0) >= FULL else None


def judged(minute: Minute) -> bool:
    """Whether anything is known by which the minute can be called good."""
    return any(x is not None for x in (minute.ttft, minute.itl, minute.queued, minute.kv_use))


def learn(old: Knowledge | None, spec: ServiceSpec, minutes: Sequence[Minute], at: float) -> Knowledge:
    """Add minutes to what is known and move the capacity a little towards what they show."""
    configured = spec.capacity.per_replica
    key = key_of(spec)
    if old is None or old.key != key:
        old = Knowledge(key=key, at=at, capacity=configured)
    passed = max(0.0, at - old.at)
    fade = 0.5 ** (passed / HALF_LIFE)
    bins = {i: (good * fade, bad * fade) for i, (good, bad) in old.bins.items() if good + bad > 0.01}
    outputs = {i: n * fade for i, n in old.outputs.items() if n > 0.01}
    prompts = {i: n * fade for i, n in old.prompts.items() if n > 0.01}
    reasons = {name: n * fade for name, n in old.why_bad.items() if n > 0.01}
    load_sum, concurrency_sum = old.load_sum * fade, old.concurrency_sum * fade
    kv_tokens = old.kv_tokens
    for minute in minutes:
        for lengths, into in ((minute.outputs, outputs), (minute.prompts, prompts)):
            for length, number in lengths:
                into[_bin(length)] = into.get(_bin(length), 0.0) + number
        kv_tokens = minute.kv_tokens or kv_tokens
        if not (0 < minute.load < math.inf) or not judged(minute):
            continue
        if minute.concurrency:
            load_sum, concurrency_sum = load_sum + minute.load, concurrency_sum + minute.concurrency
        wrong = fault(minute, spec)
        good, bad = bins.get(_bin(minute.load), (0.0, 0.0))
        bins[_bin(minute.load)] = (good + (wrong is None), bad + (wrong is not None))
        if wrong is not None:
            reasons[wrong] = reasons.get(wrong, 0.0) + 1.0
    made = Knowledge(
        key=key, at=max(at, old.at), capacity=old.capacity, bins=bins, outputs=outputs, prompts=prompts, kv_tokens=kv_tokens,
        load_sum=load_sum, concurrency_sum=concurrency_sum, why_bad=reasons,
    )  # fmt: skip
    wanted, _ = estimate(made, spec)
    step = PER_DAY ** (min(passed, _LONGEST) / 86400.0)
    moved = min(old.capacity * step, max(old.capacity / step, wanted))
    return msgspec.structs.replace(made, capacity=min(configured * LIMIT, max(configured / LIMIT, moved)))


def estimate(known: Knowledge, spec: ServiceSpec) -> tuple[float, str]:
    """Where the capacity moves to, and why; the configured number while not enough is known."""
    configured = spec.capacity.per_replica
    seen = sum(good + bad for good, bad in known.bins.values())
    if seen < ENOUGH:
        return configured, f"configured; only {seen:.0f} minutes of load have been seen, {ENOUGH:.0f} are needed"
    limit, carried = _knee(known.bins)
    if limit is not None:
        worst = max(known.why_bad, key=lambda name: (known.why_bad[name], name), default="it was overloaded")
        over = [counts for i, counts in known.bins.items() if BIN**i > limit]
        bad, all_over = (sum(counts[1] for counts in over), sum(map(sum, over)))
        share = f"in {bad:.0f} of {all_over:.0f} minutes" if all_over >= 1 else ""
        found, why = limit, f"above {limit:.4g} {worst}{_promise(worst, spec.slo)} {share}".rstrip()
    else:
        found, why = max(configured, carried), f"up to {carried:.4g} were carried well, no limit was seen"
    room = kv_limit(known)
    if room is not None and room < found:
        return (
            room,
            f"its KV cache of {known.kv_tokens:.0f} tokens holds the requests of a load of {room:.4g} at their peak",
        )
    return found, why


def _promise(fault: str, slo: Slo) -> str:
    told = {LATE: slo.ttft, SLOW: slo.tpot}.get(fault)
    return "" if told is None else f" (promised: {told:g} s)"


def _knee(bins: Mapping[int, tuple[float, float]]) -> tuple[float | None, float]:
    """(load from which minutes were bad, or None when no such limit was seen; highest load carried well)."""
    best, best_sum, total = None, 0.0, 0.0
    rate = (1 - BAD_SHARE) / BAD_SHARE
    for i in sorted(bins):
        good, bad = bins[i]
        total += good - rate * bad
        if total > best_sum:
            best, best_sum = i, total
    carried = 0.0 if best is None else BIN**best
    worse = sum(bad for i, (_, bad) in bins.items() if best is None or i > best)
    if worse < ENOUGH_BAD:
        return None, carried
    return BIN ** ((min(bins) if best is None else best) + (0.5 if best is not None else -0.5)), carried


def kv_limit(known: Knowledge) -> float | None:
    """Load whose requests just fit the KV cache at their future peak; None: lengths or its size are not known."""
    if known.kv_tokens is None or known.concurrency_sum <= 0 or sum(known.outputs.values()) < ENOUGH_REQUESTS:
        return None
    outputs = tuple((BIN**i, n) for i, n in sorted(known.outputs.items()))
    prompts = tuple((BIN**i, n) for i, n in sorted(known.prompts.items()))
    return requests_that_fit(outputs, prompts, known.kv_tokens) * known.load_sum / known.concurrency_sum


def carries(known: Knowledge | None, spec: ServiceSpec) -> Carries:
    """What a replica is planned to carry, and why."""
    configured = spec.capacity.per_replica
    if not spec.capacity.learn or known is None or known.key != key_of(spec):
        return Carries(per_replica=configured, learned=False, why="configured")
    wanted, why = estimate(known, spec)
    now = min(configured * LIMIT, max(configured / LIMIT, known.capacity))
    moving = "" if abs(wanted - now) <= 0.02 * now else f"; moves slowly from {configured:.4g} towards {wanted:.4g}"
    alike = "" if "{" in spec.load.url else "; its replicas are read as one, and count as equally loaded"
    return Carries(per_replica=now, learned=abs(now - configured) > 1e-9 * configured, why=f"{why}{alike}{moving}")


def _bin(value: float) -> int:
    return round(math.log(max(value, 1e-6)) / math.log(BIN))
