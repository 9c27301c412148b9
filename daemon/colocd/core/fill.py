"""Filling the valleys: which held batch jobs may start, and where.

GPUs that the services may need before a job can do useful work are kept free, as whole placements on the best islands;
what is left over is the job's valley.
"""

from collections.abc import Mapping
from math import ceil, floor, log2

from colocd.core.actions import Action, Hold, Note, Release
from colocd.core.admission import Reserved, reserve_for, useful_time
from colocd.core.arrays import Ints, popcount
from colocd.core.dependencies import Dependencies, never
from colocd.core.ground import Ground
from colocd.core.index import NO_FACTS
from colocd.core.need import reserve
from colocd.core.pack import Pack, per_node
from colocd.core.policy import Policy
from colocd.core.queueing import place_of, settling
from colocd.core.room import Room
from colocd.core.valleys import kept_back
from colocd.core.victims import cpus_per_node, gpu_count
from colocd.core.view import Held, Job, JobFacts, JobState, View
from colocd.core.wishes import is_wish

KEPT_STEP = 60.0
"""Times for which GPUs are kept are rounded up to this many seconds, short ones less: many jobs share what is found out."""

TRIED = 8
"""Jobs that do not fit for which a reservation is looked for, until one is found."""
MOST_LOOKS = 1000
"""Times that places are looked for in one plan: each job that starts, and the first of each kind that finds none."""
ASIDE = ("Dependency", "DependencyNeverSatisfied", "BeginTime", "JobArrayTaskLimit")
"""Reasons for which Slurm itself keeps a released job back: it takes no GPUs and is not taken back."""


def rounded_up(until: float) -> float:
    """Seconds rounded up, by at most `KEPT_STEP` and a quarter of them: a job of seconds is not kept out by the next minute."""
    step = min(KEPT_STEP, 2.0 ** floor(log2(max(until, 1.0) / 4)))
    return ceil(until / step) * step


def waiting(job: Job, facts: JobFacts, policy: Policy) -> bool:
    """Whether the job is coloc's to start: its own mark, a batch partition, and a hold that is not somebody's wish.

    A user's hold counts as the submission's until coloc has released the job once, unless the mark says that it was the
    user's own from the start; an administrator's is coloc's own only if coloc remembers placing it. Slurm turns any hold
    into an administrator's when a dependency has failed: coloc tells of such a job, too.
    """
    if job.state is not JobState.PENDING or job.checkpoint is None or job.partition not in policy.batch_partitions:
        return False
    if job.held is Held.USER:
        return facts.ours or (job.checkpoint.hold != "user" and not facts.ever_released)
    first = job.checkpoint.hold != "user" and not facts.ever_released
    return job.held is Held.ADMIN and (facts.ours or (first and never(job) is not None))


def fill(view: View, ground: Ground, placed: Mapping[str, int]) -> tuple[list[Action], list[Note]]:
    """Releases (and holds of jobs that did not start) in the order of the queue, and why the others wait.

    `placed`: see `kept_back`.
    """
    ours = [j for j in view.jobs if j.checkpoint is not None and j.partition in view.policy.batch_partitions]
    filling = _Filling(view, ground, placed, ours)
    filling.promise(ours)
    # A victim is not started again while its handover is open: on a node that it leaves this very second, Slurm would end it
    # as FAILED ("job credential revoked").
    leaving = {ref: h for h in view.handovers for ref in h.victims}
    queue = [j for j in ours if waiting(j, filling.facts(j), view.policy)]
    for job in sorted(queue, key=lambda j: place_of(j, filling.facts(j), view.policy)):
        if (handover := leaving.get(job.ref)) is not None:
            text = f"waits until its GPUs have gone to {handover.service} (handover {handover.id})"
            filling.notes.append(Note(subject=f"job:{job.ref}", text=text))
            continue
        filling.offer(job)
    filling.tell()
    return filling.actions, filling.notes


