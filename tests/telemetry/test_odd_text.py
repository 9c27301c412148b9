"""Prometheus text as few servers write it: exemplars, and SGLang's labels of workers and priorities."""

import math

from colocd.telemetry.names import FACTS
from colocd.telemetry.serving import ServingSample, parse_serving
from colocd.telemetry.spread import Spread


def known(sample: ServingSample) -> dict[str, float]:
    return {fact: getattr(sample, fact) for fact in FACTS if getattr(sample, fact) is not None}


def test_an_exemplar_of_open_metrics_spoils_no_histogram() -> None:
    text = (
        "# TYPE vllm:time_to_first_token_seconds histogram\n"
        'vllm:time_to_first_token_seconds_bucket{le="0.1",m="a # {b} \\" c"} 4 # {trace_id="KO # {5"} 0.067 1700000000.5\n'
        'vllm:time_to_first_token_seconds_bucket{le="+Inf",m="a # {b} \\" c"} 5.0\n'
        'vllm:prompt_tokens_total 5.0 1700000000 # {trace_id="abc"} 1.0\nvllm:generation_tokens_total 7 # {\n# EOF\n'
    )
    sample = parse_serving("\ufeff" + text, "vllm", at=1700000001.0)
    assert sample.ttft == Spread((0.1, math.inf), (4.0, 5.0))
    assert known(sample) == {"prompt_tokens_total": 5.0, "generation_tokens_total": 7.0}


def test_sglangs_workers_and_priorities_are_counted_once() -> None:
    """Stages and experts of one engine tell the same; with priorities, the empty one is the sum of the others."""
    rows = [(dp, pp, ep, priority) for dp in "01" for pp in "01" for ep in "01" for priority in ("", "1", "-2")]
    text = "".join(
        f'sglang:num_running_reqs{{dp_rank="{dp}",pp_rank="{pp}",moe_ep_rank="{ep}",priority="{priority}"}} '
        f"{6 if priority == '' else 3}\n"
        for dp, pp, ep, priority in rows
    )
    tokens = 'sglang:prompt_tokens_total{priority=""} 10\nsglang:prompt_tokens_total{priority="1"} 20\n'
    assert known(parse_serving(text + tokens, "sglang")) == {"running": 12.0, "prompt_tokens_total": 30.0}
    only = 'my_running{priority="1"} 3\nmy_running{priority="2"} 4\n'
    assert parse_serving(only, "custom", series={"running": "my_running"}).running == 7.0


def test_open_metrics_and_windows_line_ends() -> None:
    text = "# TYPE vllm:prompt_tokens counter\r\nvllm:prompt_tokens_total 5.0 1700000000\r\n# EOF"
    assert known(parse_serving(text, "vllm")) == {"prompt_tokens_total": 5.0}
