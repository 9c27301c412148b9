"""The queries, asked of a real Prometheus that scrapes what dcgm-exporter would tell (`make test-routers` installs it)."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from tests.act.test_routers import program
from tests.agent.test_prometheus import asked

from colocd.clock import SystemClock
from colocd.config_telemetry import PrometheusConfig
from colocd.gpus.prometheus import Prometheus
from colocd.testcluster import ports

pytestmark = pytest.mark.routers
CLOCK = SystemClock()


def exposition() -> str:
    """Two GPUs, of which the second has two jobs (two series each), and an instance of a third."""
    lines = []
    for gpu, jobs, instance in ((0, ("",), ""), (1, ("17", "18"), ""), (2, ("",), "7")):
        for job in jobs:
            labels = {
                "gpu": gpu, "UUID": f"GPU-{gpu}", "pci_bus_id": f"00000000:0{gpu}:00.0", "device": f"nvidia{gpu}",
                "modelName": "NVIDIA H100 80GB HBM3", "Hostname": "gpu01.cluster.example", "hpc_job": job, "GPU_I_ID": instance,
            }  # fmt: skip
            told = ",".join(f'{name}="{value}"' for name, value in labels.items() if value != "")
            values = {"DEV_FB_USED": 1000 + gpu, "DEV_POWER_USAGE": 312.5, "DEV_XID_ERRORS": 79 * gpu}
            values |= {"DEV_GPU_UTIL": 70} if gpu == 0 else {"PROF_GR_ENGINE_ACTIVE": 0.25}
            lines += [f"DCGM_FI_{name}{{{told}}} {value}" for name, value in values.items()]
    return "\n".join(sorted(lines)) + "\n"


@pytest.fixture
def exporter() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(exposition().encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def prometheus(tmp_path: Path, exporter: int) -> Iterator[str]:
    port = ports.reserve(tmp_path, 1)
    (tmp_path / "p.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f'scrape_configs: [{{job_name: dcgm, static_configs: [{{targets: ["127.0.0.1:{exporter}"]}}]}}]\n'
    )
    words = [program("prometheus"), f"--config.file={tmp_path}/p.yml", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        yield f"http://127.0.0.1:{port}"
        running.terminate()
        running.wait(20)


def test_what_a_real_prometheus_answers(prometheus: str) -> None:
    found = Prometheus(PrometheusConfig(url=prometheus, select='job="dcgm"'), CLOCK, 10.0, 60.0)
    found.expect({"gpu01": "10.0.0.1"})
    for _ in range(60):
        if asked(found).latest():
            break
        CLOCK.sleep(0.5)
    assert found.problems() == ()
    seen = found.latest()["gpu01"]
    assert CLOCK.now() - seen.at < 10
    assert [(g.index, g.minor, g.uuid, g.bus_id) for g in seen.gpus] == [
        (0, 0, "GPU-0", "00000000:00:00.0"),
        (1, 1, "GPU-1", "00000000:01:00.0"),
    ]
    assert [(s.sm, s.used, s.power, s.xids) for s in seen.samples] == [
        (70, 1000, 312_500, ()),
        (25, 1001, 312_500, (79,)),
    ]
    with httpx.Client(trust_env=False) as client:
        told = client.post(f"{prometheus}/api/v1/query", data={"query": "DCGM_FI_DEV_FB_USED"}).json()
    assert len(told["data"]["result"]) == 4, json.dumps(told)
