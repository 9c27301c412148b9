import math
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.core.service import Measure
from colocd.telemetry.names import FACTS, SERVERS, SPREADS, measures, selector
from colocd.telemetry.serving import ServingSample, parse_serving
from colocd.telemetry.spread import Spread

VLLM = (Path(__file__).parent / "data" / "vllm-0.32.0.prom").read_text()
BASIC = (
    "running",
    "waiting",
    "waiting_capacity",
    "kv_use",
    "prompt_tokens_total",
    "generation_tokens_total",
    "preemptions_total",
)
Q = 'vllm:num_requests_waiting{engine="0"} 3\n'


def known(sample: ServingSample) -> dict[str, float]:
    return {fact: getattr(sample, fact) for fact in FACTS if getattr(sample, fact) is not None}


def test_a_real_vllm() -> None:
    sample = parse_serving(VLLM, "vllm", at=5.0, tick=7.0)
    for spread, count in ((sample.ttft, 7), (sample.itl, 249), (sample.prompt_lengths, 7), (sample.output_lengths, 7)):
        assert spread is not None
        assert spread.total == count
    assert sample.ttft is not None
    assert 0.01 < (sample.ttft.quantile(0.5) or 0) < 0.1
    assert {name for name in SPREADS if getattr(sample, name) is None} == set()
    assert sum(sample.engines["generation_tokens_total"].values()) == 256.0
    bare = msgspec.structs.replace(sample, engines={}, **dict.fromkeys(SPREADS))
    assert bare == ServingSample(
        running=0.0,
        waiting=0.0,
        waiting_capacity=0.0,
        kv_use=0.0,
        prompt_tokens_total=143.0,
        generation_tokens_total=256.0,
        preemptions_total=0.0,
        kv_tokens=float(1 << 20),
        requests_total=7.0,
        prefix_queries_total=143.0,
        prefix_hits_total=0.0,
        at=5.0,
        tick=7.0,
    )


def test_a_busy_vllm_with_two_engines() -> None:
    lines = []
    for line in VLLM.split("\n"):
        for name, value in (
            ("vllm:num_requests_running", 5),
            ("vllm:num_requests_waiting", 7),
            ("vllm:kv_cache_usage_perc", 0.25),
            ("vllm:num_requests_waiting_by_reason", 4),
        ):
            if line.startswith(name + "{"):
                lines.append(f"{line.rpartition(' ')[0].replace(chr(34) + '0', chr(34) + '1')} {value * 2}")
                line = f"{line.rpartition(' ')[0]} {value}"
        lines.append(line)
    sample = parse_serving("\n".join(lines), "vllm")
    assert (sample.running, sample.waiting, sample.waiting_capacity, sample.kv_use) == (15.0, 21.0, 12.0, 0.5)


def test_old_vllm_names() -> None:
    text = 'vllm:gpu_cache_usage_perc{model_name="m"} 0.5\n'
    assert known(parse_serving(text, "vllm")) == {"kv_use": 0.5}
    assert parse_serving(text + 'vllm:kv_cache_usage_perc{model_name="m"} 0.25\n', "vllm").kv_use == 0.25


def test_a_longer_name_is_another_series() -> None:
    text = 'vllm:num_requests_waiting_by_reason{reason="capacity"} 4\nvllm:num_requests_waiting_by_reason{reason="deferred"} 9\n'
    assert known(parse_serving(text, "vllm")) == {"waiting_capacity": 4.0}
    assert known(parse_serving(Q, "vllm")) == {"waiting": 3.0}


