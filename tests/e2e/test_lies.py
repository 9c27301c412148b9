"""The serving stack is down, lies or starts again at a peak: no replica is drained, and no valley opens for batch jobs."""

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from tests.helpers.live import LiveSite
from tests.helpers.live_daemon import Colocd
from tests.helpers.live_small import small_cluster

from colocd.clock import SystemClock
from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
CLOCK = SystemClock()
LIE = 2.5
"""Seconds of each lie: longer than `scale_down_after` (1.5 s) and several cycles."""


class Stack:
    """Metrics of all replicas as the test says. `lie` makes the text of `running` requests and `tokens` since the start."""

    def __init__(self) -> None:
        self.running = 8.0
        self.born = CLOCK.monotonic()
        self.mode = "honest"
        stack = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = stack.text()
                self.send_response(200 if text is not None else 503)
                with contextlib.suppress(ConnectionError):
                    self.end_headers()
                    self.wfile.write((text or "").encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def text(self) -> str | None:
        running, tokens, end = str(self.running), 1000 * (CLOCK.monotonic() - self.born), ""
        match self.mode:
            case "down":
                return None
            case "hangs":  # longer than anybody waits for an answer
                CLOCK.sleep(3.0)
            case "NaN":
                running = "NaN"
            case "absurd":
                running = "1e9"
            case "frozen":  # a cache that answers with values of an hour ago, and says so
                running, end = "0", f" {(CLOCK.now() - 3600) * 1000:.0f}"
            case "zeros":
                running, tokens = "0", 0.0
            case "cut":
                return "vllm:num_requests_waiting 0\nvllm:num_requests_running 0"
        return (
            f"vllm:num_requests_running {running}{end}\nvllm:num_requests_waiting 0{end}\n"
            f"vllm:generation_tokens_total {tokens:.0f}{end}\n"
        )


def endpoints(site: LiveSite) -> list[dict[str, Any]]:
    """What a router is answered on the public socket."""
    transport = httpx.HTTPTransport(uds=f"{site.base}/c.sock")
    with httpx.Client(transport=transport, base_url="http://coloc", timeout=20, trust_env=False) as client:
        answer = client.get("/v1/services/chat/endpoints").json()
    assert answer["service"] == "chat"
    found: list[dict[str, Any]] = answer["endpoints"]
    assert all(e["target"] == f"{e['address']}:{site.port + e['slot']}" for e in found)
    return found


def further(colocd: Colocd, cycles: int) -> bool:
    """Whether two more cycles have ended."""
    return colocd.said("WATCHDOG=1") > cycles + 1


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    with small_cluster() as up:
        yield up


def test_no_valley_opens(site: LiveSite) -> None:
    """Three replicas and one batch job fill two nodes; a second batch job waits for a valley that no lie opens.

    Then an honest evening: who drains is on no list any more, and ends with its last request, long before its grace is over.
    """
    stack = Stack()
    try:
        url = f"http://127.0.0.1:{stack.port}/metrics?slot={{slot}}"
        site.service |= {"min_replicas": 3, "max_replicas": 4, "drain_grace": 600.0}
        site.write_service(load_url=url)
        site.begin()
        site.until(lambda: site.ready() == 3, "three ready replicas")
        site.service["min_replicas"] = 1
        site.write_service(load_url=url)
        site.ask("service", "apply", str(site.base / "chat.toml"))
        site.until(lambda: site.status()["services"][0]["load"] == 24.0, "an honest reading of all")
        first, waiting = site.submit("train-0", 4, 100_000), site.submit("train-1", 4, 100_000)
        site.until(lambda: site.states([first]) == {JobState.RUNNING}, "the start of the batch job that fits")
        before = sorted(job.ref for job in site.replicas())
        colocd = site.colocd
        assert colocd is not None
        for lie in ("down", "hangs", "NaN", "absurd", "frozen", "zeros", "cut"):
            stack.mode = lie
            site.until(lambda: site.status()["services"][0]["load"] is None, f"a load that is unknown: {lie}")
            cycles = colocd.said("WATCHDOG=1")
            CLOCK.sleep(LIE)
            site.until(partial(further, colocd, cycles), "it goes on")
            service = site.status()["services"][0]
            assert (service["load"], service["have"], service["need"]) == (None, 3, 3), lie
            assert sorted(job.ref for job in site.replicas()) == before, lie
            assert site.states([waiting]) == {JobState.PENDING}, lie
            stack.mode, stack.born = "honest", CLOCK.monotonic()
            site.until(lambda: site.status()["services"][0]["load"] == 24.0, f"an honest reading after: {lie}")
        assert not site.decisions("drain")
        assert site.states([first]) == {JobState.RUNNING}, "nobody was evicted for a lie, either"
        assert len(endpoints(site)) == 3
        stack.running = 1.0
        site.until(lambda: len(endpoints(site)) == 1, "an honest evening: routers are told of one replica only")
        cycles = colocd.said("WATCHDOG=1")
        site.until(lambda: colocd.said("WATCHDOG=1") > cycles + 2, "some cycles")
        assert len(site.replicas()) == 3, "the others still have a request each, and their grace is long"
        assert site.states([waiting]) == {JobState.PENDING}
        stack.running = 0.0
        site.until(lambda: site.states([waiting]) == {JobState.RUNNING}, "the valley after their last request")
        site.until(lambda: [job.ref for job in site.replicas()] == [e["job"] for e in endpoints(site)], "their end")
    finally:
        stack.close()
