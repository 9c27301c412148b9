"""A live site for end-to-end tests: a throw-away Slurm, a real colocd process, real commands, replicas and batch jobs."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from demo import files
from demo.report import steps_lost
from demo.sample import Allocation, allocations
from tests.helpers.live_daemon import Colocd

from coloc_topology.fit import fit_table
from coloc_topology.shape import Level, mask_of
from colocd.clock import SystemClock
from colocd.config import SlurmConfig
from colocd.core.view import Job, JobState
from colocd.slurm.cli import CliSlurm
from colocd.store import open_store
from colocd.store.sql import SqlStore
from colocd.testcluster import PrivateCluster, ports

LIMIT = 60.0
"""Seconds that a test waits for anything: generous, since speed is not what is tested."""
POLICY: dict[str, object] = {
    "grace": 20.0,
    "protected_runtime": 0.0,
    "max_evictions_per_job": 50,
    "eviction_cost": 10.0,
    "max_unsaved": 60.0,
    "valley_quantile": 0.5,
    "peak_quantile": 0.5,
    "min_useful": 1.0,
    "stale_after": 10.0,
    "start_timeout": 30.0,
    "retry_after": 2.0,
    "scale_down_after": 1.5,
}
SERVICE: dict[str, object] = {
    "name": "chat",
    "user": "root",
    "partition": "online",
    "gpus_per_replica": 4,
    "min_replicas": 1,
    "max_replicas": 7,
    "drain_grace": 3.0,
    "lead_time": 5.0,
}
CAPACITY = 10
"""Load that one replica carries; `peak_quantile` 0.5 and `target_use` 1 make the need load / CAPACITY, rounded up."""


def toml(values: Mapping[str, object]) -> str:
    """Lines of a TOML table; JSON writes these values alike."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())


