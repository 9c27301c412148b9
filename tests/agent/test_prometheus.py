"""dcgm-exporter's metrics through the query API of Prometheus, as a stand-in speaks it."""

import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from colocd.clock import SystemClock
from colocd.config_telemetry import PrometheusConfig
from colocd.gpus.prometheus import Prometheus, Series, readings

NODES = {"gpu01": "10.0.0.1", "gpu02": "10.0.0.2"}


class StandIn:
    """Holds scraped samples; answers `timestamp(…)` and `last_over_time(…[W s])` instant queries as Prometheus does."""

    def __init__(self) -> None:
        self.samples: list[tuple[dict[str, str], float, str]] = []
        self.raw: tuple[int, bytes] | None = None
        self.queries: list[str] = []
        standin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                status, body = standin.answer(self.path, form["query"][0])
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def scrape(self, node: str, gpu: int, age: float = 1.0, **facts: object) -> None:
        for name, value in {"FB_USED": 1024, **facts}.items():
            labels = {
                "__name__": f"DCGM_FI_DEV_{name}",
                "Hostname": node,
                "gpu": str(gpu),
                "device": f"nvidia{gpu}",
                "UUID": f"GPU-{gpu}",
                "pci_bus_id": f"00000000:{gpu + 1:02X}:00.0",
                "modelName": "NVIDIA H100 80GB HBM3",
                "hpc_job": "17",
                "cluster": "a",
            }
            self.samples.append((labels, time_now() - age, str(value)))

    def answer(self, path: str, query: str) -> tuple[int, bytes]:
        self.queries.append(query)
        if self.raw is not None:
            return self.raw
        assert path == "/api/v1/query"
        now = time_now()
        whole = re.fullmatch(r"max by \(([\w,]+)\) \((.*)\)", query)
        assert whole, query
        keep, query = whole[1].split(","), whole[2]
        found = re.fullmatch(r"timestamp\((\w+)\{(.*)\}\)", query)
        if found:
            rows = [(m, at, str(at)) for m, at, _ in self.samples if m["__name__"] == found[1] and now - at < 300]
            rows = [({k: v for k, v in m.items() if k != "__name__"}, at, text) for m, at, text in rows]
        else:
            found = re.fullmatch(r'last_over_time\(\{__name__=~"([\w|]+)"(.*)\}\[(\d+)s\]\)', query)
            assert found, query
            names, window = found[1].split("|"), int(found[3])
            rows = [s for s in self.samples if s[0]["__name__"] in names and now - s[1] <= window]
        for key, value in re.findall(r'(\w+)="([^"]*)"', found[2]):
            rows = [r for r in rows if r[0].get(key) == value]
        greatest: dict[tuple[tuple[str, str], ...], str] = {}
        for labels, _, text in rows:
            group = tuple((name, labels[name]) for name in keep if name in labels)
            greatest[group] = max(greatest.get(group, "-inf"), text, key=float)
        result = [{"metric": dict(group), "value": [now, text]} for group, text in greatest.items()]
        told = {"status": "success", "data": {"resultType": "vector", "result": result}}
        return 200, json.dumps(told).encode()


def time_now() -> float:
    return SystemClock().now()


@pytest.fixture
def standin() -> Iterator[StandIn]:
    made = StandIn()
    yield made
    made.close()


def source(standin: StandIn, **changes: Any) -> Prometheus:
    made = Prometheus(PrometheusConfig(url=standin.url, **changes), SystemClock(), 10.0, 60.0)
    made.expect(NODES)
    return made


def asked(found: Prometheus) -> Prometheus:
    with httpx.Client(timeout=5, trust_env=False) as client:
        found.round(client)
    return found


def test_readings_of_all_nodes_in_two_queries(standin: StandIn) -> None:
    for gpu in (1, 0):
        facts = {"GPU_UTIL": 70 + gpu, "POWER_USAGE": 312.5, "SM_CLOCK": 1980, "XID_ERRORS": 79 * gpu}
        standin.scrape("gpu01.cluster.example", gpu, **facts)
    standin.scrape("gpu02", 0, age=20.0, GPU_UTIL=5, ROW_REMAP_FAILURE=1, ECC_DBE_VOL_TOTAL=0)
    standin.scrape("elsewhere", 0, GPU_UTIL=99)
    found = asked(source(standin))
    assert (len(standin.queries), found.problems()) == (2, ())
    seen = found.latest()
    assert set(seen) == {"gpu01", "gpu02"}
    first = seen["gpu01"]
    assert [(g.index, g.minor, g.uuid) for g in first.gpus] == [(0, 0, "GPU-0"), (1, 1, "GPU-1")]
    assert [(s.sm, s.used, s.power, s.clock) for s in first.samples] == [
        (70, 1024, 312_500, 1980),
        (71, 1024, 312_500, 1980),
    ]
    assert [s.xids for s in first.samples] == [(), (79,)]
    assert (seen["gpu02"].samples[0].remap, seen["gpu02"].samples[0].ecc) == (2, 0)
    assert 15 < time_now() - seen["gpu02"].at < 25


