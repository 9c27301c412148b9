"""What the contract tests need beyond the port: programs, waiting, other people's doings. One harness a back-end."""

import atexit
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import pytest

from coloc_topology.shape import quads
from colocd.clock import SystemClock
from colocd.config import SlurmConfig
from colocd.core.view import Job, JobState
from colocd.errors import SlurmRefused
from colocd.sim.clock import VirtualClock
from colocd.sim.program import ENDLESS, Program
from colocd.sim.slurm import VirtualSlurm
from colocd.slurm import open_slurm
from colocd.slurm.port import SlurmPort, Submission
from colocd.slurm.pyslurm_adapter import PyslurmSlurm
from colocd.testcluster import PrivateCluster

T = TypeVar("T")
USER, OTHER = "games", "nobody"
"""Two ordinary users that every Debian has."""
NODES = ("n1", "n2", "n3", "n4")


class Backend(Protocol):
    """One way to have a Slurm: four nodes of 8 GPUs in two quads, partitions `batch` and `online`, KillWait 5 s."""

    @property
    def slurm(self) -> SlurmPort:
        """The port under test."""
        ...

    def prepare(self, program: Program, job: Submission) -> Submission:
        """The submission with a script that behaves as the program does."""
        ...

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        ...

    def now(self) -> float:
        """Unix seconds."""
        ...

    def array(self, tasks: str, job: Submission) -> str:
        """A user submits a held job array; returns its id."""
        ...

    def held(self, words: Sequence[str], job: Submission) -> str:
        """A user submits a held job with these words of sbatch; returns its id."""
        ...

    def comment_by(self, user: str, ref: str, comment: str) -> None:
        """A user changes a job's comment; raises `SlurmRefused`."""
        ...

    def hold_by_user(self, user: str, ref: str) -> None:
        """A user holds a job."""
        ...

    def drain(self, node: str) -> None:
        """An operator drains a node."""
        ...

    def resume(self, node: str) -> None:
        """An operator takes a node back into service."""
        ...

    def fail_node(self, node: str) -> None:
        """A node loses power."""
        ...

    def unreachable(self) -> SlurmPort:
        """The port of a Slurm that does not answer."""
        ...


class Virtual:
    """See `Backend`; on the virtual cluster."""

    def __init__(self) -> None:
        self.clock = VirtualClock(1_760_000_000.0)
        self.slurm: VirtualSlurm = self._cluster()
        self._program = ENDLESS

    def _cluster(self) -> VirtualSlurm:
        return VirtualSlurm(
            self.clock,
            dict.fromkeys(NODES, quads()),
            users={"root", USER, OTHER},
            program_for=lambda job: self._program,
        )

    def prepare(self, program: Program, job: Submission) -> Submission:
        self._program = program
        return msgspec.structs.replace(job, script="#!/bin/sh\n")

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def now(self) -> float:
        return self.clock.now()

    def array(self, tasks: str, job: Submission) -> str:
        return self.held([f"--array={tasks}"], job)

    def held(self, words: Sequence[str], job: Submission) -> str:
        return self.slurm.submit(msgspec.structs.replace(job, held=True, options=tuple(words), requeue=True))

    def comment_by(self, user: str, ref: str, comment: str) -> None:
        self.slurm.comment_by(user, ref, comment)

    def hold_by_user(self, user: str, ref: str) -> None:
        self.slurm.hold_by_user(ref)

    def drain(self, node: str) -> None:
        self.slurm.drain(node)

    def resume(self, node: str) -> None:
        self.slurm.resume(node)

    def fail_node(self, node: str) -> None:
        self.slurm.fail_node(node)

    def unreachable(self) -> SlurmPort:
        other = self._cluster()
        other.down = True
        return other


def script(program: Program) -> str:
    """A shell script with the program's behaviour, for a real cluster."""
    lines = ["#!/bin/bash"]
    if program.ignores:
        lines.append(f"trap '' {program.signal}")
    elif program.acks_after is not None:
        mark = f"[coloc v=1 signal={program.signal} to=batch saved=$now yielded=$now]"
        ack = f'now=$(date +%s); scontrol update JobId=$SLURM_JOB_ID Comment="{mark}"'
        end = f"; exit {program.exit_code}" if program.exits_on_signal else ""
        lines.append(f"trap {shlex.quote(f'sleep {program.acks_after}; {ack}{end}')} {program.signal}")
    if program.dies_after:
        lines.append(f"trap 'sleep {program.dies_after}; exit 1' TERM")
    if program.duration is None:
        lines.append("while :; do sleep 0.1; done")
    else:
        lines += [f"sleep {program.duration}", f"exit {program.exit_code}"]
    return "\n".join(lines) + "\n"


def adapter(cluster: PrivateCluster, clock: SystemClock, conf: Path | None = None) -> SlurmPort:
    """The adapter that COLOC_TEST_ADAPTER names (`cli` or `pyslurm`), on this cluster."""
    config = SlurmConfig(conf=str(conf or cluster.conf), bin_dir=cluster.bin_dir, adapter="cli")
    if os.environ.get("COLOC_TEST_ADAPTER") != "pyslurm":
        return open_slurm(config, clock)
    python = f"{cluster.bin_dir}/python-pyslurm" if cluster.spec.root is not None else None
    slurm = open_slurm(msgspec.structs.replace(config, adapter="pyslurm", pyslurm_python=python), clock)
    assert isinstance(slurm, PyslurmSlurm)
    atexit.register(slurm.close)
    return slurm


