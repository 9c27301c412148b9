"""The two arms of bench_slurm: a full throw-away cluster that gives GPUs to a preemptor, by Slurm alone or with coloc."""

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from demo.sample import allocations
from tests.helpers.live_daemon import Colocd
from tests.helpers.live_files import SiteFiles

from coloc_cli.sbatch_submit import prepare
from coloc_topology.fit import fit_table
from coloc_topology.shape import Level, mask_of
from colocd.clock import SystemClock
from colocd.errors import ColocError
from colocd.store.schema import upgrade
from colocd.testcluster import PrivateCluster, ports

CLOCK = SystemClock()
JOB = Path(__file__).with_name("slurm_job.sh")
STEP = 0.25
"""Seconds a step of a batch job takes."""
QUIET = 1.2
"""Jobs that have just started are left alone for so long before a request, in both arms."""
GIVE_UP = 60.0
"""Seconds after which a request counts as refused."""
REST = 2.0
"""Slurm revokes the credential of a job that starts in the second of its requeue ("job credential revoked"): it is left alone."""
RETURN = 90.0
"""Seconds within which the cluster must be full (again)."""
WAITS = ("RUNNING", "PENDING", "COMPLETING", "CONFIGURING", "REQUEUED", "PREEMPTED")
"""States of a batch job that will run again; it never ends by itself."""
PREEMPTOR = '#!/bin/bash\n[ -n "$1" ] && date +%s.%N >"$1"\nexec sleep 3600\n'
PLACE = "--comment=[coloc-place v=1 level=NVLINK]"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What both arms have in common. `save`: seconds a checkpoint takes; `kill_wait`: seconds from TERM to KILL."""

    links: bool
    root: str | None = None
    nodes: int = 4
    save: float = 0.5
    kill_wait: int = 5


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What Slurm says of a job; `gpus`: node to indices while it runs."""

    state: str
    restarts: int
    fenced: bool
    gpus: dict[str, frozenset[int]]


