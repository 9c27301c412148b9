"""Prometheus text of the LLM servers in use, turned into one `ServingSample`. Pure: no I/O, no clock.

What is not there, not a number, not credible or too old is None and says why in `reasons`; nothing is ever guessed to be 0.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from colocd.telemetry.names import COUNTERS, FACTS, SERVERS, SPREADS, Source, measures, sources
from colocd.telemetry.spread import Spread, spread_of

__all__ = ["BODY_LIMIT", "FACTS", "SERVERS", "SPREADS", "ServingSample", "measures", "parse_serving"]

BODY_LIMIT = 4 << 20
"""Longest text that is read, in characters."""
STALE = 60.0
"""Seconds after which a value that carries a time of its own is too old."""


Labels = frozenset[tuple[str, str]]


class ServingSample(msgspec.Struct, frozen=True, kw_only=True):
    """One scrape of one server, summed over its engines and models. None: not told; `reasons` says why, by fact.

    `running`, `waiting` are requests; `waiting_capacity` those that wait because the server is full. `kv_use` is 0..1 of the
    fullest engine, `kv_tokens` how many tokens the KV cache holds. `*_total` count since the server's start; `requests_total`
    those that have ended. Histograms (seconds, or tokens of ended requests) count since then, too. `engines`: each counter by the
    labels of its series. `at` is Unix seconds, `tick` monotonic seconds of the reading.
    """

    running: float | None = None
    waiting: float | None = None
    waiting_capacity: float | None = None
    kv_use: float | None = None
    kv_tokens: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    preemptions_total: float | None = None
    requests_total: float | None = None
    prefix_queries_total: float | None = None
    prefix_hits_total: float | None = None
    ttft: Spread | None = None
    itl: Spread | None = None
    prompt_lengths: Spread | None = None
    output_lengths: Spread | None = None
    engines: Mapping[str, Mapping[Labels, float]] = msgspec.field(default_factory=dict)
    reasons: Mapping[str, str] = msgspec.field(default_factory=dict)
    at: float | None = None
    tick: float | None = None


_MOST_SERIES = 4096
_LONGEST = 1 << 16
"""Characters of a line that is read; reading longer ones would take memory many times their length."""
_MOST = 1e18
"""More of anything than a server can count in a lifetime."""
_MOST_REQUESTS = 1e6
"""More requests at once than one server can hold."""
_LIMITS = dict.fromkeys(("running", "waiting", "waiting_capacity"), _MOST_REQUESTS)

_SAME = frozenset({"tp_rank", "pp_rank", "moe_ep_rank"})
"""Labels of workers that all tell the same number (SGLang; its engines differ in dp_rank): the largest counts, not the sum."""
_PART = "priority"
"""Label of a gauge that SGLang tells in all (empty) and by priority: only what is told in all counts."""


def parse_serving(
    text: str,
    server: str,
    *,
    series: Mapping[str, str] | None = None,
    at: float | None = None,
    tick: float | None = None,
) -> ServingSample:
    """Read a server's Prometheus text; never raises for bad text. `server` is a key of `SERVERS`.

    `series`: names of the service file's own, per fact. `at`: when it was read, to tell values with an old time of their own.
    """
    wanted = sources(server, series or {})
    text = text.removeprefix("\ufeff")
    spoilt = _spoilt(text)
    if spoilt is not None:
        return ServingSample(reasons=dict.fromkeys((*FACTS, *SPREADS), spoilt), at=at, tick=tick)
    buckets = {f"{s.name}_bucket" for name in SPREADS for s in wanted.get(name, ())}
    names = {s.name for fact in FACTS for s in wanted.get(fact, ())}
    found = _collect(text, names | buckets)
    values: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    engines: dict[str, Mapping[Labels, float]] = {}
    for fact in (*FACTS, *SPREADS):
        if fact not in wanted:
            reasons[fact] = f"{server} does not tell it"
            continue
        try:
            if fact in SPREADS:
                values[fact] = _read_spread(found, wanted[fact], at)
            else:
                values[fact], parts = _read(found, wanted[fact], fact, at)
                if fact in COUNTERS:
                    engines[fact] = parts
        except ValueError as wrong:
            reasons[fact] = str(wrong)
    return ServingSample(**values, engines=engines, reasons=reasons, at=at, tick=tick)


class _Series:
    """Lines of one series name, and the type its family was declared with."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.type: str | None = None


def _spoilt(text: str) -> str | None:
    """Say why a whole text cannot be trusted; None: it may be."""
    if len(text) > BODY_LIMIT:
        return f"the answer is longer than {BODY_LIMIT} characters"
    start = text.lstrip()[:1]
    if not start:
        return "the answer is empty"
    if start == "<":
        return "the answer is HTML, not Prometheus text"
    if start in "[{":
        return "the answer is JSON, not Prometheus text (trtllm-serve has that at /prometheus/metrics)"
    if not text.endswith("\n") and not text.endswith("# EOF"):
        # half a number looks like a number, and half a list of engines like a low load
        return "the answer is cut off: its last line has no end"
    return None


def _collect(text: str, names: set[str]) -> dict[str, _Series]:
    families: dict[str, str] = {}
    found: dict[str, _Series] = {}
    for line in text.split("\n"):
        if line.startswith("#"):
            words = line.split()
            if len(words) == 4 and words[1] == "TYPE":
                families[words[2]] = words[3]
            continue
        name = line[: _name_end(line)]
        if name in names:
            found.setdefault(name, _Series()).lines.append(line.rstrip("\r"))
    for name, series in found.items():
        bases = (name, *(name.removesuffix(end) for end in ("_total", "_sum", "_bucket")))
        series.type = next((families[base] for base in bases if base in families), None)
    return found


