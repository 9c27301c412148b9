"""What the arms of bench_lost have in common: a full throw-away cluster, batch jobs, peaks, and the row of results."""

import random
import re
import shutil
import sys
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
from bench.lost_account import Held, Peak, Work, account, runs_of

from colocd.clock import SystemClock
from colocd.errors import ColocError
from colocd.testcluster import PrivateCluster

CLOCK = SystemClock()
JOB = Path(__file__).with_name("lost_job.py")
SCRIPT = "#!/bin/bash\ntrap '' USR1\nexec /usr/bin/python3 {job} \"$@\"\n"
REPLICA_GPUS = 4
SIZES = (4, 4, 4, 4, 2, 2, 2, 2, 2, 2)
"""GPUs of the batch jobs: with the replica that is always there they fill 4 nodes of 8."""
LIMIT = 300.0


class Kind(NamedTuple):
    """A kind of job: seconds between its own saves, seconds a save takes, and whether it saves when it is asked."""

    interval: float
    save: float
    asked: bool

    @property
    def name(self) -> str:
        """In words."""
        how = "asked" if self.asked else "not asked"
        return f"{how}, every {self.interval:g} s, saves in {self.save:g} s"


KINDS = (
    Kind(24.0, 0.3, True),
    Kind(24.0, 5.0, True),
    Kind(6.0, 0.3, False),
    Kind(12.0, 1.5, False),
    Kind(12.0, 1.5, True),
)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What all arms have in common. `season`: seconds after which the peaks come again; `kill_wait`: Slurm's KillWait."""

    season: float
    pattern: tuple[Peak, ...]
    seasons: int
    seed: int
    kill_wait: int
    origin: float
    """A season begins at this Unix time."""

    @property
    def peaks(self) -> tuple[Peak, ...]:
        """All of them, from the beginning on."""
        return tuple(
            Peak(start=p.start + k * self.season, end=p.end + k * self.season, more=p.more)
            for k in range(self.seasons)
            for p in self.pattern
        )

    @property
    def jobs(self) -> tuple[tuple[int, Kind], ...]:
        """The batch jobs, in the order of their submission: each kind twice, sizes in seeded order."""
        rng = random.Random(self.seed)
        kinds = [KINDS[k % len(KINDS)] for k in range(len(SIZES))]
        rng.shuffle(kinds)
        return tuple(zip(SIZES, kinds, strict=True))


