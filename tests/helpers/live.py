"""A live site for end-to-end tests: a throw-away Slurm, a real colocd process, real commands, replicas and batch jobs."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from demo.report import steps_lost
from demo.sample import Allocation, allocations
from tests.helpers.live_daemon import Colocd
from tests.helpers.live_files import STRANGER, SiteFiles

from coloc_cli.client import Client
from coloc_topology.fit import fit_table
from coloc_topology.shape import Level
from colocd.clock import SystemClock
from colocd.config import ApiConfig, SlurmConfig
from colocd.core.view import Job, JobState
from colocd.slurm.cli import CliSlurm
from colocd.store import open_store
from colocd.store.sql import SqlStore
from colocd.testcluster import PrivateCluster, ports

LIMIT = 60.0
"""Seconds that a test waits for anything: generous, since speed is not what is tested."""


class LiveSite(SiteFiles):
    """A site on `cluster`, with its folder, configuration and service file. Use as a context; colocd is started by `start`."""

    def __init__(self, cluster: PrivateCluster, **options: Any) -> None:
        super().__init__(cluster, **options)
        self.clock = SystemClock()
        self.log = self.base / "colocd.log"
        self.slurm = CliSlurm(SlurmConfig(conf=str(cluster.conf), bin_dir=cluster.bin_dir, timeout=20.0), self.clock)
        self.colocd: Colocd | None = None

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
        stubborn: bool = False,
        nodes: str | None = None,
        across: int = 1,
        grace: int = 15,
        options: Sequence[str] = (),
    ) -> str:
        """Submit a training job of 20 steps a second with `coloc-sbatch`; it is held until coloc releases it.

        `across`: nodes on which it holds `gpus` GPUs each; `nodes`: which. `options`: more words of sbatch.
        """
        words = ["--parsable", f"--job-name={name}", f"--gpus-per-node={gpus}"]
        words += [f"--nodes={across}", f"--ntasks={across}"]
        words += [f"--output={self.jobs}/{name}.log", "--open-mode=append", "--signal=B:USR1", "--coloc-interval=1"]
        words += [f"--coloc-grace={grace}", *([f"--nodelist={nodes}"] if nodes else []), *options]
        job = [*self.programs("train_job.sh", "train_job.py"), str(self.jobs / name), str(steps)]
        job += ["--rate=20", "--every=3600", *(["--deaf"] if deaf else []), *(["--stubborn"] if stubborn else [])]
        env = {"COLOC_COMMAND": self.command, "COLOC_DEMO_PYTHON": self.python}
        return self.run("coloc_cli.sbatch_main", *words, *job, check=True, **env).stdout.strip()

    def strangers(self, count: int, partition: str, gpus: int = 1) -> list[str]:
        """A backlog of jobs of somebody who does not use coloc."""
        words = ["--parsable", f"--partition={partition}", "--output=/dev/null", "--job-name=other"]
        words += [f"--gpus-per-node={gpus}"]
        sbatch = ["sbatch", *words, "--wrap=sleep 3600"]
        return [self.cluster.run(*sbatch, user=STRANGER).stdout.strip() for _ in range(count)]

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
        return sum(int(s["ready"] or 0) for s in self.status()["services"])

    def status(self) -> dict[str, Any]:
        """What `coloc status --json` prints, without the start of a command: for what is asked again and again."""
        with Client(ApiConfig(socket=f"{self.base}/c.sock", admin_socket=f"{self.base}/a.sock")) as client:
            return client.status()

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
