"""The demo's eyes: samples Slurm, follows handovers and jobs, and tells the display."""

from colocd.core.seats import words
from colocd.core.view import ReplicaState
from colocd.store.port import Store
from colocd.store.records import OPEN_STATES, Handover, ReplicaRow
from demo import curve, sample
from demo.display import Display, Moment
from demo.report import JobRecord, completed
from demo.site import NODES, Site

EVERY = 1.0


class Watch:
    """`look` as often as one likes: it reads at most once a second. `jobs` is the backlog, filled by the driver."""

    def __init__(self, site: Site, store: Store, display: Display, start: float) -> None:
        self.site, self.store, self.display, self.start = site, store, display, start
        self.jobs: list[JobRecord] = []
        self.samples: list[sample.Sample] = []
        self.seen: dict[str, tuple[str, frozenset[int]]] = {}
        self._told: dict[int, str] = {}
        self._done: set[str] = set()
        self._next = 0.0

    @property
    def finished(self) -> bool:
        """True when all jobs of the backlog have done all their steps."""
        return len(self._done) == len(self.jobs)

    def read_jobs(self) -> list[JobRecord]:
        """The backlog as it stands."""
        return list(self.jobs)

    def look(self) -> None:
        """Sample, if it is time."""
        now = self.site.clock.monotonic()
        if now < self._next:
            return
        self._next = now + EVERY
        at = self.site.clock.now()
        running = self.site.running()
        replicas = self.store.replicas()
        ready = {row.job for row in replicas if row.job is not None and row.state == ReplicaState.READY}
        self.samples.append(sample.sample(at, running, ready))
        self._remember(running, replicas)
        for handover in sorted(self.store.handovers(limit=200), key=lambda h: h.id):
            self._tell(handover)
        self._done |= {job.ref for job in self.jobs if job.ref not in self._done and completed(job)}
        self._show(at, running, len(ready))

    def _remember(self, running: tuple[sample.Allocation, ...], replicas: tuple[ReplicaRow, ...]) -> None:
        """Which GPUs Slurm gave the replicas: the report believes this and not coloc."""
        ours = {row.job for row in replicas}
        for job in running:
            if job.job in ours and len(job.gpus) == 1:
                ((node, indices),) = job.gpus.items()
                self.seen[job.job] = (node, indices)

    def _tell(self, handover: Handover) -> None:
        old, state = self._told.get(handover.id), handover.state.value
        if old == state or (old is not None and handover.state in OPEN_STATES):
            return
        self._told[handover.id] = state
        if old is None and handover.state in OPEN_STATES:
            who = f"takes GPUs from {', '.join(handover.victims)}" if handover.victims else "takes free GPUs"
            text = f"replica {handover.slot} {who}: {words(handover.places)}"
        else:
            got = "" if handover.got is None else f", {words(handover.got)}"
            text = f"replica {handover.slot}: {state}{got}"
        self.display.event(f"{self._face()} handover {handover.id}: {text}")

    def _face(self) -> str:
        return curve.clock_face(self.site.clock.now() - self.start)

    def _show(self, at: float, running: tuple[sample.Allocation, ...], ready: int) -> None:
        since, last = at - self.start, self.samples[-1]
        mine = {job.ref for job in self.jobs}
        active = len(mine & {job.job for job in running} - self._done)
        self.display.show(
            Moment(
                seconds=since,
                face=curve.clock_face(since),
                total=NODES * self.site.shape.gpus,
                ready=last.ready,
                starting=last.starting,
                batch=last.batch,
                load=curve.load_at(curve.TODAY, since),
                capacity=float(ready * curve.CAPACITY),
                batch_running=active,
                batch_waiting=len(mine) - active - len(self._done),
                batch_done=len(self._done),
            )
        )
