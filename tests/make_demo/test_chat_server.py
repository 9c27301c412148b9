"""The stand-in for a vLLM server: readiness, metric names, shared load, a clean end."""

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., "subprocess.Popen[str]"]
GOLDEN = {
    "vllm:num_requests_running": {'engine="0"', "model_name"},
    "vllm:num_requests_waiting": {'engine="0"', "model_name"},
    "vllm:num_requests_waiting_by_reason": {'engine="0"', "model_name", "reason"},
    "vllm:kv_cache_usage_perc": {'engine="0"', "model_name"},
    "vllm:prompt_tokens_total": {'engine="0"', "model_name"},
    "vllm:generation_tokens_total": {'engine="0"', "model_name"},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def value(text: str, name: str) -> float:
    """Sum of the metric's samples of exactly this name."""
    found = re.findall(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.MULTILINE)
    assert found, f"{name} is not in\n{text}"
    return sum(map(float, found))


def wait_for(what: Callable[[], Any], seconds: float = 15.0) -> None:
    until = time.monotonic() + seconds  # noqa: TID251 -- waits for a real process
    while not what():
        assert time.monotonic() < until, "it did not happen in time"  # noqa: TID251
        time.sleep(0.02)  # noqa: TID251


class Farm:
    """Replicas that share one curve."""

    def __init__(self, folder: Path, start: Start, total: float) -> None:
        self.folder, self.start = folder, start
        (folder / "live").mkdir()
        (folder / "curve.json").write_text(json.dumps({"start": 0, "points": [[0, total], [1, total]]}))

    def replica(self, slot: int, warmup: float = 0.0, **env: str) -> tuple["subprocess.Popen[str]", int]:
        port = free_port()
        env |= {"COLOC_PORT": str(port), "COLOC_DEMO": str(self.folder), "COLOC_SLOT": str(slot)}
        process = self.start("chat_server.py", COLOC_WARMUP=str(warmup), COLOC_CAPACITY="16", **env)
        assert process.stdout is not None
        assert process.stdout.readline() == f"listening on {port}\n"
        return process, port

    def live(self) -> int:
        return len(list((self.folder / "live").iterdir()))


@pytest.fixture
def farm(tmp_path: Path, start: Start) -> Callable[[float], Farm]:
    return lambda total: Farm(tmp_path, start, total)


def test_not_ready_before_the_warm_up(farm: Callable[[float], Farm]) -> None:
    """While it warms up it answers 503, carries nothing and is not counted by the others."""
    group = farm(10)
    _, port = group.replica(0, warmup=3600)
    assert get(port, "/health")[0] == 503
    assert value(get(port, "/metrics")[1], "vllm:num_requests_running") == 0
    assert group.live() == 0


def test_becomes_ready(farm: Callable[[float], Farm]) -> None:
    group = farm(10)
    _, port = group.replica(0, warmup=0.3)
    wait_for(lambda: get(port, "/health")[0] == 200)
    wait_for(lambda: group.live() == 1)
    assert value(get(port, "/metrics")[1], "vllm:num_requests_running") == 10


def test_metric_names_and_labels_are_those_of_vllm(farm: Callable[[float], Farm]) -> None:
    _, port = farm(5).replica(0)
    text = get(port, "/metrics")[1]
    names = set(re.findall(r"^(vllm:\w+)\{", text, re.MULTILINE))
    assert names == set(GOLDEN)
    for name, labels in GOLDEN.items():
        for found in re.findall(rf"^{name}\{{([^}}]*)\}}", text, re.MULTILINE):
            assert all(label in found for label in labels)
        assert f"# TYPE {name} " in text


def test_above_the_capacity_requests_wait(farm: Callable[[float], Farm]) -> None:
    group = farm(21)
    _, port = group.replica(0)
    wait_for(lambda: group.live() == 1)
    text = get(port, "/metrics")[1]
    assert value(text, "vllm:num_requests_running") == 16
    assert value(text, "vllm:num_requests_waiting") == 5
    assert value(text, "vllm:num_requests_waiting_by_reason") == 5


def test_load_is_shared_and_moves_when_a_replica_ends(farm: Callable[[float], Farm]) -> None:
    """Nothing is lost or counted twice by the division; TERM ends a replica cleanly and at once."""
    group = farm(23)
    replicas = [group.replica(slot) for slot in range(3)]
    wait_for(lambda: group.live() == 3)
    shares = [value(get(port, "/metrics")[1], "vllm:num_requests_running") for _, port in replicas]
    assert sorted(shares) == [7, 8, 8]
    process, _ = replicas[0]
    process.terminate()
    assert process.wait(timeout=10) == 0
    assert group.live() == 2
    left = [get(port, "/metrics")[1] for _, port in replicas[1:]]
    assert sum(value(t, "vllm:num_requests_running") + value(t, "vllm:num_requests_waiting") for t in left) == 23


def test_counters_grow(farm: Callable[[float], Farm]) -> None:
    _, port = farm(4).replica(0)
    wait_for(lambda: value(get(port, "/metrics")[1], "vllm:generation_tokens_total") > 0)


def test_says_which_gpus_it_was_given(farm: Callable[[float], Farm]) -> None:
    group = farm(1)
    group.replica(4, CUDA_VISIBLE_DEVICES="0,1,2,3", SLURM_JOB_GPUS="4,5,6,7", SLURM_JOB_ID="99", SLURMD_NODENAME="n2")
    (line,) = (group.folder / "replicas.log").read_text().splitlines()
    assert line.split()[1:] == [
        *("slot=4", "job=99", "node=n2"),
        *("CUDA_VISIBLE_DEVICES=0,1,2,3", "SLURM_JOB_GPUS=4,5,6,7"),
    ]