def _name_end(line: str) -> int:
    ends = [end for end in (line.find("{"), line.find(" "), line.find("\t")) if end >= 0]
    return min(ends, default=len(line))


def _read(
    series: Mapping[str, _Series], wanted: Iterable[Source], fact: str, at: float | None
) -> tuple[float, dict[Labels, float]]:
    """Sum (or largest) of the first source that is there, and its parts; raises ValueError with the reason."""
    largest = fact == "kv_use"
    for source in wanted:
        found = _values(series.get(source.name), source, at)
        parts = {labels: value for labels, by_bound in found.items() for value in by_bound.values()}
        if not parts:
            continue
        values = parts.values()
        total = max(values) if largest else math.fsum(values)
        if largest and total > 1.01:
            raise ValueError(f"{source.name} is {total:g}, but a share is at most 1")
        if total > _LIMITS.get(fact, math.inf):
            raise ValueError(f"{source.name} is {total:g}, more than one server can hold")
        return min(total, 1.0) if largest else total, parts
    raise _missing(wanted)


def _read_spread(series: Mapping[str, _Series], wanted: Iterable[Source], at: float | None) -> Spread:
    """Sum over engines of the first histogram that is there; raises ValueError with the reason."""
    for source in wanted:
        buckets = Source(f"{source.name}_bucket", source.labels, source.type)
        found = _values(series.get(buckets.name), buckets, at)
        if not found:
            continue
        if len({frozenset(by_bound) for by_bound in found.values()}) > 1:
            raise ValueError(f"{source.name} has engines with different buckets")
        counts = {bound: math.fsum(one[bound] for one in found.values()) for bound in next(iter(found.values()))}
        try:
            return spread_of(counts)
        except ValueError as wrong:
            raise ValueError(f"{source.name} {wrong}") from None
    raise _missing(wanted)


def _missing(wanted: Iterable[Source]) -> ValueError:
    return ValueError(f"{' and '.join(_shown(source) for source in wanted)} is not in the answer")


def _values(series: _Series | None, source: Source, at: float | None) -> dict[Labels, dict[str, float]]:
    """Values by labels (without `le`), then by `le`; empty: the source is not there."""
    values: dict[Labels, dict[str, float]] = {}
    seen: set[Labels] = set()
    if series is None:
        return values
    if len(series.lines) > _MOST_SERIES:
        raise ValueError(f"{source.name} has {len(series.lines)} series, more than can be meant")
    for line in series.lines:
        labels, value, time = _sample(line, source.name)
        if any(labels.get(name) != wanted for name, wanted in source.labels):
            continue
        if any(name not in labels for name in source.product):
            continue
        if not 0 <= value <= _MOST:  # NaN is not, either
            raise ValueError(f"{source.name} is {value:g}")
        if source.product:
            value = _product(labels, source)
        if time is not None and at is not None and at - time > STALE:
            raise ValueError(f"{source.name} carries a time {at - time:.0f} s ago")
        key = frozenset(labels.items())
        if key in seen:
            raise ValueError(f"{source.name} is there twice with the same labels")
        seen.add(key)
        bound = labels.get("le", "")
        group = frozenset(pair for pair in key if pair[0] not in _SAME and pair[0] != "le")
        by_bound = values.setdefault(group, {})
        by_bound[bound] = max(value, by_bound.get(bound, 0.0))
    if values and series.type not in (None, "untyped", "unknown", source.type):
        raise ValueError(f"{source.name} is a {series.type:.20}, not a {source.type}")
    if source.type == "gauge" and any((_PART, "") in labels for labels in values):
        return {labels: told for labels, told in values.items() if dict(labels).get(_PART, "") == ""}
    return values


def _product(labels: Mapping[str, str], source: Source) -> float:
    told = [labels.get(name, "") for name in source.product]
    if not all(text.isascii() and text.isdigit() and len(text) < 16 for text in told):
        raise ValueError(f"{source.name} has no number as {' or '.join(source.product)}")
    return float(math.prod(int(text) for text in told))


_PLAIN = re.compile(
    r'[A-Za-z_:][\w:]*(?:\{((?:[A-Za-z_]\w*="[^"\\]*",?)*)\})? ([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)'
)
_LABEL = re.compile(r'([A-Za-z_]\w*)="([^"\\]*)"')
_EXEMPLAR = re.compile(r'((?:[^"#]|"(?:[^"\\]|\\.)*")*) # \{.*')
"""OpenMetrics may tell behind a value of which request it is an example."""


def _sample(line: str, name: str) -> tuple[dict[str, str], float, float | None]:
    """Labels, value and time (Unix seconds; None: it carries none) of one line: one bad line must not spoil the others."""
    if len(line) > _LONGEST:
        raise ValueError(f"{name} has a line of {len(line)} characters")
    example = _EXEMPLAR.fullmatch(line) if " # {" in line else None
    line = line if example is None else example[1]
    plain = _PLAIN.fullmatch(line)
    if plain is not None:
        pairs = _LABEL.findall(plain[1] or "")
        labels = dict(pairs)
        if len(labels) == len(pairs):
            return labels, float(plain[2]), None
    try:
        (family,) = text_string_to_metric_families(line + "\n")
        (sample,) = family.samples
        time = None if sample.timestamp is None else float(sample.timestamp)
        # Prometheus writes milliseconds, which the parser expects; OpenMetrics writes seconds.
        time = time * 1000 if time is not None and time < 1e8 else time
        return dict(sample.labels), float(sample.value), time
    except Exception:  # the parser raises many kinds of errors on bad text; all mean the same
        raise ValueError(f"{name} has a line that is not Prometheus text") from None


def _shown(source: Source) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in source.labels)
    product = f" ({' * '.join(source.product)})" if source.product else ""
    return f"{source.name}{{{labels}}}" if labels else f"{source.name}{product}"
