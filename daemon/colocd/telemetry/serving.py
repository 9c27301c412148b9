"""Prometheus text of the LLM servers in use, turned into one `ServingSample`. Pure: no I/O, no clock.

What is not there, not a number or not credible is None and says why in `reasons`; nothing is ever guessed to be 0.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from colocd.core.service import Measure

BODY_LIMIT = 4 << 20
"""Longest text that is read, in characters."""


class ServingSample(msgspec.Struct, frozen=True, kw_only=True):
    """One scrape of one server, summed over its engines and models. None: not told; `reasons` says why, by fact.

    `running`, `waiting` are requests; `waiting_capacity` those that wait because the server is full. `kv_use` is 0..1 of the
    fullest engine. `*_total` count since the server's start. `at` is Unix seconds, `tick` monotonic seconds of the reading.
    """

    running: float | None = None
    waiting: float | None = None
    waiting_capacity: float | None = None
    kv_use: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    preemptions_total: float | None = None
    reasons: Mapping[str, str] = msgspec.field(default_factory=dict)
    at: float | None = None
    tick: float | None = None


class Source(msgspec.Struct, frozen=True):
    """Where one fact stands: series `name` with these label values. `type` is the family's declared type."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    type: str = "gauge"


FACTS = tuple(name for name in ServingSample.__struct_fields__ if name not in ("reasons", "at", "tick"))


def _gauge(name: str, **labels: str) -> Source:
    return Source(name, tuple(labels.items()))


def _count(name: str, type_: str = "counter") -> Source:
    return Source(name, (), type_)


SERVERS: Mapping[str, Mapping[str, tuple[Source, ...]]] = {
    "vllm": {
        "running": (_gauge("vllm:num_requests_running"),),
        "waiting": (_gauge("vllm:num_requests_waiting"),),
        "waiting_capacity": (_gauge("vllm:num_requests_waiting_by_reason", reason="capacity"),),
        "kv_use": (_gauge("vllm:kv_cache_usage_perc"), _gauge("vllm:gpu_cache_usage_perc")),
        "prompt_tokens_total": (_count("vllm:prompt_tokens_total"),),
        "generation_tokens_total": (_count("vllm:generation_tokens_total"),),
        "preemptions_total": (_count("vllm:num_preemptions_total"),),
    },
    "sglang": {
        "running": (_gauge("sglang:num_running_reqs"),),
        "waiting": (_gauge("sglang:num_queue_reqs"),),
        "kv_use": (_gauge("sglang:token_usage"),),
        "prompt_tokens_total": (_count("sglang:prompt_tokens_total"),),
        "generation_tokens_total": (_count("sglang:generation_tokens_total"),),
        "preemptions_total": (_count("sglang:num_retracted_requests_total"),),
    },
    "trtllm": {
        "running": (_gauge("trtllm_num_requests_running"),),
        "waiting": (_gauge("trtllm_num_requests_waiting"),),
        "kv_use": (_gauge("trtllm_kv_cache_utilization"),),
        "prompt_tokens_total": (_count("trtllm_prompt_tokens_total"),),
        "generation_tokens_total": (_count("trtllm_generation_tokens_total"),),
    },
    "triton": {
        "running": (_gauge("nv_trt_llm_request_metrics", request_type="scheduled"),),
        "waiting": (_gauge("nv_trt_llm_request_metrics", request_type="waiting"),),
        "kv_use": (_gauge("nv_trt_llm_kv_cache_block_metrics", kv_cache_block_type="fraction"),),
    },
    "tgi": {
        "running": (_gauge("tgi_batch_current_size"),),
        "waiting": (_gauge("tgi_queue_size"),),
        "prompt_tokens_total": (_count("tgi_request_input_length_sum", "histogram"),),
        "generation_tokens_total": (_count("tgi_request_generated_tokens_sum", "histogram"),),
    },
    "llamacpp": {
        "running": (_gauge("llamacpp:requests_processing"),),
        "waiting": (_gauge("llamacpp:requests_deferred"),),
        "kv_use": (_gauge("llamacpp:kv_cache_usage_ratio"),),
        "prompt_tokens_total": (_count("llamacpp:prompt_tokens_total"),),
        "generation_tokens_total": (_count("llamacpp:tokens_predicted_total"),),
    },
}
"""Per server and fact the series to read: the first one that is there counts (current name first, older ones after it)."""

