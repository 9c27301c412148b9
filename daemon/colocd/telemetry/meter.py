"""One endpoint over time: rates of its counters, quantiles of its latencies, and whether what it says can be so. No I/O.

A server that lies is caught where its own numbers contradict each other; see docs/serving-metrics.md for what cannot be caught.
"""

from collections import deque

import msgspec

from colocd.telemetry.serving import ServingSample
from colocd.telemetry.spread import Spread

WINDOW = 120.0
"""Seconds over which latencies are looked at."""
DISTRUST = 900.0
"""Seconds for which a server that started again, or whose requests vanished, is not believed to be idle."""
FROZEN = 300.0
"""Seconds after which counters that stand still while requests run mean that the numbers are not live."""
_VANISH_GAP = 5.0
"""Seconds between two readings in which running requests must have left a trace in the counters."""
_VANISH = 3.0
"""Requests that must have been running: one or two may end without a trace."""
QUANTILE = 0.9
"""Of the latencies: what nine of ten requests see."""
_TOKENS = ("prompt_tokens_total", "generation_tokens_total")
_COUNTERS = (*_TOKENS, "requests_total")


class Metered(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint does now. Rates are per second, `ttft` and `itl` seconds at `QUANTILE` over `WINDOW`; None: unknown.

    `why`: why there are no rates. `doubt`: why its numbers are not to be believed now; None: they are. `hits`: share of prompt
    tokens found in the prefix cache. `new_outputs`, `new_prompts`: lengths of the requests that ended since the last reading.
    """

    running: float | None = None
    waiting: float | None = None
    queued: float | None = None
    """Requests that wait because the server is full (all that wait, where it does not tell them apart)."""
    kv_use: float | None = None
    kv_tokens: float | None = None
    prompt: float | None = None
    generation: float | None = None
    preempted: float | None = None
    hits: float | None = None
    ttft: float | None = None
    itl: float | None = None
    new_prompts: Spread | None = None
    new_outputs: Spread | None = None
    why: str = ""
    doubt: str | None = None


class Meter:
    """Remembers the readings of one endpoint. `min_gap`, `max_gap`: monotonic seconds over which a rate is taken."""

    def __init__(self, min_gap: float, max_gap: float) -> None:
        self._min_gap, self._max_gap = min_gap, max_gap
        self._job: str | None = None
        self._past: deque[ServingSample] = deque()
        self._counted: dict[str, ServingSample] = {}
        """By counter the last reading that told it: a reading without it between two others does not hide that it fell."""
        self._last: Metered | None = None
        self._doubted: tuple[float, str] | None = None
        self._moved: float | None = None
        """When a counter last moved, or nothing ran (monotonic seconds)."""

    def take(self, job: str | None, sample: ServingSample, tick: float) -> Metered:
        """Take a reading over. `job`: whose numbers these are; another job's counters begin anew."""
        if job != self._job or not self._past:
            self._start(job, sample, tick)
            return self._made(sample, why="first sample: a rate needs two")
        old = self._past[-1]
        gap = tick - _tick(old)
        if gap >= 0 and any(_fell(known, sample, name) for name, known in self._counted.items()):
            self._start(job, sample, tick)
            self._doubted = (tick, "its server was started again and has served nothing since")
            return self._made(sample, why="its counters started again (the server was restarted)")
        if 0 <= gap < self._min_gap and self._last is not None:
            # Too short for a rate: the last one still holds.
            return msgspec.structs.replace(
                self._last, running=sample.running, waiting=sample.waiting, queued=_queued(sample), kv_use=sample.kv_use
            )
        if gap < 0 or gap > self._max_gap:
            self._start(job, sample, tick)
            return self._made(sample, why="the last sample is too old for a rate")
        if any(_others(old, sample, name) for name in _TOKENS):
            # An engine that joins brings what it has counted in its life: no rate and no latency of now.
            self._start(job, sample, tick)
            return self._made(sample, why="its counters are of other engines than in the last sample")
        self._watch(old, sample, tick, gap)
        self._count(sample)
        self._past.append(sample)
        while len(self._past) > 2 and tick - _tick(self._past[1]) >= WINDOW:
            self._past.popleft()
        return self._made(sample, old, gap, why="a counter was missing in the last sample")

    def _start(self, job: str | None, sample: ServingSample, tick: float) -> None:
        if job != self._job:
            self._doubted = None
            self._counted.clear()
        self._job = job
        self._count(sample)
        self._past.clear()
        self._past.append(sample)
        self._moved = tick

    def _count(self, sample: ServingSample) -> None:
        self._counted |= {name: sample for name in _COUNTERS if getattr(sample, name) is not None}

    def _watch(self, old: ServingSample, new: ServingSample, tick: float, gap: float) -> None:
        """Find contradictions between two readings that follow each other."""
        pairs = [(getattr(old, name), getattr(new, name)) for name in _COUNTERS]
        told = [(a, b) for a, b in pairs if a is not None and b is not None]
        grew = any(b > a for a, b in told)
        idle = new.running == 0 and new.waiting == 0
        if grew or not new.running:
            self._moved = tick
        if grew or (new.running or 0) > 0:
            self._doubted = None
        elif idle and (old.running or 0) >= _VANISH and gap >= _VANISH_GAP and told:
            self._doubted = (tick, f"its {old.running:g} running requests vanished without having been counted")

    def _doubt(self, sample: ServingSample, tick: float) -> str | None:
        if sample.running and self._moved is not None and tick - self._moved > FROZEN:
            known = any(getattr(sample, name) is not None for name in _COUNTERS)
            if known:
                return f"its counters have stood still for {tick - self._moved:.0f} s although {sample.running:g} requests run"
        if self._doubted is None or sample.running or sample.waiting:
            return None
        since, reason = self._doubted
        return reason if tick - since <= DISTRUST else None

    def _made(
        self, sample: ServingSample, old: ServingSample | None = None, gap: float = 0.0, why: str = ""
    ) -> Metered:
        first = self._past[0]

        def rate(name: str) -> float | None:
            a, b = (None, None) if old is None else (getattr(old, name), getattr(sample, name))
            return None if a is None or b is None else float(b - a) / gap

        def recent(name: str, since: ServingSample | None) -> Spread | None:
            a, b = (None, None) if since is None else (getattr(since, name), getattr(sample, name))
            return None if a is None or b is None or since is sample else b.since(a)

        queries, hits = (
            recent_growth(first, sample, "prefix_queries_total"),
            recent_growth(first, sample, "prefix_hits_total"),
        )
        ttft, itl = recent("ttft", first), recent("itl", first)
        made = Metered(
            running=sample.running,
            waiting=sample.waiting,
            queued=_queued(sample),
            kv_use=sample.kv_use,
            kv_tokens=sample.kv_tokens,
            prompt=rate("prompt_tokens_total"),
            generation=rate("generation_tokens_total"),
            preempted=rate("preemptions_total"),
            hits=min(1.0, hits / queries) if queries and hits is not None else None,
            ttft=None if ttft is None else ttft.quantile(QUANTILE),
            itl=None if itl is None else itl.quantile(QUANTILE),
            new_prompts=recent("prompt_lengths", old),
            new_outputs=recent("output_lengths", old),
            why=why,
            doubt=self._doubt(sample, _tick(sample)),
        )
        self._last = made
        return made


def recent_growth(old: ServingSample, new: ServingSample, name: str) -> float | None:
    """How much a counter grew between two readings; None: unknown, or it fell."""
    a, b = getattr(old, name), getattr(new, name)
    return None if a is None or b is None or b < a else float(b - a)


def _tick(sample: ServingSample) -> float:
    return sample.tick if sample.tick is not None else 0.0


def _queued(sample: ServingSample) -> float | None:
    return sample.waiting if sample.waiting_capacity is None else sample.waiting_capacity


def _fell(old: ServingSample, new: ServingSample, name: str) -> bool:
    """Whether a counter began anew: its sum, or that of one engine while the others' growth hides it."""
    a, b = getattr(old, name), getattr(new, name)
    if a is None or b is None:
        return False
    before, now = old.engines.get(name, {}), new.engines.get(name, {})
    return b < a or any(now.get(labels, value) < value for labels, value in before.items())


def _others(old: ServingSample, new: ServingSample, name: str) -> bool:
    """Whether both tell a counter, but of other engines."""
    before, now = old.engines.get(name), new.engines.get(name)
    return before is not None and now is not None and before.keys() != now.keys()