class Arm:
    """One arm on a cluster of its own; `run` is its whole life, in a thread of its own."""

    name = ""
    preempt = False
    partitions: tuple[str, ...] | None = None

    def __init__(self, plan: Plan, together: threading.Barrier) -> None:
        self.plan, self.together = plan, together
        self.folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
        more = {"partitions": self.partitions} if self.partitions is not None else {}
        self.cluster = PrivateCluster(
            self.folder, nodes=4, kill_wait=plan.kill_wait, preempt=self.preempt, settings=("MinJobAge=3600",), **more
        )
        self.row: dict[str, object] = {}
        self.error: BaseException | None = None
        self.folders: dict[str, tuple[Path, int, Kind]] = {}
        self.began = 0.0

    # -- what the arms do differently --------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start what runs beside Slurm, the batch jobs, and the replica that is always there."""
        raise NotImplementedError

    def tick(self, at: float) -> None:
        """Called a few times a second; `at`: seconds from the beginning."""

    def end(self) -> None:
        """End what runs beside Slurm."""

    # -- the same in all ---------------------------------------------------------------------------------------------

    def words(self, number: int, gpus: int) -> list[str]:
        """Of the submission of a batch job."""
        words = ["--parsable", f"--job-name=train-{number}", "--nodes=1", "--ntasks=1", f"--gpus-per-node={gpus}"]
        return [
            *words,
            f"--output={self.cluster.work}/out-{number}",
            "--open-mode=append",
            f"--chdir={self.cluster.work}",
        ]

    def script(self) -> str:
        """The job script, where the cluster sees it."""
        path = self.cluster.work / "job.sh"
        path.write_text(SCRIPT.format(job=JOB))
        path.chmod(0o755)
        return str(path)

    def jobs(self) -> dict[str, dict[str, str]]:
        """All jobs as Slurm records them."""
        text = self.cluster.run("scontrol", "-a", "-o", "show", "job").stdout
        lines = (dict(re.findall(r"(\w+)=(\S*)", line)) for line in text.splitlines())
        return {facts["JobId"]: facts for facts in lines if "JobId" in facts}

    def until(self, done: object, what: str, limit: float = LIMIT) -> None:
        """Wait for something."""
        stop = CLOCK.monotonic() + limit
        while not done():  # type: ignore[operator]
            if CLOCK.monotonic() > stop:
                raise ColocError(f"{self.name}: {what} did not happen in {limit:.0f} s", "look at the machine's load")
            CLOCK.sleep(0.3)

    def all_run(self) -> bool:
        """Whether all batch jobs run and have done a step since they started."""
        jobs = self.jobs()
        if any(jobs.get(ref, {}).get("JobState") != "RUNNING" for ref in self.folders):
            return False
        for ref, (folder, _, _) in self.folders.items():
            restarts = jobs[ref].get("Restarts", "0")
            journal = folder / "journal"
            if not journal.exists() or f"\n{restarts} " not in "\n" + journal.read_text()[-4000:]:
                return False
        return True

    def steps(self) -> dict[str, int]:
        """The last step of each batch job."""
        return {ref: max((r.last for r in self.work(ref).runs), default=0) for ref in self.folders}

    def work(self, ref: str) -> Work:
        """A batch job by its journals."""
        folder, gpus, kind = self.folders[ref]
        starts, journal = ((folder / n).read_text() if (folder / n).exists() else "" for n in ("starts", "journal"))
        return Work(name=ref, gpus=gpus, kind=kind.name, runs=runs_of(starts, journal))

    def held(self) -> list[Held]:
        """What replicas hold and held, by Slurm's records; those that never started left out."""
        found = []
        for facts in self.jobs().values():
            if not re.match(r"coloc-chat-|replica$", facts["JobName"]) or facts["JobState"] == "PENDING":
                continue
            start, end = _unix(facts["StartTime"]), _unix(facts["EndTime"])
            if start is not None:
                running = facts["JobState"] in ("RUNNING", "CONFIGURING")
                found.append(Held(gpus=REPLICA_GPUS, start=start, end=None if running else end))
        return found

    def run(self) -> None:
        """From the start of the cluster to the row of results; what goes wrong is left in `error`."""
        try:
            self.cluster.up()
            self.prepare()
            self.until(self.all_run, "the start of all batch jobs")
            self.together.wait(600)
            season, origin = self.plan.season, self.plan.origin
            self.began = origin + season * (1 + (CLOCK.now() - origin) // season)
            CLOCK.sleep(self.began - CLOCK.now())
            before = self.steps()
            total = self.plan.season * self.plan.seasons
            while (at := CLOCK.now() - self.began) < total:
                self.tick(at)
                CLOCK.sleep(0.25)
            finish = CLOCK.now()
            held = self.held()
            try:
                self.until(lambda: self.tick(total) or self.all_run(), "the return of the last victims", 60.0)
            except ColocError as error:
                print(error, file=sys.stderr)
            running = {ref for ref, facts in self.jobs().items() if facts["JobState"] == "RUNNING"}
            saved = {
                ref: int((folder / "checkpoint").read_text()) if (folder / "checkpoint").exists() else 0
                for ref, (folder, _, _) in self.folders.items()
                if ref not in running
            }
            self.row = {"arm": self.name} | account(
                [self.work(ref) for ref in self.folders], saved, before, held, self.plan.peaks,
                begin=self.began, end=finish, always=REPLICA_GPUS,
            )  # fmt: skip
            self.also()
        except BaseException as error:
            self.together.abort()
            self.error = error
        finally:
            self.end()
            self.cluster.down()
            shutil.rmtree(self.folder, ignore_errors=True)

    def also(self) -> None:
        """Add to the row what only this arm can tell."""


def _unix(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