_MOST_SERIES = 4096
_MOST = 1e18
"""More of anything than a server can count in a lifetime."""

_SAME = frozenset({"tp_rank"})
"""Labels of workers that all tell the same number (SGLang with metrics of all schedulers): the largest counts, not the sum."""


def measures(server: str) -> frozenset[Measure]:
    """Load measures that a server's metrics can give."""
    facts = SERVERS[server].keys()
    able = set()
    if {"running", "waiting"} <= facts:
        able.add(Measure.CONCURRENCY)
    if "generation_tokens_total" in facts:
        able.add(Measure.GENERATED)
        if "prompt_tokens_total" in facts:
            able.add(Measure.TOKENS)
    return frozenset(able)


def parse_serving(text: str, server: str, *, at: float | None = None, tick: float | None = None) -> ServingSample:
    """Read a server's Prometheus text; never raises for bad text. `server` is a key of `SERVERS`."""
    wanted = SERVERS[server]
    spoilt = _spoilt(text)
    if spoilt is not None:
        return ServingSample(reasons=dict.fromkeys(FACTS, spoilt), at=at, tick=tick)
    series = _collect(text, {source.name for sources in wanted.values() for source in sources})
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for fact in FACTS:
        if fact not in wanted:
            reasons[fact] = f"{server} does not tell it"
            continue
        try:
            values[fact] = _read(series, wanted[fact], largest=fact == "kv_use")
        except ValueError as wrong:
            reasons[fact] = str(wrong)
    return ServingSample(**values, reasons=reasons, at=at, tick=tick)


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
        bases = (name, name.removesuffix("_total"), name.removesuffix("_sum"))
        series.type = next((families[base] for base in bases if base in families), None)
    return found


def _name_end(line: str) -> int:
    ends = [end for end in (line.find("{"), line.find(" "), line.find("\t")) if end >= 0]
    return min(ends, default=len(line))


def _read(series: Mapping[str, _Series], sources: Iterable[Source], *, largest: bool) -> float:
    """Sum (or largest) of the first source that is there; raises ValueError with the reason."""
    for source in sources:
        lines = series.get(source.name)
        if lines is None:
            continue
        values = _values(lines.lines, source)
        if not values:
            continue
        if lines.type not in (None, "untyped", "unknown", source.type):
            raise ValueError(f"{source.name} is a {lines.type:.20}, not a {source.type}")
        total = max(values) if largest else math.fsum(values)
        if largest and total > 1.01:
            raise ValueError(f"{source.name} is {total:g}, but a share is at most 1")
        return min(total, 1.0) if largest else total
    raise ValueError(f"{' and '.join(_shown(source) for source in sources)} is not in the answer")


def _values(lines: Sequence[str], source: Source) -> list[float]:
    values: dict[frozenset[tuple[str, str]], float] = {}
    seen: set[frozenset[tuple[str, str]]] = set()
    if len(lines) > _MOST_SERIES:
        raise ValueError(f"{source.name} has {len(lines)} series, more than can be meant")
    for line in lines:
        labels, value = _sample(line, source.name)
        if any(labels.get(name) != wanted for name, wanted in source.labels):
            continue
        if not 0 <= value <= _MOST:  # NaN is not, either
            raise ValueError(f"{source.name} is {value:g}")
        key = frozenset(labels.items())
        if key in seen:
            raise ValueError(f"{source.name} is there twice with the same labels")
        seen.add(key)
        group = frozenset(pair for pair in key if pair[0] not in _SAME)
        values[group] = max(value, values.get(group, 0.0))
    return list(values.values())


def _sample(line: str, name: str) -> tuple[dict[str, str], float]:
    """Labels and value of one line, by prometheus_client's parser: one bad line must not spoil the others."""
    try:
        (family,) = text_string_to_metric_families(line + "\n")
        (sample,) = family.samples
        return dict(sample.labels), float(sample.value)
    except Exception:  # the parser raises many kinds of errors on bad text; all mean the same
        raise ValueError(f"{name} has a line that is not Prometheus text") from None


def _shown(source: Source) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in source.labels)
    return f"{source.name}{{{labels}}}" if labels else source.name