class LiveSite:
    """Folder, configuration and service file of a site on `cluster`. Use as a context; colocd is started by `start`."""

    def __init__(
        self,
        cluster: PrivateCluster,
        *,
        mode: str = "act",
        policy: Mapping[str, object] | None = None,
        service: Mapping[str, object] | None = None,
        database: str | None = None,
        slurm_timeout: float = 10.0,
        period: float = 0.7,
    ) -> None:
        self.cluster, self.clock = cluster, SystemClock()
        self.base = Path(tempfile.mkdtemp(prefix="coloc-e2e-", dir="/tmp"))  # short: Unix sockets lie below it
        self.base.chmod(0o755)
        self.jobs, self.live = self.base / "jobs", self.base / "live"
        for folder in (self.jobs, self.live):
            folder.mkdir()
            folder.chmod(0o1777)
        self.database = database or f"sqlite:///{self.base / 'coloc.db'}"
        self.config, self.log = self.base / "colocd.toml", self.base / "colocd.log"
        self.slurm = CliSlurm(SlurmConfig(conf=str(cluster.conf), timeout=20.0), self.clock)
        self.port = ports.reserve(self.base, 10)
        self.load(0)
        self.settings: dict[str, dict[str, object]] = {
            "database": {"url": self.database},
            "slurm": {"conf": str(cluster.conf), "timeout": slurm_timeout},
            "cycle": {"period": period, "handover_period": 0.2},
            "policy": {**POLICY, **(policy or {})},
            "api": {"socket": f"{self.base}/c.sock", "admin_socket": f"{self.base}/a.sock"},
        }
        self.write_config(mode)
        self.service = {**SERVICE, **(service or {}), "port_base": self.port}
        self.write_service()
        self.colocd: Colocd | None = None

    # -- files -------------------------------------------------------------------------------------------------------

    def write_config(self, mode: str) -> None:
        """Write colocd.toml, whole or not at all."""
        topology = self.base / "topo.txt"
        topology.write_text(files.topology_text(self.cluster.spec.shape))
        source = {"nodes": f"n[1-{self.cluster.spec.nodes}]", "file": str(topology)}
        text = f'mode = "{mode}"\n[[topology.sources]]\n{toml(source)}'
        text += "".join(f"[{name}]\n{toml(values)}" for name, values in self.settings.items())
        fresh = self.base / "colocd.toml.new"
        fresh.write_text(text)
        fresh.replace(self.config)

    def write_service(self, load_url: str = "http://{address}:{port}/metrics", ready: str | None = "/health") -> None:
        """Write the service file; `ready` None: no ready check."""
        server = self.base / "chat_server.py"
        server.write_bytes((files.HERE / "chat_server.py").read_bytes())
        server.chmod(0o755)
        script = f"#!/bin/bash\nexport COLOC_DEMO={self.base} COLOC_WARMUP=0.3 COLOC_CAPACITY=100\n"
        text = toml({**self.service, "script": f"{script}exec {self.python} {server}\n"})
        text += f"[capacity]\n{toml({'per_replica': CAPACITY, 'target_use': 1.0})}[load]\n{toml({'url': load_url})}"
        if ready is not None:
            text += f"[ready]\n{toml({'url': 'http://{address}:{port}' + ready, 'timeout': 6.0})}"
        (self.base / "chat.toml").write_text(text)

    @property
    def python(self) -> str:
        """What replicas and batch jobs run on: the system's Python starts faster."""
        return "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable

    @property
    def environment(self) -> dict[str, str]:
        """For colocd, coloc and the jobs."""
        env = {**self.cluster.environment, "COLOC_CONFIG": str(self.config), "HOME": str(self.jobs)}
        for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
            if name in os.environ:
                env[name] = os.environ[name]
        return env

    def load(self, value: float) -> None:
        """Set the requests that all replicas together have from now on."""
        fresh = self.base / "curve.new"
        fresh.write_text(json.dumps({"start": 0, "points": [[0.0, value]]}))
        fresh.replace(self.base / "curve.json")

    # -- commands ----------------------------------------------------------------------------------------------------

    def run(self, module: str, *words: str, check: bool = True, **env: str) -> "subprocess.CompletedProcess[str]":
        """Run a module of the project as a command."""
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            env={**self.environment, **env},
            cwd=self.base,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{module} {words}: {done.stderr}{done.stdout}\n{self.tail()}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def coloc(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run `coloc`."""
        return self.run("coloc_cli.main", *words, check=check)

    def ask(self, *words: str) -> Any:
        """Run `coloc … --json` and read its answer."""
        return json.loads(self.coloc(*words, "--json").stdout)

    def submit(
        self,
        name: str,
        gpus: int,
        steps: int = 100_000,
        *,
        deaf: bool = False,
        nodes: str | None = None,
        grace: int = 15,
    ) -> str:
        """Submit a training job of 20 steps a second with `coloc-sbatch`; it is held until coloc releases it."""
        words = ["--parsable", f"--job-name={name}", f"--gpus-per-node={gpus}", "--nodes=1", "--ntasks=1"]
        words += [f"--output={self.jobs}/{name}.log", "--open-mode=append", "--signal=B:USR1", "--coloc-interval=1"]
        words += [f"--coloc-grace={grace}", *([f"--nodelist={nodes}"] if nodes else [])]
        job = [str(files.HERE / "train_job.sh"), str(files.HERE / "train_job.py"), str(self.jobs / name), str(steps)]
        job += ["--rate=20", "--every=3600", *(["--deaf"] if deaf else [])]
        env = {"COLOC_COMMAND": f"{sys.executable} -m coloc_cli.main", "COLOC_DEMO_PYTHON": self.python}
        return self.run("coloc_cli.sbatch_main", *words, *job, check=True, **env).stdout.strip()

    def strangers(self, count: int, partition: str, gpus: int = 1) -> list[str]:
        """A backlog of jobs of somebody who does not use coloc."""
        words = ["--parsable", f"--partition={partition}", "--output=/dev/null", "--job-name=other"]
        words += [f"--gpus-per-node={gpus}"]
        sbatch = ["sbatch", *words, "--wrap=sleep 3600"]
        return [self.cluster.run(*sbatch, user="nobody").stdout.strip() for _ in range(count)]

    def upgrade(self) -> None:
        """`coloc db upgrade`."""
        self.coloc("db", "upgrade")

    def start(self, *, ready: bool = True) -> Colocd:
        """Start colocd (and wait for READY=1)."""
        self.colocd = Colocd(self.config, self.log, self.environment, self.clock)
        if ready:
            self.until(lambda: self.colocd is not None and self.colocd.said("READY=1"), "READY=1 of colocd")
        return self.colocd

    def begin(self) -> Self:
        """What most tests start from: schema, colocd, the service applied."""
        self.upgrade()
        self.start()
        self.coloc("service", "apply", str(self.base / "chat.toml"))
        return self

    # -- looking -----------------------------------------------------------------------------------------------------

    def until(self, done: Callable[[], object], what: str, seconds: float = LIMIT) -> None:
        """Wait for something; fails with the end of colocd's log."""
        end = self.clock.monotonic() + seconds
        while not done():
            if self.colocd is not None:
                self.colocd.check()
            assert self.clock.monotonic() < end, f"{what} did not happen in {seconds:.0f} s: {self.tail()}"
            self.clock.sleep(0.15)

    def tail(self, lines: int = 25) -> str:
        """The end of colocd's log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""

    def running(self) -> tuple[Allocation, ...]:
        """What holds GPUs, read from Slurm without coloc."""
        return allocations(self.cluster.run("scontrol", "-d", "-o", "show", "job", check=False).stdout)

    def replicas(self) -> list[Job]:
        """Running replica jobs."""
        return [j for j in self.slurm.read().jobs if j.name.startswith("coloc-chat-") and j.state is JobState.RUNNING]

    def ready(self) -> int:
        """Replicas that coloc counts as ready."""
        return sum(int(s["ready"] or 0) for s in self.ask("status")["services"])

    def job(self, ref: str) -> Job:
        """One job as Slurm shows it."""
        return self.slurm.jobs([ref])[ref]

    def states(self, refs: Sequence[str]) -> set[JobState]:
        """The states of these jobs."""
        return {job.state for job in self.slurm.jobs(refs).values()}

    @contextlib.contextmanager
    def store(self) -> Any:
        """The store, opened beside colocd."""
        store: SqlStore = open_store(self.database)
        try:
            yield store
        finally:
            store.close()

    def decisions(self, kind: str) -> list[str]:
        """Sentences of all decisions of a kind, newest first."""
        with self.store() as store:
            return [d.text for d in store.decisions(limit=1000) if d.kind == kind]

    def lost(self, *names: str) -> int:
        """Steps that these jobs had to do again, from their own journals."""
        return sum(steps_lost(self.jobs / name / "journal") for name in names)

    def in_island(self, job: Job) -> bool:
        """Whether all GPUs of a job are joined by NVLink."""
        table = fit_table(self.cluster.spec.shape)
        return bool(job.gpus) and all(table.level_of(mask) >= Level.NVLINK for mask in (job.gpus or {}).values())

    def leftovers(self) -> list[str]:
        """Fences, and plugs that are not ended."""
        alive = (JobState.PENDING, JobState.RUNNING, JobState.CONFIGURING)
        plugs = [j.ref for j in self.slurm.read().jobs if j.name == "coloc-plug" and j.state in alive]
        return [r.name for r in self.slurm.reservations()] + plugs

    # -- the context -------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.colocd is not None:
            self.colocd.stop()
        log = self.tail(10_000)
        ports.release(self.port)
        shutil.rmtree(self.base, ignore_errors=True)
        if error is None:
            assert "Traceback" not in log, log


def mask(allocation: Allocation, node: str) -> int:
    """GPUs that a job holds on a node, as a mask."""
    return mask_of(allocation.gpus.get(node, frozenset()))
