"""`VirtualSlurm`: the port's fake, for tests and the simulator. Deterministic; time comes from the clock alone."""

from collections.abc import Callable, Collection, Mapping, Sequence

from coloc_topology.shape import Shape
from colocd.clock import Clock
from colocd.core.view import Held, Job, JobState, Node
from colocd.errors import SlurmRefused
from colocd.sim.engine import Engine, Timing
from colocd.sim.faults import Faulty
from colocd.sim.gpus import GpuChoice, sockets_of
from colocd.sim.intake import Intake
from colocd.sim.model import ENDED, VJob, VNode
from colocd.sim.program import ENDLESS, Program, Work, marked
from colocd.slurm.port import Cluster, JobUpdate, Partition, Reservation, Site, Submission

PARTITIONS = (Partition(name="batch", up=True, tier=1), Partition(name="online", up=True, tier=10))


SETTINGS = {"SelectType": "select/cons_tres", "GresTypes": "gpu", "PreemptType": "preempt/none", "PrivateData": "none"}


class VirtualSlurm(Faulty):
    """Implements `SlurmPort` on `shapes` (node name to shape); every call first does what is due by `clock`.

    `partitions` without nodes have all of them. `types`: gres type per node, one for all its GPUs or one each; default
    `h100`. `cpus`: cores of each node. `program_for(job)` says what a job does (the job as it is when submitted).
    `users`: who exists (None: everybody).
    `spread_single` is `GpuChoice.by_socket`; for `links_inverted` see there. Delays are seconds; `sched_delay` lies between
    a change and the scheduler's next pass. See `Faulty` for faults.
    """

    def __init__(
        self,
        clock: Clock,
        shapes: Mapping[str, Shape],
        *,
        version: str = "22.05.8",
        partitions: Sequence[Partition] = PARTITIONS,
        types: Mapping[str, str | tuple[str, ...]] | None = None,
        cpus: int = 16,
        kill_wait: float = 5.0,
        requeue_delay: float = 5.0,
        remember: float = 300.0,
        sched_delay: float = 0.0,
        links_inverted: bool = False,
        spread_single: bool = True,
        users: Collection[str] | None = None,
        network: str = "",
        program_for: Callable[[Job], Program] = lambda job: ENDLESS,
    ) -> None:
        super().__init__(clock)
        self.version = version
        self.network = network
        self.setup = Site(settings={"SLURM_VERSION": version, **SETTINGS}, user="root")
        parts = {p.name: _whole(p, tuple(shapes)) for p in partitions}
        nodes = {}
        for name, shape in shapes.items():
            kind = (types or {}).get(name, "h100")
            each = (kind,) * shape.gpus if isinstance(kind, str) else kind
            member = tuple(p.name for p in parts.values() if name in p.nodes)
            nodes[name] = VNode(name, shape, cpus, each, member, sockets_of(shape, cpus))
        timing = Timing(kill_wait=kill_wait, requeue_delay=requeue_delay, remember=remember, sched_delay=sched_delay)
        self._engine = Engine(clock, nodes, parts, GpuChoice(spread_single, links_inverted), timing)
        self._intake = Intake(self._engine, program_for, users)

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self) -> Cluster:
        """See `SlurmPort.read`."""
        return self._read("read", (), self._cluster)

    def _cluster(self) -> Cluster:
        engine = self._now()
        return Cluster(
            version=self.version,
            nodes=tuple(node.show() for node in engine.nodes.values()),
            jobs=tuple(job.shown or job.show() for job in engine.jobs.values()),
            partitions=tuple(engine.partitions.values()),
            reservations=tuple(engine.reservations.values()),
        )

    def usage(self) -> Mapping[str, tuple[int, float]]:
        """See `SlurmPort.usage`: a virtual cluster runs no commands."""
        return {}

    def site(self) -> Site:
        """See `SlurmPort.site`: a plain Slurm in which the caller may do everything, unless `setup` was set."""
        return self._read("site", (), lambda: self.setup)

    def jobs(self, refs: Sequence[str]) -> dict[str, Job]:
        """See `SlurmPort.jobs`."""
        return self._read("jobs", (tuple(refs),), lambda: {j.ref: j.show() for j in self._known(refs)})

    def node(self, name: str) -> Node:
        """See `SlurmPort.node`."""
        return self._read("node", (name,), lambda: self._node(name).show())

    def nodes(self, names: Sequence[str]) -> dict[str, Node]:
        """See `SlurmPort.nodes`."""
        return self._read("nodes", (tuple(names),), lambda: {name: self._node(name).show() for name in names})

    def record(self, ref: str) -> str:
        """See `SlurmPort.record`."""
        return self._read("record", (ref,), lambda: "".join(job.record() for job in self._known([ref])))

    def topology(self) -> str:
        """See `SlurmPort.topology`: what the test or the simulator gave."""
        return self._read("topology", (), lambda: self.network)

    def reservations(self) -> tuple[Reservation, ...]:
        """See `SlurmPort.reservations`."""
        return self._read("reservations", (), lambda: tuple(self._now().reservations.values()))

    def find(self, comment_token: str) -> tuple[Job, ...]:
        """See `SlurmPort.find`."""
        return self._read(
            "find",
            (comment_token,),
            lambda: tuple(j.show() for j in self._now().jobs.values() if comment_token in j.comment),
        )

    def work(self, ref: str) -> Work:
        """What a job has done, saved and lost so far; for tests and reports."""
        job = self._now().jobs[ref]
        job.work.turn(job.work.rate, self._engine.at)
        return job.work

    # --- changing ------------------------------------------------------------------------------------------------

    def submit(self, job: Submission) -> str:
        """See `SlurmPort.submit`."""
        return self._change("submit", (job,), lambda: self._intake.submit(job, self._now()), "")

    def hold(self, refs: Sequence[str]) -> None:
        """See `SlurmPort.hold`. As with Slurm, a running job is held for the time after a requeue."""
        self._change("hold", (tuple(refs),), lambda: self._each(refs, lambda j: self._hold(j, Held.ADMIN)), None)

    def release(self, refs: Sequence[str]) -> None:
        """See `SlurmPort.release`."""
        self._change("release", (tuple(refs),), lambda: self._each(refs, lambda j: self._hold(j, Held.NO)), None)

    def _hold(self, job: VJob, who: Held) -> None:
        if job.state in ENDED:
            raise SlurmRefused(f"job {job.ref}: Job has already finished")
        job.held = who
        self._engine.consider(job)

    def update(self, ref: str, change: JobUpdate) -> None:
        """See `SlurmPort.update`."""
        self._change("update", (ref, change), lambda: self._each([ref], lambda j: self._intake.update(j, change)), None)

    def signal(self, refs: Sequence[str], signal: str, to: str) -> None:
        """See `SlurmPort.signal`. Jobs that wait get none, which is no error; ended ones are refused."""
        args = (tuple(refs), signal, to)
        self._change("signal", args, lambda: self._each(refs, lambda j: self._signal(j, signal, to)), None)

    def _signal(self, job: VJob, signal: str, to: str) -> None:
        if job.state in ENDED:
            raise SlurmRefused(f"job {job.ref}: Invalid job id specified")
        self._engine.signal(job, signal, to)

    def requeue(self, refs: Sequence[str], *, hold: bool) -> None:
        """See `SlurmPort.requeue`. As with Slurm, a job that has ended runs once more."""
        self._change("requeue", (tuple(refs), hold), lambda: self._each(refs, lambda j: self._requeue(j, hold)), None)

    def _requeue(self, job: VJob, hold: bool) -> None:
        if job.state is JobState.PENDING or job.after == "requeue":
            raise SlurmRefused(f"job {job.ref}: Job is pending execution")
        if not job.requeue:
            raise SlurmRefused(f"job {job.ref}: Requested operation is presently disabled")
        self._engine.requeue(job, hold=hold)

    def cancel(self, refs: Sequence[str]) -> None:
        """See `SlurmPort.cancel`."""
        self._change("cancel", (tuple(refs),), lambda: self._cancel(refs), None)

    def _cancel(self, refs: Sequence[str]) -> None:
        for job in self._known(refs):
            if job.state is JobState.PENDING:
                self._engine.finish(job, JobState.FAILED, "Cancelled")
            elif job.state not in ENDED:
                self._engine.kill(job, "Cancelled")

    def reserve(self, name: str, nodes: Sequence[str], users: Sequence[str], minutes: int) -> None:
        """See `SlurmPort.reserve`."""
        args = (name, tuple(nodes), tuple(users), max(1, minutes))
        self._change("reserve", args, lambda: self._reserve(*args), None)

    def _reserve(self, name: str, nodes: tuple[str, ...], users: tuple[str, ...], minutes: int) -> None:
        found = [self._node(node) for node in nodes]
        engine = self._engine
        for user in users:
            self._intake.check_user(user)
        if name in engine.reservations:
            raise SlurmRefused(f"reservation {name}: Reservation name already exists")
        for node in found:
            if node.reservation is not None:
                raise SlurmRefused(f"reservation {name}: Requested reservation overlaps {node.reservation.name}")
        wall = engine.wall
        resv = Reservation(name=name, nodes=nodes, users=users, starts=wall, ends=wall + minutes * 60)
        engine.reserve(resv, minutes * 60)

    def unreserve(self, name: str) -> None:
        """See `SlurmPort.unreserve`."""
        self._change("unreserve", (name,), lambda: self._unreserve(name), None)

    def _unreserve(self, name: str) -> None:
        resv = self._now().reservations.get(name)
        if resv is None:
            return
        if self._engine.busy(name):
            raise SlurmRefused(f"reservation {name}: Requested reservation is in use")
        self._engine.unreserve(resv)

    # --- what others do on the cluster ---------------------------------------------------------------------------

    def comment_by(self, user: str, ref: str, comment: str) -> None:
        """A user changes a job's comment; raises `SlurmRefused` unless it is the user's own."""
        with self._lock:
            for job in self._known([ref]):
                if user not in (job.user, "root"):
                    raise SlurmRefused(f"job {ref}: Invalid user id")
            self._each([ref], lambda j: self._intake.update(j, JobUpdate(comment=comment)))

    def checkpointed(self, ref: str, *, saved: float | None = None, yielded: float | None = None) -> None:
        """A job writes these facts into its own comment."""
        with self._lock:
            for job in self._known([ref]):
                job.comment, job.shown = marked(job.comment, saved=saved, yielded=yielded), None

    def hold_by_user(self, ref: str) -> None:
        """The owner holds a pending job."""
        with self._lock:
            self._each([ref], lambda j: self._hold(j, Held.USER))

    def fail_node(self, name: str) -> None:
        """A node goes down at once: its jobs are requeued if they may be, else they have failed."""
        with self._lock:
            self._engine.fail_node(self._node(name))

    def drain(self, name: str) -> None:
        """A node takes no new jobs; those on it go on."""
        with self._lock:
            self._node(name).drained = True

    def resume(self, name: str) -> None:
        """A down or drained node is up again."""
        with self._lock:
            node = self._node(name)
            node.down = node.drained = False
            self._engine.wake()

    # --- inside --------------------------------------------------------------------------------------------------

    def _now(self) -> Engine:
        self._engine.advance()
        return self._engine

    def _node(self, name: str) -> VNode:
        node = self._now().nodes.get(name)
        if node is None:
            raise SlurmRefused(f"node {name}: Node not found")
        return node

    def _known(self, refs: Sequence[str]) -> list[VJob]:
        engine = self._now()
        found: dict[str, VJob] = {}
        for ref in refs:
            same = (
                [engine.jobs[ref]] if ref in engine.jobs else engine.numbers.get(int(ref), []) if ref.isdigit() else []
            )
            found.update((job.ref, job) for job in same)
        return list(found.values())

    def _each(self, refs: Sequence[str], act: Callable[[VJob], None]) -> None:
        """Act on each job; as Slurm's commands, go on after a refusal and report the first at the end."""
        refused: SlurmRefused | None = None
        for ref in refs:
            try:
                found = self._known([ref])
                if not found:
                    raise SlurmRefused(f"job {ref}: Invalid job id specified")
                for job in found:
                    act(job)
            except SlurmRefused as error:
                refused = refused or error
        if refused is not None:
            raise refused


def _whole(partition: Partition, names: tuple[str, ...]) -> Partition:
    """The partition with its nodes filled in."""
    if partition.nodes:
        return partition
    return Partition(name=partition.name, up=partition.up, tier=partition.tier, nodes=names, preempt=partition.preempt)