def test_stale_samples_are_unknown(standin: StandIn) -> None:
    """Prometheus answers instant queries with values of up to five minutes ago."""
    standin.scrape("gpu01", 0, age=120.0, GPU_UTIL=70)
    found = asked(source(standin))
    assert found.latest() == {}
    assert "has no fresh DCGM_FI_DEV_FB_USED" in found.problems()[0]
    standin.scrape("gpu01", 1, age=2.0, GPU_UTIL=30)
    assert [g.index for g in asked(found).latest()["gpu01"].gpus] == [1]


def test_profiling_metrics_stand_in_for_the_utilisation(standin: StandIn) -> None:
    """Sites that export DCGM's profiling metrics often leave GPU_UTIL out, which is not to be had with MIG either."""
    for gpu, facts in enumerate(({"GPU_UTIL": 70}, {}, {"XID_ERRORS": 0})):
        standin.scrape("gpu01", gpu, **facts)
        for name, value in (("GR_ENGINE_ACTIVE", 0.256), ("DRAM_ACTIVE", 1.5)):
            if gpu < 2:
                labels, at, _ = standin.samples[-1]
                standin.samples.append(({**labels, "__name__": f"DCGM_FI_PROF_{name}"}, at, str(value)))
    samples = asked(source(standin)).latest()["gpu01"].samples
    assert [(s.sm, s.memory_busy) for s in samples] == [(70, None), (26, None), (None, None)]


def test_what_lies_between_two_scrapes_is_measured_once(standin: StandIn) -> None:
    standin.scrape("gpu01", 0, age=16.0, GPU_UTIL=40, POWER_USAGE=100)
    found = asked(asked(source(standin)))
    assert found.drain() == {}
    standin.samples.clear()
    standin.scrape("gpu01", 0, age=1.0, GPU_UTIL=60, POWER_USAGE=200)
    ((spell,),) = asked(asked(found)).drain().values()
    assert (round(spell.seconds), spell.sm, spell.power) == (15, {0: 60}, {0: 200.0})


def test_more_matchers_and_mig(standin: StandIn) -> None:
    standin.scrape("gpu01", 0, GPU_UTIL=10)
    standin.samples[-1][0]["GPU_I_ID"] = "7"
    assert "last_over_time" in asked(source(standin, select='cluster="b"')).problems()[0] or standin.queries
    assert all('cluster="b"' in query for query in standin.queries)
    assert asked(source(standin, select='cluster="b"')).latest() == {}
    assert asked(source(standin, select='cluster="a"')).latest()["gpu01"].samples[0].sm is None


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ((200, b"<html>"), "malformed"),
        ((502, b"bad gateway"), "it answers 502"),
        ((400, b'{"status":"error","error":"parse error at char 3"}'), "parse error at char 3"),
        ((200, b'{"status":"success","data":{"resultType":"matrix","result":[]}}'), "it answers 200"),
        ((200, b'{"status":"success","data":{"resultType":"vector","result":[{"metric":1}]}}'), "Expected"),
        ((200, b'{"status":"success","data":{"resultType":"vector","result":[]}}'), "no fresh"),
    ],
)
def test_bad_answers(standin: StandIn, raw: tuple[int, bytes], why: str) -> None:
    standin.scrape("gpu01", 0, GPU_UTIL=10)
    found = asked(source(standin))
    before = found.latest()
    standin.raw = raw
    told = asked(found)
    assert why in told.problems()[0]
    assert told.latest() == before  # old by now; the board looks at its age
    standin.raw = None
    assert asked(found).problems() == ()


def test_nobody_answers() -> None:
    found = Prometheus(PrometheusConfig(url="http://127.0.0.1:9", timeout=0.5), SystemClock(), 10.0, 60.0)
    found.expect(NODES)
    assert "tells nothing of the GPUs" in asked(found).problems()[0]
    assert found.counts() == {"queries": 1, "queries-failed": 1}


def test_the_thread_asks_by_itself_and_ends(standin: StandIn) -> None:
    standin.scrape("gpu01", 0, GPU_UTIL=10)
    found = Prometheus(PrometheusConfig(url=standin.url), SystemClock(), 0.05, 60.0)
    found.expect(NODES)
    found.start()
    for _ in range(100):
        if found.latest():
            break
        SystemClock().sleep(0.05)
    assert set(found.latest()) == {"gpu01"}
    found.stop()
    count = len(standin.queries)
    SystemClock().sleep(0.2)
    assert len(standin.queries) == count


def test_values_that_are_no_values() -> None:
    labels = {"Hostname": "gpu01", "gpu": "0"}
    times = [Series(labels, (0.0, "100"))]
    names = ("GPU_UTIL", "POWER_USAGE", "XID_ERRORS", "ECC_DBE_VOL_TOTAL")
    for text in ("NaN", "+Inf", "-1", "x", "1e30", "101e9"):
        values = [Series({"__name__": f"DCGM_FI_DEV_{n}", **labels}, (0.0, text)) for n in names]
        sample = readings(times, values, frozenset(NODES), 0.0)["gpu01"].samples[0]
        assert sample.sm is None
        assert sample.power is None or text == "101e9"
    bad = [Series({"Hostname": "gpu01", "gpu": number}, (0.0, "100")) for number in ("-1", "x", "", "1000", "²")]
    assert readings(bad, bad, frozenset(NODES), 0.0) == {}
