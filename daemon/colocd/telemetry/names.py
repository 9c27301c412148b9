"""Which series of which LLM server tells which fact. Names a service file gives itself come before a server's own."""

import re
from collections.abc import Mapping

import msgspec

from colocd.core.service import Measure


class Source(msgspec.Struct, frozen=True):
    """Where one fact stands: series `name` with these label values. `type` is the family's declared type.

    `product`: the fact is the product of the numbers in these labels (of series that only inform).
    """

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    type: str = "gauge"
    product: tuple[str, ...] = ()


def _gauge(name: str, **labels: str) -> Source:
    return Source(name, tuple(labels.items()))


def _count(name: str, type_: str = "counter") -> Source:
    return Source(name, (), type_)


def _spread(*names: str) -> tuple[Source, ...]:
    return tuple(Source(name, (), "histogram") for name in names)


GAUGES = ("running", "waiting", "waiting_capacity", "kv_use", "kv_tokens")
COUNTERS = (
    "prompt_tokens_total",
    "generation_tokens_total",
    "preemptions_total",
    "requests_total",
    "prefix_queries_total",
    "prefix_hits_total",
)
FACTS = (*GAUGES, *COUNTERS)
SPREADS = ("ttft", "itl", "prompt_lengths", "output_lengths")
"""Histograms: seconds to the first token, seconds between tokens, and tokens of the prompts and outputs of ended requests."""
CUSTOM = "custom"
"""Name of a server of which only the service file's own mapping is known."""

