"""A round of readings from Prometheus: a stand-in that answers for 1,250 nodes of 8 GPUs, with all series coloc asks for.

python bench/bench_prometheus.py [--nodes 1250] [--rounds 5]
"""

import argparse
import json
import multiprocessing
import resource
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx

from colocd.clock import SystemClock
from colocd.config_telemetry import PrometheusConfig
from colocd.gpus.prometheus import NAMES, Prometheus

CLOCK = SystemClock()


def answer(nodes: int, names: tuple[str | None, ...]) -> bytes:
    """An instant query's answer with a series for each GPU and name; without a name the labels of the GPU and its time."""
    now, rows = CLOCK.now(), []
    for name in names:
        for node in range(nodes):
            for gpu in range(8):
                labels = {"Hostname": f"gpu{node:04}.cluster.example.org", "gpu": str(gpu)}
                if name is not None:
                    labels["__name__"] = name
                else:
                    uuid = f"GPU-{node:08x}-{gpu:04x}-4444-5555-666677778888"
                    labels |= {"device": f"nvidia{gpu}", "UUID": uuid, "pci_bus_id": f"00000000:{gpu:02X}:00.0"}
                    labels |= {"modelName": "NVIDIA H100 80GB HBM3"}
                rows.append({"metric": labels, "value": [now, "1" if name is not None else str(now)]})
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": rows}}).encode()


def main() -> None:
    """Print the size of the answers, then a line a round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1250)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    times, values = answer(options.nodes, (None,)), answer(options.nodes, NAMES)
    print(f"answers of {len(times) / 1e6:.1f} and {len(values) / 1e6:.1f} MB")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = self.rfile.read(int(self.headers["Content-Length"]))
            body = times if b"timestamp" in query else values
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    process = multiprocessing.Process(target=server.serve_forever, daemon=True)
    process.start()
    found = Prometheus(PrometheusConfig(url=f"http://127.0.0.1:{server.server_address[1]}"), CLOCK, 10.0, 3600.0)
    found.expect({f"gpu{node:04}": "" for node in range(options.nodes)})
    with httpx.Client(timeout=60, trust_env=False) as client:
        for _ in range(options.rounds):
            begun, used = CLOCK.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
            found.round(client)
            now = resource.getrusage(resource.RUSAGE_SELF)
            cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
            wall = CLOCK.monotonic() - begun
            print(f"{wall:.2f} s, {cpu:.2f} s of CPU; {len(found.latest())} nodes {'; '.join(found.problems())}")
    process.terminate()


if __name__ == "__main__":
    main()