class _Filling:
    """One plan's filling: what is given away so far, the quota's room, and the reservation for a job that does not fit."""

    def __init__(self, view: View, ground: Ground, placed: Mapping[str, int], ours: list[Job]) -> None:
        self.view, self.policy, self.ground, self.placed = view, view.policy, ground, placed
        self.pack = Pack(ground, placed)
        self._room = Room(view.nodes)
        self.actions: list[Action] = []
        self.notes: list[Note] = []
        self._depends = Dependencies(view.jobs, view.at)
        self._full = {j.order[0] for j in ours if j.held is Held.NO and j.reason == "JobArrayTaskLimit"}
        self._kept: dict[tuple[float, bool], Ints] = {}
        self._reserved: Reserved | None = None
        self._tried = 0
        self._passed = 0
        self._kept_gpus: dict[float, int] = {}
        self._limited = view.quota.share < 1.0
        self._held = sum(gpu_count(j) for j in ours if j.gpus and j.ref not in ground.gone) if self._limited else 0
        self._blind = [
            s.spec.name
            for s in view.services
            if reserve(s, view.policy, view.at, 0.0) and s.load is None and not is_wish(s.spec.name)
        ]

    def facts(self, job: Job) -> JobFacts:
        """What coloc remembers of the job."""
        return self.view.facts.get(job.ref, NO_FACTS)

    def promise(self, ours: list[Job]) -> None:
        """Strike what was released and has not started; take back what waits too long, and what is parked."""
        for job in ours:
            facts = self.facts(job)
            if job.state is not JobState.PENDING or job.held is not Held.NO:
                continue
            if facts.parked is not None:
                # Also while Slurm's delay after a requeue keeps it back: it would start at its end.
                self.actions.append(Hold(job=job.ref, why=f"parked: {facts.parked}"))
                continue
            if job.reason in ASIDE:
                continue
            self.pack.promise(job)
            self._held += gpu_count(job)
            waited = None if facts.released_at is None else self.view.at - facts.released_at
            if waited is not None and waited > self.policy.start_timeout:
                why = f"released {waited:.0f} s ago and not started ({job.reason or 'no reason told'})"
                self.actions.append(Hold(job=job.ref, why=why))

    def kept(self, until: float, reserved: bool) -> Ints:
        """GPUs that services may need within `until` seconds, and with `reserved` what is kept for a large job."""
        rounded = rounded_up(until)
        if (rounded, False) not in self._kept:
            self._kept[rounded, False] = kept_back(self.view, self.ground, rounded, self.placed)
        if not reserved or self._reserved is None:
            return self._kept[rounded, False]
        if (rounded, True) not in self._kept:
            self._kept[rounded, True] = self._kept[rounded, False] | self._reserved.held
        return self._kept[rounded, True]

    def offer(self, job: Job) -> None:
        """Release a job if there is a place for it, else say why it waits."""
        view, policy, facts = self.view, self.policy, self.facts(job)
        until = useful_time(job, policy, view, facts)
        told = self._not_now(job, facts)
        if told is None:
            short = self._reserved is not None and self._reserved.allows(job, facts, view)
            kept = self.kept(until, reserved=not short)
            told = self._over_quota(job, kept)
        if told is not None:
            self.notes.append(Note(subject=f"job:{job.ref}", text=told))
            return
        if self.pack.looks >= MOST_LOOKS:
            self._passed += 1
            text = f"waits: places for {MOST_LOOKS} jobs before it were looked for, as many as one plan does; it keeps its turn"
            self.notes.append(Note(subject=f"job:{job.ref}", text=text))
            return
        hosts = self.pack.hosts(job, facts, kept)
        if hosts is None and (never := self._room.never(job)) is not None:
            self.notes.append(Note(subject=f"job:{job.ref}", text=never))
            return
        if hosts is None:
            self.notes.append(Note(subject=f"job:{job.ref}", text=self._no_room(job, facts, until)))
            return
        # A job that did not start on coloc's choice of nodes is left to Slurm's the next time.
        pin = gpu_count(job) > 0 and facts.retry_at is None and (facts.pinned or not job.required_nodes)
        self.pack.take(job, facts, hosts)
        self._held += gpu_count(job)
        self.actions.append(
            Release(
                job=job.ref,
                nodes=hosts if pin else (),
                why=f"{gpu_count(job)} GPUs on {', '.join(hosts)} are needed by no service for the next {until:.0f} s",
            )
        )

    def tell(self) -> None:
        """Say so if not every job was looked at."""
        if self._passed:
            text = (
                f"places were looked for {MOST_LOOKS} times for batch jobs, as often as one plan does; {self._passed} waiting"
                " jobs were not looked at and keep their turn for the next plan"
            )
            self.notes.append(Note(subject="coloc", text=text))

    def _not_now(self, job: Job, facts: JobFacts) -> str | None:
        """What keeps a job back whatever is free."""
        if facts.parked is not None:
            return f"parked: {facts.parked}; `coloc unpark {job.ref}` lets it try again"
        if (why := self._depends.keeps(job)) is not None:
            return why
        if job.order[0] in self._full:
            return "waits: as many tasks of its array run, or may start, as its owner lets run at once"
        if (soon := settling(job, self.view.at)) > 0:
            return f"was requeued just now: Slurm may start it again in {soon:.1f} s"
        cooled = None if facts.evicted_at is None else facts.evicted_at + self.policy.cooldown
        pause = max((t for t in (facts.retry_at, cooled) if t is not None), default=None)
        if pause is not None and pause > self.view.at:
            return f"waits another {pause - self.view.at:.0f} s before it is tried again"
        return None

    def _over_quota(self, job: Job, kept: Ints) -> str | None:
        """Why the quota has no room for a job; None: it has. The first job always has, or a large one would never start."""
        quota = self.view.quota
        if not self._limited or not self._held:
            return None
        left = int(self.pack.gpus.sum()) - int(popcount(kept).sum())
        most = int(quota.share * (self._held + max(0, left)))
        if self._held + gpu_count(job) <= most:
            return None
        return f"waits: batch jobs hold {self._held} GPUs of the {most} that the quota of {quota.share:.0%} allows ({quota.why})"

    def _no_room(self, job: Job, facts: JobFacts, until: float) -> str:
        """Why no node will do; the first such job that batch jobs will make room for gets a reservation."""
        blind = ", ".join(self._blind)
        told = f" (load of {blind} is unknown, so nothing of theirs is given away)" if blind else ""
        kept = self.kept(until, reserved=False)
        if until not in self._kept_gpus:
            self._kept_gpus[until] = int(popcount(kept).sum())
        gpus, nodes = per_node(job), job.nodes_requested
        what = f"{gpus} GPU{'s' if gpus > 1 else ''}" if gpus else f"{cpus_per_node(job)} CPUs"
        where = f"no {nodes} nodes have {what} each" if nodes > 1 else f"no node has {what}"
        stay = "stays" if gpus == 1 and nodes <= 1 else "stay"
        text = (
            f"waits: {where} that {stay} free for the {until:.0f} s it needs to do useful work;"
            f" {self._kept_gpus[until]} free GPUs are kept for services{told}"
        )
        if self._reserved is None and self._tried < TRIED:
            self._tried += 1
            self._reserved = reserve_for(job, facts, self.view, self.pack, kept)
            if self._reserved is not None:
                names = ", ".join(self.pack.index.nodes[row].name for row in self._reserved.rows)
                return f"{text}; reserved for it: {names}, from about {self._reserved.at - self.view.at:.0f} s from now"
        elif self._reserved is not None and self._reserved.some:
            text += f"; GPUs are reserved for job {self._reserved.job.ref}"
        return text
