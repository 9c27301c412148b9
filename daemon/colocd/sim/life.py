"""The life of a program on the virtual cluster: work, saves, answers to signals, death."""

from collections.abc import Callable
from typing import Protocol

from colocd.core.view import JobState
from colocd.sim.model import VJob
from colocd.sim.program import HARMLESS, marked

_ROUNDING = 1e-6


class Host(Protocol):
    """What a program needs of the cluster it runs on."""

    at: float

    @property
    def wall(self) -> float:
        """Unix seconds now."""
        ...

    def after(self, delay: float, job: VJob, action: Callable[[VJob], None]) -> None:
        """Call back later."""
        ...

    def finish(self, job: VJob, state: JobState, reason: str | None, exit_code: int = 0) -> None:
        """A job has ended."""
        ...


class Life:
    """Plays `Program`s; keeps nothing itself."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def begin(self, job: VJob) -> None:
        """A run starts, from what was saved last."""
        job.saving = job.yielded = False
        job.work.turn(0, self._host.at)
        if job.program.startup > 0:
            self._host.after(job.program.startup, job, self._go_on)
        else:
            self._go_on(job)
        if job.program.checkpoint_every is not None:
            self._host.after(job.program.startup + job.program.checkpoint_every, job, self._auto_save)

    def _go_on(self, job: VJob) -> None:
        if job.saving or job.yielded:
            return
        job.work.turn(1, self._host.at)
        if job.program.duration is not None:
            self._host.after(max(0.0, job.program.duration - job.work.done), job, self._maybe_done)

    def _maybe_done(self, job: VJob) -> None:
        duration, work = job.program.duration, job.work
        working = work.rate
        work.turn(working, self._host.at)
        if working and duration is not None and work.done >= duration - _ROUNDING:
            self._exit(job, job.program.exit_code)

    def _exit(self, job: VJob, code: int) -> None:
        job.work.turn(0, self._host.at)
        if code == 0:
            job.work.save()
        job.work.killed(self._host.at)
        self._host.finish(job, JobState.FAILED if code else JobState.DONE, "NonZeroExitCode" if code else None, code)

    def _auto_save(self, job: VJob) -> None:
        program = job.program
        if program.checkpoint_every is None:
            return
        if job.saving or job.yielded:
            self._host.after(program.checkpoint_every, job, self._auto_save)
            return
        job.saving = True
        job.work.turn(0, self._host.at)
        self._host.after(program.checkpoint_cost, job, self._auto_saved)

    def _auto_saved(self, job: VJob) -> None:
        if job.program.checkpoint_every is None or not job.saving:
            return
        self._save(job, yields=False)
        self._go_on(job)
        self._host.after(job.program.checkpoint_every, job, self._auto_save)

    def _save(self, job: VJob, *, yields: bool) -> None:
        job.saving = False
        job.work.save()
        now = self._host.wall
        job.comment = marked(job.comment, saved=now, yielded=now if yields else None)
        job.shown = None

    def signal(self, job: VJob, name: str, to: str) -> None:
        """A signal arrives at a running program."""
        program = job.program
        if name == "TERM" and program.signal != "TERM":
            if to != "steps":
                self._host.after(program.dies_after, job, lambda j: self._exit(j, 143))
        elif name == program.signal and program.traps and to in program.reacts_to:
            self._trapped(job)
        elif name not in HARMLESS and to != "steps":
            self._exit(job, 1)

    def _trapped(self, job: VJob) -> None:
        program = job.program
        if program.ignores:
            return
        if program.acks_after is not None:
            job.saving = True
            job.work.turn(0, self._host.at)
            self._host.after(program.acks_after, job, self._acked)
        else:
            self._exit(job, program.exit_code)

    def _acked(self, job: VJob) -> None:
        if not job.saving:
            return
        program = job.program
        self._save(job, yields=not program.exits_on_signal)
        if program.exits_on_signal:
            self._exit(job, program.exit_code)
            return
        job.yielded = True
        if program.resumes_after is not None:
            self._host.after(program.resumes_after, job, self._resume)

    def _resume(self, job: VJob) -> None:
        job.yielded = False
        self._go_on(job)

    def term(self, job: VJob, kill_wait: float) -> float:
        """TERM arrives; returns seconds until the program is gone, `kill_wait` at most."""
        program = job.program
        job.work.turn(0, self._host.at)
        if program.saves_on_term and program.dies_after <= kill_wait:
            self._save(job, yields=False)
        return min(program.dies_after, kill_wait)
