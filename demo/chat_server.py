#!/usr/bin/env python3
"""A stand-in for one vLLM server: health, metrics and a share of the day's load. Standard library only.

Environment: COLOC_PORT (port on loopback), COLOC_DEMO (shared folder), COLOC_SLOT, COLOC_WARMUP (seconds until ready),
COLOC_CAPACITY (requests that run at once; those above wait). In the shared folder: `curve.json` ({"start": Unix seconds,
"points": [[seconds, requests], …]}), `live/` (a heartbeat file per ready replica) and `replicas.log` (one line a start).
The load of the curve is shared evenly among the replicas whose heartbeat is fresh.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

BEAT = 0.5
FRESH = 2.0
PROMPT, GENERATED = 220.0, 35.0
"""Tokens per second and running request."""
KV_PER_REQUEST = 0.05
LABELS = 'engine="0",model_name="demo-chat"'


def curve_at(points: list[list[float]], seconds: float) -> float:
    """Load at a time since the start, straight between the points."""
    if seconds <= points[0][0]:
        return points[0][1]
    for (t0, v0), (t1, v1) in pairwise(points):
        if seconds <= t1:
            return v0 + (v1 - v0) * (seconds - t0) / (t1 - t0)
    return points[-1][1]


class Engine:
    """What the server claims to do. `ready` after the warm-up; counters only grow."""

    def __init__(self, folder: Path, slot: str, capacity: int, warmup: float) -> None:
        self.folder = folder
        self.capacity = capacity
        self.ready_at = time.monotonic() + warmup
        self.beat_file = folder / "live" / f"{slot}-{os.getpid()}"
        self.prompt = self.generated = 0.0
        self.lock = threading.Lock()
        self.counted = time.monotonic()

    @property
    def ready(self) -> bool:
        """True once the warm-up has passed."""
        return time.monotonic() >= self.ready_at

    def until_beat(self) -> float:
        """Seconds until the next beat; the first one comes as soon as the warm-up has passed."""
        return BEAT if self.ready else min(BEAT, max(0.01, self.ready_at - time.monotonic()))

    def requests(self) -> tuple[int, int]:
        """Requests running and waiting here now; none before the replica is ready."""
        if not self.ready:
            return 0, 0
        day = json.loads((self.folder / "curve.json").read_text())
        total = round(curve_at(day["points"], time.time() - day["start"]))
        live = self._live()
        share, rest = divmod(total, max(1, len(live)))
        mine = live.index(self.beat_file.name) if self.beat_file.name in live else len(live)
        share += 1 if mine < rest else 0
        return min(share, self.capacity), max(0, share - self.capacity)

    def _live(self) -> list[str]:
        found, now = [], time.time()
        with os.scandir(self.folder / "live") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if now - entry.stat().st_mtime < FRESH:
                        found.append(entry.name)
        return sorted(found)

    def beat(self) -> None:
        """Say that this replica is alive, and count the tokens since the last beat."""
        if self.ready:
            self.beat_file.touch()
        running, _ = self.requests()
        with self.lock:
            now = time.monotonic()
            self.prompt += PROMPT * running * (now - self.counted)
            self.generated += GENERATED * running * (now - self.counted)
            self.counted = now

    def metrics(self) -> str:
        """Prometheus text with vLLM's names and labels."""
        running, waiting = self.requests()
        with self.lock:
            prompt, generated = self.prompt, self.generated
        kv = min(1.0, KV_PER_REQUEST * running)
        by_reason = "num_requests_waiting_by_reason"
        rows: list[tuple[str, str, str, list[tuple[str, float]]]] = [
            ("num_requests_running", "gauge", "Number of requests in model execution batches.", [("", running)]),
            ("num_requests_waiting", "gauge", "Number of requests waiting to be processed.", [("", waiting)]),
            (by_reason, "gauge", "Number of waiting requests by reason.", [("capacity", waiting), ("deferred", 0)]),
            (
                "kv_cache_usage_perc",
                "gauge",
                "KV-cache usage. 1 means 100 percent usage.",
                [("", kv)],
            ),
            ("prompt_tokens_total", "counter", "Number of prefill tokens processed.", [("", prompt)]),
            ("generation_tokens_total", "counter", "Number of generation tokens processed.", [("", generated)]),
        ]
        lines = []
        for name, kind, text, values in rows:
            lines += [f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} {kind}"]
            for reason, value in values:
                labels = LABELS + (f',reason="{reason}"' if reason else "")
                lines.append(f"vllm:{name}{{{labels}}} {float(value)}")
        return "\n".join(lines) + "\n"


def handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    """The request handler of one engine."""

    class Handler(BaseHTTPRequestHandler):
        """GET /health and /metrics."""

        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer; anything else is 404."""
            if self.path == "/health":
                self._send(*((200, "ok\n") if engine.ready else (503, "warming up\n")))
            elif self.path == "/metrics":
                self._send(200, engine.metrics())
            else:
                self._send(404, "not here\n")

        def _send(self, code: int, text: str) -> None:
            body = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: a line per scrape is too much."""

    return Handler


class Server(ThreadingHTTPServer):
    """One thread per connection; none of them keeps the process alive."""

    daemon_threads = True
    allow_reuse_address = True


def note(folder: Path, slot: str) -> None:
    """One line in the shared log: which GPUs this replica was given."""
    words = [f"{time.time():.3f}", f"slot={slot}", f"job={os.environ.get('SLURM_JOB_ID', '-')}"]
    words += [f"node={os.environ.get('SLURMD_NODENAME', '-')}"]
    words += [f"{key}={os.environ.get(key, '-')}" for key in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS")]
    handle = os.open(folder / "replicas.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, (" ".join(words) + "\n").encode())
    finally:
        os.close(handle)


def main() -> int:
    """Serve until TERM or INT."""
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread starts: only the wait below takes them
    folder, slot = Path(os.environ["COLOC_DEMO"]), os.environ.get("COLOC_SLOT", "0")
    capacity, warmup = int(os.environ.get("COLOC_CAPACITY", "16")), float(os.environ.get("COLOC_WARMUP", "3"))
    engine = Engine(folder, slot, capacity, warmup)
    server = Server(("127.0.0.1", int(os.environ["COLOC_PORT"])), handler(engine))
    note(folder, slot)
    print(f"listening on {server.server_address[1]}", flush=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    try:
        while signal.sigtimedwait(ends, engine.until_beat()) is None:
            engine.beat()
    finally:
        with contextlib.suppress(FileNotFoundError):
            engine.beat_file.unlink()
        server.shutdown()
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
