"""A whole daemon in one process: virtual Slurm and clock, a real SQLite store, a real HTTP server with metrics."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from coloc_topology.shape import quads
from colocd.app import Daemon
from colocd.config import Config, CycleConfig, DatabaseConfig, TopologyConfig, TopologySource
from colocd.core.comment import with_checkpoint
from colocd.core.policy import Policy
from colocd.core.view import Checkpoint, Job, JobState
from colocd.sim.clock import VirtualClock
from colocd.sim.program import Program
from colocd.sim.slurm import VirtualSlurm
from colocd.slurm.port import Submission
from colocd.store import open_store
from colocd.store.schema import upgrade
from colocd.store.sql import SqlStore

SERVICE = """
name = "{name}"
user = "root"
partition = "online"
gpus_per_replica = 2
link_level = "NVLINK"
mode = "guaranteed"
min_replicas = 1
max_replicas = 6
lead_time = 20
drain_grace = 5
script = "#!/bin/sh\\nexec sleep 1000\\n"
[capacity]
per_replica = 10
target_use = 1.0
[load]
url = "http://127.0.0.1:{port}/metrics"
[ready]
url = "http://127.0.0.1:{port}/health"
timeout = 60
"""
TEXT = 'vllm:num_requests_running{{engine="0"}} {value}\nvllm:num_requests_waiting{{engine="0"}} 0\n'


class Endpoint:
    """A service's load and health, as the test says. `body` overrides the metrics text; `healthy` the ready check."""

    def __init__(self) -> None:
        self.value = 0.0
        self.body: str | None = None
        self.healthy = True
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ok = endpoint.healthy or self.path != "/health"
                text = TEXT.format(value=endpoint.value) if endpoint.body is None else endpoint.body
                self.send_response(200 if ok else 503)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering; again is no error."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class DaemonRig:
    """Cycles every 5 virtual seconds; `run(seconds)` steps handovers every second in between, as the timetable does."""

    def __init__(self, folder: Path, *, mode: str = "act", nodes: int = 2, policy: Policy | None = None) -> None:
        self.clock = VirtualClock(1_760_000_000.0)
        self.programs: dict[str, Program] = {}
        self.slurm = VirtualSlurm(
            self.clock,
            {f"n{i}": quads() for i in range(1, nodes + 1)},
            program_for=lambda job: self.programs.get(job.name, Program(signal="USR1", acks_after=1.0)),
            sched_delay=0.1,
        )
        topology = folder / "quads.txt"
        topology.write_text(nvidia_smi_text())
        url = f"sqlite:///{folder}/coloc.db"
        upgrade(url)
        self.config = Config(
            mode=mode,  # type: ignore[arg-type]
            database=DatabaseConfig(url=url),
            cycle=CycleConfig(period=5.0, handover_period=1.0),
            topology=TopologyConfig(sources=(TopologySource(nodes=f"n[1-{nodes}]", file=str(topology)),)),
            policy=policy
            or Policy(
                grace=30.0,
                protected_runtime=10.0,
                start_timeout=20.0,
                scale_down_after=20.0,
                min_stay=0.0,
                min_useful=30.0,
                retry_after=15.0,
            ),
        )
        self.endpoint = Endpoint()
        self.store: SqlStore = open_store(url)
        self.daemon = Daemon(self.config, self.slurm, self.store, self.clock)

    def close(self) -> None:
        self.endpoint.close()
        self.store.close()

    def restart(self) -> None:
        self.store.close()
        self.store = open_store(self.config.database.url)
        self.daemon = Daemon(self.config, self.slurm, self.store, self.clock)

    def apply(self, name: str = "chat") -> None:
        self.daemon.answers.apply_service(SERVICE.format(name=name, port=self.endpoint.port), f"{name}.toml")

    def batch(self, name: str, gpus: int = 1, user: str = "ann") -> str:
        return self.slurm.submit(
            Submission(
                name=name,
                script="#!/bin/sh\n",
                partition="batch",
                user=user,
                gpus=gpus,
                requeue=True,
                held=True,
                comment=with_checkpoint("", Checkpoint(signal="USR1", to="batch", interval=30.0)),
            )
        )

    def run(self, seconds: float) -> str:
        sentence = ""
        for _ in range(int(seconds // 5) or 1):
            sentence = self.daemon.cycle()
            for _ in range(5):
                self.clock.advance(1.0)
                self.daemon.step_handovers()
        return sentence

    def jobs(self, name: str = "", state: JobState = JobState.RUNNING) -> list[Job]:
        return [j for j in self.slurm.read().jobs if j.name.startswith(name) and j.state is state]

    def decisions(self, kind: str) -> list[str]:
        return [d.text for d in self.store.decisions(limit=1000) if d.kind == kind]


def nvidia_smi_text() -> str:
    """`nvidia-smi topo -m` of the two-quad server."""
    shape = quads()
    head = "\t" + "\t".join(f"GPU{i}" for i in range(8)) + "\tCPU Affinity\tNUMA Affinity"
    rows = [f"GPU{i}\t" + "\t".join(shape.links[i]) + f"\t{shape.cores[i]}\t{shape.numa[i]}" for i in range(shape.gpus)]
    return "\n".join([head, *rows]) + "\n"