class Reclaim(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `seconds`: from submit to the script's first line; None: refused, the preemptor did not run in time."""

    gpus: int
    seconds: float | None
    island: bool = False
    victims: int = 0
    taken: int = 0
    steps_lost: int = 0
    starts: int = 1


class SlurmArm:
    """Slurm alone: `preempt/partition_prio` with REQUEUE. Use as a context: the cluster is up inside of it."""

    name = "slurm"
    preempt = True

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
        self.cluster = PrivateCluster(
            self.folder,
            nodes=settings.nodes,
            links=settings.links,
            cores=not settings.links,
            kill_wait=settings.kill_wait,
            preempt=self.preempt,
            root=settings.root,
        )
        self.batch: dict[str, Path] = {}
        self.sizes: dict[str, int] = {}
        self.fills = self.requests = 0
        self.back: dict[str, float] = {}

    def __enter__(self) -> Self:
        try:
            self.cluster.up()
            for name, text in (("job.sh", JOB.read_text()), ("preemptor.sh", PREEMPTOR)):
                (self.cluster.work / name).write_text(text)
                (self.cluster.work / name).chmod(0o755)
            self.begin()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        self.cluster.down()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what the arms do differently --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start what runs beside Slurm."""

    def end(self) -> None:
        """End what runs beside Slurm."""

    def check(self) -> None:
        """Raise when what runs beside Slurm has ended."""

    def submit(self, words: Sequence[str], job: Sequence[str]) -> str:
        """Submit a batch job."""
        done = self.cluster.run("sbatch", "--partition=batch", "--requeue", *words, *job)
        return done.stdout.strip()

    def bring_back(self, rows: dict[str, Row]) -> None:
        """Have requeued jobs start again at once: Slurm would wait until its credentials have expired."""
        waiting = [ref for ref in self.batch if ref in rows and rows[ref].state == "PENDING"]
        now = CLOCK.monotonic()
        self.back = {ref: self.back.get(ref, now) for ref in waiting}
        ready = [ref for ref in waiting if now >= self.back[ref] + REST]
        if ready:
            self.cluster.run("scontrol", "update", f"jobid={','.join(ready)}", "StartTime=now", check=False)

    # -- the same in both --------------------------------------------------------------------------------------------

    def until(self, done: Callable[[], object], what: str, seconds: float, step: float = 0.1) -> None:
        """Wait for something; raises `ColocError`."""
        end = CLOCK.monotonic() + seconds
        while not done():
            self.check()
            if CLOCK.monotonic() > end:
                raise ColocError(f"{what} did not happen in {seconds:.0f} s", hint="look at the machine's load")
            CLOCK.sleep(step)

    def rows(self) -> dict[str, Row]:
        """All jobs, read from Slurm without coloc."""
        text = self.cluster.run("scontrol", "-d", "-o", "show", "job").stdout
        held = {a.job: a.gpus for a in allocations(text)}
        found = {}
        for line in text.splitlines():
            facts = dict(re.findall(r"\b(JobId|JobState|Restarts|Reservation)=(\S*)", line))
            if "JobId" in facts:
                found[facts["JobId"]] = Row(
                    state=facts.get("JobState", ""),
                    restarts=int(facts.get("Restarts", "0")),
                    fenced=facts.get("Reservation", "(null)") not in ("", "(null)"),
                    gpus=held.get(facts["JobId"], {}),
                )
        return found

    def fill(self, layout: Sequence[tuple[str, int]]) -> None:
        """Fill the empty cluster with new batch jobs of these nodes and sizes, in this order."""
        refs = self.cluster.run("squeue", "-a", "-h", "-o", "%A").stdout.split()
        if refs:
            self.cluster.run("scancel", *refs, check=False)
            self.until(
                lambda: not self.cluster.run("squeue", "-a", "-h", "-o", "%A").stdout.split(),
                "an empty cluster",
                RETURN,
            )
        self.fills += 1
        self.batch, self.sizes = {}, {}
        for number, (node, gpus) in enumerate(layout):
            journal = self.cluster.work / "jobs" / f"{self.fills}-{number}"
            journal.parent.mkdir(exist_ok=True)
            words = ["--parsable", f"--job-name=train-{number}", f"--gpus-per-node={gpus}", "--nodes=1", "--ntasks=1"]
            words += [f"--nodelist={node}", "--output=/dev/null", f"--chdir={self.cluster.work}"]
            job = [str(self.cluster.work / "job.sh"), str(journal), str(STEP), f"{self.settings.save:g}"]
            ref = self.submit(words, job)
            self.batch[ref], self.sizes[ref] = journal, gpus
        self.wait_full()

    def wait_full(self) -> None:
        """Wait until all batch jobs run and count steps."""

        def full() -> bool:
            rows = self.rows()
            states = {ref: rows[ref].state if ref in rows else "gone" for ref in self.batch}
            if set(states.values()) <= {"RUNNING"}:
                return all(
                    len(resumed(folder / "journal")) == rows[ref].restarts + 1 for ref, folder in self.batch.items()
                )
            ended = [f"{ref} ({state})" for ref, state in states.items() if state not in WAITS]
            if ended:
                raise ColocError(f"batch jobs of arm {self.name} have ended: {', '.join(ended)}")
            self.bring_back(rows)
            return False

        self.until(full, f"a full cluster (arm {self.name})", RETURN, 0.3)

    def request(self, gpus: int) -> Reclaim:
        """One preemptor: submit, wait, read back, cancel, wait until the cluster is as full as before."""
        CLOCK.sleep(QUIET)
        before = self.rows()
        self.requests += 1
        note = self.cluster.work / f"note-{self.requests}"
        words = ["--parsable", "--partition=online", "--requeue", "--nodes=1", "--ntasks=1", f"--gpus-per-node={gpus}"]
        words += ["--output=/dev/null", f"--chdir={self.cluster.work}", PLACE]
        script = str(self.cluster.work / "preemptor.sh")
        began = CLOCK.now()
        ref = self.cluster.run("sbatch", *words, script, str(note)).stdout.strip()
        rows: dict[str, Row] = {}

        def runs() -> bool:
            rows.clear()
            rows.update(self.rows())
            row = rows[ref]
            return row.state == "RUNNING" and not row.fenced and note.exists() and bool(note.read_text().strip())

        try:
            self.until(runs, "the preemptor's start", GIVE_UP)
            refused = False
        except ColocError:
            refused = True
        victims = [r for r in self.batch if rows[r].restarts > before[r].restarts]
        self.cluster.run("scancel", ref)
        self.until(
            lambda: self.rows().get(ref, rows[ref]).state not in ("RUNNING", "PENDING", "COMPLETING"), "its end", 30
        )
        self.wait_full()
        mask = [mask_of(found) for found in rows[ref].gpus.values()]
        level = fit_table(self.cluster.spec.shape).level_of(mask[0]) if mask else None
        return Reclaim(
            gpus=gpus,
            seconds=None if refused else float(note.read_text()) - began,
            island=not refused and level is not None and level >= Level.NVLINK,
            victims=len(victims),
            taken=sum(self.sizes[r] for r in victims),
            steps_lost=sum(resumed(self.batch[r] / "journal")[-1] for r in victims),
            starts=rows[ref].restarts + 1,
        )


class ColocArm(SlurmArm):
    """coloc: the same jobs through `coloc-sbatch`, a colocd process, no preemption by Slurm."""

    name = "coloc"
    preempt = False

    def begin(self) -> None:
        """Start colocd and wait until it is ready."""
        self.site = SiteFiles(self.cluster, policy={"start_timeout": 30.0, "retry_after": 1.0})
        if self.cluster.bin_dir is not None:
            self.site.settings["slurm"]["bin_dir"] = self.cluster.bin_dir
        self.site.write_config("act")
        upgrade(self.site.database)
        self.colocd = Colocd(self.site.config, self.site.base / "colocd.log", self.site.environment, CLOCK)
        self.until(lambda: self.colocd.said("READY=1"), "READY=1 of colocd", 30)

    def end(self) -> None:
        """End colocd."""
        if hasattr(self, "colocd"):
            self.colocd.stop()
        if hasattr(self, "site"):
            ports.release(self.site.port)
            shutil.rmtree(self.site.base, ignore_errors=True)

    def check(self) -> None:
        """Raise when colocd has ended."""
        self.colocd.check()

    def submit(self, words: Sequence[str], job: Sequence[str]) -> str:
        """What `coloc-sbatch` does, without the start of a Python for each job."""
        marks = ["--signal=B:USR1", f"--coloc-grace={self.settings.save + 10:g}"]
        ready = prepare([*marks, *words, *job, "coloc"], {}, ("batch",), "/", lambda: b"")
        return self.cluster.run(*ready.words).stdout.strip()

    def bring_back(self, rows: dict[str, Row]) -> None:
        """Nothing: colocd releases its batch jobs itself."""


def resumed(journal: Path) -> list[int]:
    """Steps that were lost at each start of a batch job: last step done before it, less the step it resumed at."""
    try:
        lines = journal.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    found, last = [], 0
    for word, number in (line.split() for line in lines):
        if word == "start":
            found.append(last - int(number))
        last = int(number)
    return found