@pytest.mark.parametrize(
    ("server", "text", "facts"),
    [
        (
            "sglang",
            (
                "# TYPE sglang:num_running_reqs gauge\n"
                'sglang:num_running_reqs{dp_rank="0",tp_rank="0"} 2.0\nsglang:num_running_reqs{dp_rank="1",tp_rank="2"} 3.0\n'
                'sglang:num_running_reqs{dp_rank="1",tp_rank="3"} 3.0\nsglang:num_queue_reqs{dp_rank="0"} 1\n'
                'sglang:token_usage{dp_rank="0"} 0.5\nsglang:prompt_tokens_total 10\nsglang:generation_tokens_total 20\n'
                "sglang:num_retracted_requests_total 1\n"
            ),
            (5.0, 1.0, None, 0.5, 10.0, 20.0, 1.0),
        ),
        (
            "trtllm",
            "trtllm_num_requests_running 2\ntrtllm_num_requests_waiting 1\ntrtllm_kv_cache_utilization 0.5\n",
            (2.0, 1.0, None, 0.5, None, None, None),
        ),
        (
            "triton",
            (
                'nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 2\n'
                'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 1\n'
                'nv_trt_llm_request_metrics{model="m",request_type="max",version="1"} 512\n'
                'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m"} 0.5\n'
                'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m"} 900\n'
            ),
            (2.0, 1.0, None, 0.5, None, None, None),
        ),
        (
            "tgi",
            (
                '# TYPE tgi_request_input_length histogram\ntgi_request_input_length_bucket{le="+Inf"} 3\n'
                "tgi_request_input_length_sum 10\ntgi_request_input_length_count 3\n"
                "# TYPE tgi_request_generated_tokens histogram\ntgi_request_generated_tokens_sum 20\n"
                "tgi_batch_current_size 2\ntgi_queue_size 1\n"
            ),
            (2.0, 1.0, None, None, 10.0, 20.0, None),
        ),
        (
            "llamacpp",
            (
                "llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\nllamacpp:prompt_tokens_total 10\n"
                "llamacpp:tokens_predicted_total 20\n"
            ),
            (2.0, 1.0, None, None, 10.0, 20.0, None),
        ),
    ],
)
def test_other_servers(server: str, text: str, facts: tuple[float | None, ...]) -> None:
    sample = parse_serving(text, server)
    assert tuple(getattr(sample, fact) for fact in BASIC) == facts
    assert set(sample.reasons) & set(BASIC) == {fact for fact, value in zip(BASIC, facts, strict=True) if value is None}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("vllm:num_requests_running NaN", "is nan"),
        ("vllm:num_requests_running -1", "is -1"),
        ("vllm:num_requests_running +Inf", "is inf"),
        ("vllm:num_requests_running -Inf", "is -inf"),
        ("vllm:num_requests_running 1e19", "is 1e+19"),
        ("vllm:num_requests_running", "not Prometheus text"),
        ("vllm:num_requests_running many", "not Prometheus text"),
        ("vllm:num_requests_running 1_0", "not Prometheus text"),
        ('vllm:num_requests_running{engine="0" 1', "not Prometheus text"),
        ('vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="0"} 1', "twice"),
        ('vllm:num_requests_running{engine="0"} 1\nvllm:num_requests_running{engine="1"} NaN', "is nan"),
        ("# TYPE vllm:num_requests_running histogram\nvllm:num_requests_running 1", "is a histogram, not a gauge"),
        ("\n".join(f'vllm:num_requests_running{{e="{n}"}} 1' for n in range(5000)), "5000 series"),
        ("xvllm:num_requests_running 1", "is not in the answer"),
        (f'vllm:num_requests_running{{a="{"x" * 70_000}"}} 1', "a line of 70033 characters"),
        ("", "is not in the answer"),
    ],
)
def test_a_spoilt_fact_is_unknown_and_spoils_no_other(line: str, reason: str) -> None:
    sample = parse_serving(f"{line}\n{Q}", "vllm")
    assert sample.running is None
    assert reason in sample.reasons["running"]
    assert sample.waiting == 3.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ("<!doctype html>\n" + Q, "is HTML"),
        ("[]\n", "is JSON"),
        ('{"a": 1}\n', "is JSON"),
        (VLLM[:-1], "cut off"),
        (VLLM[: VLLM.index("vllm:generation_tokens_total{") + 60], "cut off"),
        ("#" * (5 << 20) + "\n", "longer than"),
    ],
)
def test_a_spoilt_answer_tells_nothing(text: str, reason: str) -> None:
    sample = parse_serving(text, "vllm")
    assert known(sample) == {}
    assert set(sample.reasons) == {*FACTS, *SPREADS}
    assert all(reason in said for said in sample.reasons.values())


@pytest.mark.parametrize(("value", "expected"), [("1.0000001", 1.0), ("1.5", None), ("85", None), ("0.5", 0.5)])
def test_a_share_is_at_most_one(value: str, expected: float | None) -> None:
    assert parse_serving(f"vllm:kv_cache_usage_perc {value}\n", "vllm").kv_use == expected


def test_what_servers_can_measure() -> None:
    assert measures("vllm") == frozenset(Measure) - {Measure.BUSY}
    assert measures("triton") == {Measure.CONCURRENCY}
    assert measures("custom") == frozenset()
    assert measures("custom", {"generation_tokens_total": "x"}) == {Measure.GENERATED}


pieces = st.sampled_from(
    ["vllm:num_requests_running", "{", "}", '"', "=", ",", " ", "\n", "1", "NaN", "engine", "#", "TYPE", "\\"]
)