class Live:
    """See `Backend`; on a real Slurm through its client commands."""

    def __init__(self, cluster: PrivateCluster) -> None:
        self._cluster = cluster
        self._clock = SystemClock()
        self.slurm = adapter(cluster, self._clock)

    def prepare(self, program: Program, job: Submission) -> Submission:
        environment = {"SLURM_CONF": str(self._cluster.conf)}
        return msgspec.structs.replace(job, script=script(program), environment=environment, workdir="/")

    def advance(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    def now(self) -> float:
        return self._clock.now()

    def array(self, tasks: str, job: Submission) -> str:
        return self.held([f"--array={tasks}"], job)

    def held(self, words: Sequence[str], job: Submission) -> str:
        facts = [f"--job-name={job.name}", f"--gres=gpu:{job.gpus}", f"--uid={job.user}", "--output=/dev/null"]
        said = self._cluster.run("sbatch", "--parsable", "--hold", *words, *facts, text=script(ENDLESS))
        return said.stdout.strip()

    def comment_by(self, user: str, ref: str, comment: str) -> None:
        done = self._cluster.run("scontrol", "update", f"jobid={ref}", f"comment={comment}", user=user, check=False)
        if done.returncode:
            raise SlurmRefused(done.stderr)

    def hold_by_user(self, user: str, ref: str) -> None:
        self._cluster.run("scontrol", "hold", ref, user=user)

    def drain(self, node: str) -> None:
        self._cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")

    def resume(self, node: str) -> None:
        self._cluster.node_up(node)

    def fail_node(self, node: str) -> None:
        self._cluster.node_down(node)

    def unreachable(self) -> SlurmPort:
        text = self._cluster.conf.read_text()
        deaf = self._cluster.conf.with_name("deaf.conf")
        deaf.write_text(text.replace("munge.sock", "no-munge.sock"))
        return adapter(self._cluster, self._clock, deaf)


class Harness:
    """What the tests use: short forms on top of a back-end."""

    def __init__(self, backend: Backend) -> None:
        self.back = backend
        self.slurm = backend.slurm

    def submit(
        self,
        program: Program = ENDLESS,
        *,
        gpus: int = 0,
        name: str = "job",
        partition: str = "batch",
        user: str | None = USER,
        requeue: bool = True,
        **more: object,
    ) -> str:
        """Submit a job that does what the program says."""
        facts = {"gpus": gpus, "name": name, "partition": partition, "user": user, "requeue": requeue, **more}
        job = Submission(script="#!/bin/sh\n", **facts)  # type: ignore[arg-type]
        return self.slurm.submit(self.back.prepare(program, job))

    def start(self, program: Program = ENDLESS, **more: object) -> str:
        """Submit a job and wait until it runs."""
        ref = self.submit(program, **more)  # type: ignore[arg-type]
        self.until(lambda: self.job(ref).state is JobState.RUNNING)
        if program.traps or program.dies_after:
            self.back.advance(0.5)  # until the script has set its traps
        return ref

    def start_all(self, *gpus: int, **more: object) -> list[str]:
        """Submit jobs of so many GPUs each to node n1, in this order, and wait until all run."""
        refs = [self.submit(gpus=count, nodes=("n1",), **more) for count in gpus]  # type: ignore[arg-type]
        self.until_state(JobState.RUNNING, *refs)
        return refs

    def job(self, ref: str) -> Job:
        """The job now; fails when Slurm does not know it."""
        return self.slurm.jobs([ref])[ref]

    def states(self, refs: Sequence[str]) -> list[JobState]:
        """States of some jobs."""
        found = self.slurm.jobs(refs)
        return [found[ref].state for ref in refs]

    def mask(self, ref: str, node: str = "n1") -> int:
        """GPUs of a running job on a node."""
        gpus = self.job(ref).gpus
        assert gpus is not None
        return gpus.get(node, 0)

    def until(self, look: Callable[[], T | None], timeout: float = 25.0) -> T:
        """Wait until `look()` is true and return what it gave; fails after `timeout` seconds."""
        end = self.back.now() + timeout
        while not (found := look()):
            assert self.back.now() < end, f"not so within {timeout} s; jobs: {self.slurm.read().jobs}"
            self.back.advance(0.1)
        return found

    def until_state(self, state: JobState, *refs: str) -> None:
        """Wait until all these jobs are in a state."""
        self.until(lambda: set(self.states(refs)) == {state})

    @contextmanager
    def refused(self) -> Iterator[None]:
        """What is done inside is refused; there are no more and no fewer jobs and reservations after it."""
        before = self.slurm.read()
        with pytest.raises(SlurmRefused):
            yield
        after = self.slurm.read()
        assert {j.ref for j in after.jobs} == {j.ref for j in before.jobs}
        assert after.reservations == before.reservations
