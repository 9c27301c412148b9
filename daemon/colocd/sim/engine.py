"""The state machine of the virtual cluster: events on monotonic time, GPUs given out and taken back."""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import msgspec

from colocd.clock import Clock
from colocd.core.view import Held, JobState
from colocd.sim.depends import settle
from colocd.sim.gpus import Free, GpuChoice
from colocd.sim.life import Life
from colocd.sim.model import ENDED, VJob, VNode, minutes
from colocd.sim.queue import Queue, Spot
from colocd.slurm.port import Partition, Reservation

Event = Callable[[VJob], None]


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Delays of the cluster, in seconds: as `KillWait`, `MinJobAge` and the scheduler's rhythm in slurm.conf."""

    kill_wait: float = 5.0
    requeue_delay: float = 5.0
    remember: float = 300.0
    sched_delay: float = 0.0


class Engine:
    """Jobs, nodes and reservations, and how they change. `advance()` carries out all that is due by now."""

    def __init__(
        self,
        clock: Clock,
        nodes: dict[str, VNode],
        partitions: dict[str, Partition],
        choice: GpuChoice,
        timing: Timing,
    ) -> None:
        self._clock = clock
        self.nodes = nodes
        self.partitions = partitions
        self.reservations: dict[str, Reservation] = {}
        self.jobs: dict[str, VJob] = {}
        self.numbers: dict[int, list[VJob]] = {}
        self._dependents: dict[str, VJob] = {}
        self._choice = choice
        self.timing = timing
        self._life = Life(self)
        self._queue = Queue(nodes, partitions)
        self._events: list[tuple[float, int, VJob | None, int, Callable[..., None]]] = []
        self._seq = count()
        self._pass_due = False
        self.at = clock.monotonic()
        self._offset = clock.now() - self.at

    @property
    def wall(self) -> float:
        """Unix seconds of the moment being worked on."""
        return self.at + self._offset

    def advance(self) -> None:
        """Carry out everything that is due by the clock's present time."""
        target = self._clock.monotonic()
        self._offset = self._clock.now() - target
        while self._events and self._events[0][0] <= target:
            due, _, job, run, action = heappop(self._events)
            self.at = max(self.at, due)
            if job is None:
                action()
            elif job.run == run:
                action(job)
        self.at = max(self.at, target)

    def after(self, delay: float, job: VJob, action: Event) -> None:
        """Do `action(job)` in `delay` seconds unless the job has changed its state by then."""
        heappush(self._events, (self.at + delay, next(self._seq), job, job.run, action))

    def later(self, delay: float, action: Callable[[], None]) -> None:
        """Do `action` in `delay` seconds."""
        heappush(self._events, (self.at + delay, next(self._seq), None, 0, action))

    def wake(self) -> None:
        """Resources or rules have changed: let the scheduler look at all waiting jobs."""
        self._queue.wake()
        self._want_pass()

    def _want_pass(self) -> None:
        if self._queue.restless and not self._pass_due:
            self._pass_due = True
            self.later(self.timing.sched_delay, self._pass)

    def _pass(self) -> None:
        self._pass_due = False
        self._queue.run(self._start)

    def add(self, job: VJob) -> None:
        """Take a new job in."""
        self.jobs[job.ref] = job
        if job.wanted:
            self._dependents[job.ref] = job
        self.numbers.setdefault(job.number, []).append(job)
        self.consider(job)
        self._settle()

    def _settle(self) -> None:
        """A job has come, started or ended: look again at those that depend on others (Slurm: once a minute, if held)."""
        for job in [j for j in self._dependents.values() if j.state is JobState.PENDING and j.wanted]:
            before = job.dependency
            settle(job, self.numbers, self.wall)
            if job.dependency != before:
                if job.hopeless and job.held is Held.USER:
                    job.held = Held.ADMIN  # as Slurm does, whoever held it
                self.consider(job)

    def consider(self, job: VJob) -> None:
        """Put a job into, or take it out of, the waiting line after anything about it has changed."""
        job.shown = None
        self._queue.remove(job)
        if job.state is not JobState.PENDING:
            return
        if job.held is not Held.NO:
            job.reason = "JobHeldAdmin" if job.held is Held.ADMIN else "JobHeldUser"
        elif job.dependency is not None:
            job.reason = "DependencyNeverSatisfied" if job.hopeless else "Dependency"
        elif job.eligible > self.at:
            job.reason = "BeginTime"
            self.after(job.eligible - self.at, job, self.consider)
        else:
            job.reason = "Resources"
            self._queue.add(job)
            self._want_pass()

    def _start(self, job: VJob, spot: Spot) -> None:
        sub = job.sub
        for node in spot:
            free = Free(node.free(sub.gpu_type), ((1 << node.cpus) - 1) & ~node.cores_used)
            given = self._choice.give(node.shape, node.sockets, free, sub.gpus, sub.cpus)
            node.used |= given.gpus
            node.cores_used |= given.cores
            job.cores[node.name] = given.cores
            if given.gpus:
                job.gpus[node.name] = given.gpus
        job.nodes = tuple(node.name for node in spot)
        job.state, job.reason, job.started, job.shown = JobState.RUNNING, None, self.wall, None
        job.run += 1
        if sub.time_limit is not None:
            self.after(minutes(sub.time_limit) * 60.0, job, lambda j: self.kill(j, "TimeLimit"))
        self._life.begin(job)
        self._settle()
        for pause in {one.minutes for other in self._dependents.values() for one in other.wanted if one.minutes}:
            self.later(60.0 * pause, self._settle)

    def signal(self, job: VJob, name: str, to: str) -> None:
        """Deliver a signal to a job that runs; others get none."""
        if job.state is JobState.RUNNING:
            self._life.signal(job, name, to)

    def kill(self, job: VJob, after: str) -> None:
        """TERM, then KILL; the node starts nothing new until its program is gone. `after`: see `VJob.after`."""
        job.shown = None
        job.after = after
        if job.state is JobState.COMPLETING:
            return
        job.run += 1
        self._take_back(job)
        for name in job.nodes:
            self.nodes[name].dying += 1
        job.state = JobState.COMPLETING
        self.after(self._life.term(job, self.timing.kill_wait), job, self._gone)

    def _gone(self, job: VJob) -> None:
        job.work.killed(self.at)
        if job.after == "requeue":
            self._back(job)
        else:
            self.finish(job, JobState.FAILED, job.after)

    def requeue(self, job: VJob, *, hold: bool) -> None:
        """Let a job that runs, dies or has ended wait again, once its program is gone."""
        job.restarts += 1
        if hold:
            job.held, job.reason = Held.ADMIN, "JobHeldAdmin"
        if job.state in ENDED:
            self._back(job)
        else:
            self.kill(job, "requeue")

    def _back(self, job: VJob) -> None:
        self._vacate(job)
        job.state, job.submitted = JobState.PENDING, self.wall
        job.started = job.ended = None
        job.eligible = self.at + self.timing.requeue_delay
        self.consider(job)

    def finish(self, job: VJob, state: JobState, reason: str | None, exit_code: int = 0) -> None:
        """The job has ended for good; it is remembered for a while."""
        self._vacate(job)
        job.state, job.reason, job.ended, job.exit_code = state, reason, self.wall, exit_code
        job.held = Held.NO
        self.consider(job)
        self.after(self.timing.remember, job, self._forget)
        self._settle()

    def fail_node(self, node: VNode) -> None:
        """A node is gone: its jobs are requeued if they may be, else they have failed."""
        node.down = True
        for job in [j for j in self.jobs.values() if node.name in j.nodes]:
            job.work.killed(self.at)
            if job.after == "requeue":
                self._back(job)
            elif job.requeue and not job.after:
                job.restarts += 1
                self._back(job)
            else:
                self.finish(job, JobState.FAILED, "NodeDown")
        self.wake()

    def _take_back(self, job: VJob) -> None:
        for name in job.nodes:
            node = self.nodes[name]
            node.used &= ~job.gpus.get(name, 0)
            node.cores_used &= ~job.cores.get(name, 0)
        job.gpus, job.cores = {}, {}

    def _vacate(self, job: VJob) -> None:
        job.run += 1
        if not job.nodes:
            return
        if job.state is JobState.COMPLETING:
            for name in job.nodes:
                self.nodes[name].dying -= 1
        self._take_back(job)
        job.nodes, job.after = (), ""
        self.wake()

    def _forget(self, job: VJob) -> None:
        del self.jobs[job.ref]
        self._dependents.pop(job.ref, None)
        tasks = self.numbers[job.number]
        tasks.remove(job)
        if not tasks:
            del self.numbers[job.number]

    def reserve(self, resv: Reservation, seconds: float) -> None:
        """Close a node to all but the reservation's jobs."""
        self.reservations[resv.name] = resv
        for name in resv.nodes:
            self.nodes[name].reservation = resv
        self.later(seconds, lambda: self._expire(resv))
        self.wake()

    def _expire(self, resv: Reservation) -> None:
        if self.reservations.get(resv.name) is not resv:
            return
        self.unreserve(resv)
        for job in [j for j in self.jobs.values() if j.reservation == resv.name]:
            if job.nodes:
                self.kill(job, "TimeLimit")
            elif job.state is JobState.PENDING:
                job.reservation, job.held = None, Held.ADMIN
                self.consider(job)
                job.reason = f"Reservation {resv.name} was deleted"

    def unreserve(self, resv: Reservation) -> None:
        """Open the node again."""
        del self.reservations[resv.name]
        for name in resv.nodes:
            self.nodes[name].reservation = None
        self.wake()

    def busy(self, name: str) -> bool:
        """Whether a job that has not ended belongs to the reservation."""
        return any(job.reservation == name and job.state not in ENDED for job in self.jobs.values())