@given(
    st.text() | st.lists(pieces, max_size=20).map(lambda words: "".join(words) + "\n"), st.sampled_from(sorted(SERVERS))
)
def test_any_text_gives_a_sample(text: str, server: str) -> None:
    sample = parse_serving(text, server)
    assert all((getattr(sample, fact) is None) == (fact in sample.reasons) for fact in SPREADS)
    for fact in FACTS:
        value = getattr(sample, fact)
        assert (value is None) == (fact in sample.reasons)
        assert value is None or (math.isfinite(value) and value >= 0)


@given(st.integers(0, len(VLLM)), st.integers(0, 40), st.text(max_size=5))
def test_a_damaged_scrape_never_invents_load(start: int, length: int, patch: str) -> None:
    sample = parse_serving(VLLM[:start] + patch + VLLM[start + length :], "vllm")
    assert sample.running is None or sample.running >= 0


HISTOGRAM = (
    "# TYPE vllm:time_to_first_token_seconds histogram\n"
    'vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 2\n'
    'vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5"} 8\n'
    'vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 10\nvllm:time_to_first_token_seconds_sum{engine="0"} 5\n'
)


def test_histograms_are_added_over_engines_and_give_quantiles() -> None:
    two = HISTOGRAM + "".join(f"{x}\n" for x in HISTOGRAM.replace('"0"', '"1"').split("\n")[1:] if x)
    spread = parse_serving(two, "vllm").ttft
    assert spread is not None
    assert (spread.total, spread.counts) == (20.0, (4.0, 16.0, 20.0))
    assert spread.quantile(0.2) == pytest.approx(0.1)
    assert spread.quantile(0.5) == pytest.approx(0.3)
    assert spread.quantile(0.99) == 0.5, "beyond the last bound nothing is known"
    assert Spread(spread.bounds, (0.0, 0.0, 0.0)).quantile(0.5) is None
    older = Spread(spread.bounds, (4.0, 6.0, 6.0))
    assert spread.since(older) == Spread(spread.bounds, (0.0, 10.0, 14.0))
    assert older.since(spread) is None, "it was started again"
    assert sum(share for _, share in spread.shares()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HISTOGRAM.replace(" 8\n", " 1\n"), "do not grow"),
        (HISTOGRAM.replace('"+Inf"', '"9"'), "no bucket"),
        (HISTOGRAM.replace('"0.1"', '"x"'), "no number"),
        (HISTOGRAM.replace(" 8\n", " NaN\n"), "is nan"),
        (HISTOGRAM.replace("histogram", "gauge"), "is a gauge"),
        (HISTOGRAM + 'vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf"} 1\n', "different buckets"),
    ],
)
def test_a_broken_histogram_is_unknown(text: str, reason: str) -> None:
    sample = parse_serving(text + Q, "vllm")
    assert sample.ttft is None
    assert reason in sample.reasons["ttft"]
    assert sample.waiting == 3.0


def test_a_value_with_an_old_time_of_its_own_is_unknown() -> None:
    now = 1_760_000_000.0
    for age, known_ in ((10, True), (300, False)):
        for stamp in (f"{(now - age) * 1000:.0f}", f"{now - age:.0f}"):
            sample = parse_serving(f"vllm:num_requests_running 5 {stamp}\n", "vllm", at=now)
            assert (sample.running is not None) == known_
    assert "carries a time 300 s ago" in sample.reasons["running"]


def test_more_requests_than_a_server_can_hold_are_not_believed() -> None:
    assert "more than one server" in parse_serving("vllm:num_requests_running 2e6\n", "vllm").reasons["running"]


def test_names_of_the_service_file_come_first() -> None:
    series = {"running": 'my_requests{state="run"}', "waiting": "my_queue", "ttft": "my_ttft_seconds"}
    text = 'my_requests{state="run"} 4\nmy_requests{state="idle"} 9\nmy_queue 2\nvllm:num_requests_running 7\n'
    sample = parse_serving(text, "custom", series=series)
    assert (sample.running, sample.waiting) == (4.0, 2.0)
    assert "my_ttft_seconds is not in the answer" in sample.reasons["ttft"]
    assert parse_serving(text, "vllm", series=series).running == 4.0
    assert parse_serving(Q + "vllm:num_requests_running 7\n", "vllm", series=series).running == 7.0
    for fact, name in (("runing", "x"), ("running", "a b"), ("running", "a{b=c}"), ("running", "")):
        with pytest.raises(ValueError, match=r"not a fact|name of a series"):
            selector(fact, name)


def test_the_size_of_the_kv_cache() -> None:
    text = 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1\n'
    assert parse_serving(text, "vllm").kv_tokens == 16000.0
    assert "no number" in parse_serving(text.replace("1000", "None"), "vllm").reasons["kv_tokens"]
