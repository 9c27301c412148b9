"""The demo's site: folders, a throw-away Slurm, the store with yesterday's load, the files of colocd and of the service."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from coloc_topology.shape import Shape, quads
from colocd.clock import Clock
from colocd.errors import ColocError
from colocd.store.records import LoadSample
from colocd.testcluster import PrivateCluster
from demo import curve, files, people
from demo.report import JobRecord
from demo.sample import Allocation, allocations

NODES = 4
SERVICE = "chat"
PROGRAM = "import sys; from coloc_cli.{0} import main; sys.exit(main())"
SYSTEM_PYTHON = "/usr/bin/python3"


class Site:
    """Everything below `base`, an empty folder. `cluster` is not up yet after construction."""

    def __init__(self, base: Path, clock: Clock) -> None:
        self.base, self.clock = base, clock
        self.shape: Shape = quads()
        self.cluster = PrivateCluster(base / "slurm", nodes=NODES, shape=self.shape, kill_wait=2, clock=clock)
        self.day, self.run, self.jobs = base / "day", base / "coloc", base / "jobs"
        self.config, self.log = self.run / "colocd.toml", self.run / "colocd.log"
        self.database = f"sqlite:///{self.run / 'coloc.db'}"
        self.people = people.People(service="", batch=())
        self.python = SYSTEM_PYTHON if os.access(SYSTEM_PYTHON, os.X_OK) else sys.executable

    @property
    def environment(self) -> dict[str, str]:
        """For colocd, coloc and the jobs: Slurm's commands of this cluster, this Python, nothing else of the caller's."""
        env = {
            **self.cluster.environment,
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.jobs),
            "COLOC_CONFIG": str(self.config),
        }
        if "PYTHONPATH" in os.environ:  # a checkout that is not installed
            env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        return env

    def coloc(self, *words: str, module: str = "main") -> list[str]:
        """Command line of `coloc` (or another entry point of the CLI) in this very Python."""
        return [sys.executable, "-c", PROGRAM.format(module), *words]

    def up(self) -> None:
        """Make the folders, start Slurm, pick the users, write the files."""
        self.base.chmod(0o755)
        for folder, mode in ((self.day, 0o1777), (self.day / "live", 0o1777), (self.run, 0o755), (self.jobs, 0o1777)):
            folder.mkdir()
            folder.chmod(mode)
        for name in ("chat_server.py", "train_job.py", "train_job.sh"):
            copy = self.day / name  # the checkout may lie where other users cannot look
            copy.write_bytes((files.HERE / name).read_bytes())
            copy.chmod(0o755)
        (self.day / "replicas.log").touch()
        (self.day / "replicas.log").chmod(0o666)
        self.cluster.up()
        self.people = people.choose(self.coloc("--version"), self.environment, str(self.jobs))
        topology = self.run / "topo.txt"
        topology.write_text(files.topology_text(self.shape))
        places = {"SERVER": shlex.quote(str(self.day / "chat_server.py")), "DEMO": shlex.quote(str(self.day))}
        values = {
            "DATABASE": self.database,
            "SLURM_CONF": self.cluster.conf,
            "NODES": f"n[1-{NODES}]",
            "TOPOLOGY": topology,
            "RUN": self.run,
            "DAY": curve.DAY,
            "USER": self.people.service,
            "REPLICAS": files.REPLICAS,
            "PORT": files.free_ports(files.REPLICAS),
            "CAPACITY": curve.CAPACITY,
            "PYTHON": self.python,
            **places,
        }
        self.config.write_text(files.fill("colocd.toml.in", values))
        (self.run / "chat.toml").write_text(files.fill("chat.toml.in", values))

    def command(self, argv: Sequence[str]) -> str:
        """Run a command of the operator's; raises `ColocError` with what it said when it fails."""
        done = subprocess.run(
            list(argv), env=self.environment, cwd=self.run, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            what = " ".join(argv[3:]) if argv[0] == sys.executable else " ".join(argv)
            raise ColocError(f"{what} failed: {(done.stderr or done.stdout).strip()}", hint=f"see {self.log}")
        return done.stdout

    def begin_day(self, start: float) -> list[LoadSample]:
        """Write the day's curve for the replicas; returns yesterday's load, to be put into the store."""
        fresh = self.day / "curve.new"
        fresh.write_text(json.dumps({"start": start, "points": curve.TODAY}))
        fresh.chmod(0o644)
        fresh.replace(self.day / "curve.json")
        return [LoadSample(service=SERVICE, at=at, value=value) for at, value in curve.history(start)]

    def submission(self, job: files.BacklogJob) -> list[str]:
        """The words a user gives to `coloc-sbatch` for this job."""
        marks = ["--signal=B:USR1", "--coloc-interval=8", "--coloc-grace=10"]
        words = [
            "--parsable",
            f"--job-name={job.name}",
            "--partition=batch",
            f"--gpus-per-node={job.gpus}",
            "--nodes=1",
        ]
        words += ["--ntasks=1", "--time=10", f"--output={self.jobs}/{job.name}.log", "--open-mode=append"]
        script = [
            str(self.day / "train_job.sh"),
            str(self.day / "train_job.py"),
            str(self.jobs / job.name),
            str(job.steps),
        ]
        return [*marks, *words, *script, f"--rate={files.RATE}", *(["--deaf"] if job.deaf else [])]

    def submit(self, job: files.BacklogJob, user: str) -> JobRecord:
        """Submit a batch job as `user` through the wrapper, exactly as that user would."""
        env = {**self.environment, "COLOC_COMMAND": shlex.join(self.coloc()), "COLOC_DEMO_PYTHON": self.python}
        argv = self.coloc(*self.submission(job), module="sbatch_main")
        done = people.run_as(user, argv, env, str(self.jobs))
        ref = done.stdout.strip().splitlines()[-1].split(";")[0] if done.stdout.strip() else ""
        if done.returncode or not ref.isdigit():
            raise ColocError(f"coloc-sbatch as {user} failed: {(done.stderr or done.stdout).strip()}")
        folder = self.jobs / job.name
        return JobRecord(ref=ref, user=user, gpus=job.gpus, steps=job.steps, folder=folder, deaf=job.deaf)

    def running(self) -> tuple[Allocation, ...]:
        """What holds GPUs now, from Slurm itself."""
        return allocations(self.cluster.run("scontrol", "-d", "-o", "show", "job", check=False).stdout)

    def slurm(self) -> str:
        """Slurm's release."""
        return self.cluster.run("sinfo", "-V").stdout.split()[-1]