SERVERS: Mapping[str, Mapping[str, tuple[Source, ...]]] = {
    "vllm": {
        "running": (_gauge("vllm:num_requests_running"),),
        "waiting": (_gauge("vllm:num_requests_waiting"),),
        "waiting_capacity": (_gauge("vllm:num_requests_waiting_by_reason", reason="capacity"),),
        "kv_use": (_gauge("vllm:kv_cache_usage_perc"), _gauge("vllm:gpu_cache_usage_perc")),
        "kv_tokens": (
            Source("vllm:cache_config_info", product=("kv_cache_size_tokens",)),
            Source("vllm:cache_config_info", product=("num_gpu_blocks", "block_size")),
        ),
        "prompt_tokens_total": (_count("vllm:prompt_tokens_total"),),
        "generation_tokens_total": (_count("vllm:generation_tokens_total"),),
        "preemptions_total": (_count("vllm:num_preemptions_total"),),
        "requests_total": (_count("vllm:request_success_total"),),
        "prefix_queries_total": (
            _count("vllm:prefix_cache_queries_total"),
            _count("vllm:gpu_prefix_cache_queries_total"),
        ),
        "prefix_hits_total": (_count("vllm:prefix_cache_hits_total"), _count("vllm:gpu_prefix_cache_hits_total")),
        "ttft": _spread("vllm:time_to_first_token_seconds"),
        "itl": _spread("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
        "prompt_lengths": _spread("vllm:request_prompt_tokens"),
        "output_lengths": _spread("vllm:request_generation_tokens"),
    },
    "sglang": {
        "running": (_gauge("sglang:num_running_reqs"),),
        "waiting": (_gauge("sglang:num_queue_reqs"),),
        "kv_use": (_gauge("sglang:token_usage"),),
        "kv_tokens": (_gauge("sglang:max_total_num_tokens"),),
        "prompt_tokens_total": (_count("sglang:prompt_tokens_total"),),
        "generation_tokens_total": (_count("sglang:generation_tokens_total"),),
        "preemptions_total": (_count("sglang:num_retracted_requests_total"),),
        "requests_total": (_count("sglang:num_requests_total"),),
        "ttft": _spread("sglang:time_to_first_token_seconds"),
        "itl": _spread("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"),
        "prompt_lengths": _spread("sglang:prompt_tokens_histogram"),
        "output_lengths": _spread("sglang:generation_tokens_histogram"),
    },
    "trtllm": {
        "running": (_gauge("trtllm_num_requests_running"),),
        "waiting": (_gauge("trtllm_num_requests_waiting"),),
        "kv_use": (_gauge("trtllm_kv_cache_utilization"),),
        "prompt_tokens_total": (_count("trtllm_prompt_tokens_total"),),
        "generation_tokens_total": (_count("trtllm_generation_tokens_total"),),
        "requests_total": (_count("trtllm_request_success_total"),),
        "ttft": _spread("trtllm_time_to_first_token_seconds"),
        "itl": _spread("trtllm_time_per_output_token_seconds"),
    },
    "triton": {
        "running": (_gauge("nv_trt_llm_request_metrics", request_type="scheduled"),),
        "waiting": (_gauge("nv_trt_llm_request_metrics", request_type="waiting"),),
        "kv_use": (_gauge("nv_trt_llm_kv_cache_block_metrics", kv_cache_block_type="fraction"),),
        "requests_total": (_count("nv_inference_request_success"),),
    },
    "tgi": {
        "running": (_gauge("tgi_batch_current_size"),),
        "waiting": (_gauge("tgi_queue_size"),),
        "prompt_tokens_total": (_count("tgi_request_input_length_sum", "histogram"),),
        "generation_tokens_total": (_count("tgi_request_generated_tokens_sum", "histogram"),),
        "requests_total": (_count("tgi_request_success"),),
        "itl": _spread("tgi_request_mean_time_per_token_duration"),
        "prompt_lengths": _spread("tgi_request_input_length"),
        "output_lengths": _spread("tgi_request_generated_tokens"),
    },
    "llamacpp": {
        "running": (_gauge("llamacpp:requests_processing"),),
        "waiting": (_gauge("llamacpp:requests_deferred"),),
        "kv_use": (_gauge("llamacpp:kv_cache_usage_ratio"),),
        "prompt_tokens_total": (_count("llamacpp:prompt_tokens_total"),),
        "generation_tokens_total": (_count("llamacpp:tokens_predicted_total"),),
    },
    CUSTOM: {},
}
"""Per server and fact the series to read: the first one that is there counts (current name first, older ones after it)."""

_SELECTOR = re.compile(r'\s*([A-Za-z_:][\w:]*)\s*(?:\{\s*((?:[A-Za-z_]\w*\s*=\s*"[^"\\]*"\s*,?\s*)*)\})?\s*')
_LABEL = re.compile(r'([A-Za-z_]\w*)\s*=\s*"([^"\\]*)"')


def selector(fact: str, text: str) -> Source:
    """The source that `name{label="value"}` in a service file means; raises ValueError with the reason."""
    if fact not in FACTS and fact not in SPREADS:
        raise ValueError(f"{fact!r:.60} is not a fact that coloc reads; known are {', '.join((*FACTS, *SPREADS))}")
    found = _SELECTOR.fullmatch(text)
    if found is None:
        raise ValueError(f'{fact} must be the name of a series, as in my_running or my_requests{{state="running"}}')
    kind = "gauge" if fact in GAUGES else "counter" if fact in COUNTERS else "histogram"
    return Source(found[1], tuple(_LABEL.findall(found[2] or "")), kind)


def sources(server: str, series: Mapping[str, str]) -> dict[str, tuple[Source, ...]]:
    """What to read per fact: the service file's own `series` first, then the server's."""
    known = dict(SERVERS[server])
    for fact, text in series.items():
        known[fact] = (selector(fact, text), *known.get(fact, ()))
    return known


def measures(server: str, series: Mapping[str, str] | None = None) -> frozenset[Measure]:
    """Load measures that a server's metrics can give, with what the service file maps itself."""
    facts = {*SERVERS[server], *(series or {})}
    able = set()
    if {"running", "waiting"} <= facts:
        able.add(Measure.CONCURRENCY)
    if "prompt_tokens_total" in facts:
        able.add(Measure.PROMPT)
    if "generation_tokens_total" in facts:
        able.add(Measure.GENERATED)
        if "prompt_tokens_total" in facts:
            able.add(Measure.TOKENS)
    return frozenset(able)
