"""Submission and change of virtual jobs: what Slurm accepts, and what it refuses."""

import re
from collections.abc import Callable, Collection

from colocd.core.view import Held, Job, JobState
from colocd.errors import SlurmRefused
from colocd.sim.depends import conditions, settle
from colocd.sim.engine import Engine
from colocd.sim.model import ENDED, VJob, array_tasks, option
from colocd.sim.program import Program
from colocd.slurm.port import JobUpdate, Submission


class Intake:
    """Checks requests and carries them to the engine. Users get their uids in order of appearance, from 1000 on."""

    def __init__(
        self, engine: Engine, program_for: Callable[[Job], Program], users: Collection[str] | None = None
    ) -> None:
        self._engine = engine
        self._users = users
        self._program_for = program_for
        self._uids = {"root": 0}
        self._number = 0

    def submit(self, sub: Submission, engine: Engine) -> str:
        """Take a job or a job array in; returns its ref. Raises `SlurmRefused`.

        A job that no node can ever run is refused, and yet it is there afterwards, as one that has failed.
        """
        wanted = self._nodes_wanted(sub)
        self._check(sub)
        try:
            tasks = array_tasks(sub.options)
        except ValueError as error:
            raise SlurmRefused("sbatch: Invalid job array specification") from error
        self._number += 1
        if not self._possible(sub, wanted):
            job = self._job(sub, None, wanted)
            engine.add(job)
            engine.finish(job, JobState.FAILED, "BadConstraints")
            raise SlurmRefused("sbatch: Batch job submission failed: Requested node configuration is not available")
        for task in tasks if tasks is not None else (None,):
            engine.add(self._job(sub, task, wanted))
        return f"{self._number}"

    def _job(self, sub: Submission, task: int | None, wanted: int) -> VJob:
        user = sub.user or "root"
        exclude = option(sub.options, "exclude")
        job = VJob(
            ref=f"{self._number}" if task is None else f"{self._number}_{task}",
            number=self._number,
            order=self._number * 100_000 + (task or 0),
            sub=sub,
            user=user,
            uid=self._uids.setdefault(user, 999 + len(self._uids)),
            program=Program(),
            submitted=self._engine.wall,
            nodes_wanted=wanted,
            comment=sub.comment,
            requeue=sub.requeue,
            required=sub.nodes,
            reservation=sub.reservation,
            nice=int(option(sub.options, "nice") or 0),
            excluded=tuple(exclude.split(",")) if exclude else (),
            held=Held.USER if sub.held else Held.NO,
        )
        job.work.at = self._engine.at
        if (text := option(sub.options, "dependency")) is not None:
            job.wanted, job.either = conditions(text)
            settle(job, self._engine.numbers, self._engine.wall)
        if (begin := option(sub.options, "begin")) is not None:
            seconds = int(begin.removeprefix("now+"))
            job.begins, job.eligible = self._engine.wall + seconds, self._engine.at + seconds
        job.program = self._program_for(job.show())
        return job

    @staticmethod
    def _nodes_wanted(sub: Submission) -> int:
        short = [word[2:] for word in sub.options if re.fullmatch(r"-N\d+", word)]
        text = option(sub.options, "nodes") or (short[-1] if short else None)
        return max(int(text) if text is not None else 1, len(sub.nodes))

    def check_user(self, user: str) -> None:
        """Raise `SlurmRefused` when there is no such user."""
        if self._users is not None and user not in self._users:
            raise SlurmRefused(f"Invalid user id: {user}")

    def _check(self, sub: Submission) -> None:
        engine = self._engine
        if not sub.script.startswith("#!"):
            raise SlurmRefused("sbatch: This does not look like a batch script")
        self.check_user(sub.user or "root")
        partition = engine.partitions.get(sub.partition)
        if partition is None:
            raise SlurmRefused("sbatch: Batch job submission failed: Invalid partition name specified")
        if any(name not in engine.nodes for name in sub.nodes):
            raise SlurmRefused("sbatch: Batch job submission failed: Invalid node name specified")
        self._check_reservation(sub.reservation, sub.user or "root")

    def _possible(self, sub: Submission, wanted: int) -> bool:
        """Whether enough nodes have GPUs enough. Cores do not count here: a job that wants too many waits for ever."""
        nodes = [self._engine.nodes[name] for name in self._engine.partitions[sub.partition].nodes]
        able = {n.name for n in nodes if sum(sub.gpu_type in (None, kind) for kind in n.types) >= sub.gpus}
        return len(able) >= wanted and able.issuperset(sub.nodes)

    def _check_reservation(self, name: str | None, user: str) -> None:
        if name is None:
            return
        resv = self._engine.reservations.get(name)
        if resv is None:
            raise SlurmRefused("sbatch: Batch job submission failed: Requested reservation is invalid")
        if resv.users and user not in resv.users:
            raise SlurmRefused("sbatch: Batch job submission failed: Access denied to requested reservation")

    def update(self, job: VJob, change: JobUpdate) -> None:
        """Change a job; raises `SlurmRefused` before anything is changed."""
        self._check_update(job, change)
        if change.comment is not None:
            job.comment = change.comment
        if change.requeue is not None:
            job.requeue = change.requeue
        if change.nice is not None:
            job.nice = change.nice
        if change.nodes is not None:
            job.required = change.nodes
            job.nodes_wanted = max(self._nodes_wanted(job.sub) if not job.sub.nodes else 1, len(change.nodes))
        if change.reservation is not None:
            job.reservation = change.reservation or None
        if change.start_now:
            job.eligible = self._engine.at
        self._engine.consider(job)

    def _check_update(self, job: VJob, change: JobUpdate) -> None:
        if job.state in ENDED:
            raise SlurmRefused(f"job {job.ref}: Job has already finished")
        if job.state is not JobState.PENDING and (change.nodes is not None or change.start_now):
            raise SlurmRefused(f"job {job.ref}: Job is no longer pending execution")
        if change.reservation:
            self._check_reservation(change.reservation, job.user)
        if change.nodes and any(name not in self._engine.nodes for name in change.nodes):
            raise SlurmRefused(f"job {job.ref}: Invalid node name specified")
