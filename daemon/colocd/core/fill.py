"""Filling the valleys: which held batch jobs may start, and where.

GPUs that the services may need before a job can do useful work are kept free, as whole placements on the best islands;
what is left over is the job's valley.
"""

from collections.abc import Mapping
from math import ceil

from colocd.core.actions import Action, Hold, Note, Release
from colocd.core.ground import Ground
from colocd.core.index import Ints, popcount
from colocd.core.need import reserve
from colocd.core.pack import Pack, per_node
from colocd.core.policy import Policy
from colocd.core.valleys import kept_back
from colocd.core.victims import gpu_count
from colocd.core.view import Held, Job, JobFacts, JobState, View
from colocd.core.wishes import is_wish

KEPT_STEP = 60.0
"""Times for which GPUs are kept are rounded up to this many seconds: many jobs share what is found out."""

_ASIDE = ("Dependency", "BeginTime", "JobArrayTaskLimit")
"""Reasons for which Slurm itself keeps a released job back: it takes no GPUs and is not taken back."""


def useful_time(job: Job, policy: Policy) -> float:
    """Seconds a job needs before starting it was worth while: a checkpoint interval and its restart cost, if it tells."""
    facts = job.checkpoint
    if facts is None or facts.interval is None:
        return policy.min_useful
    return min(facts.interval + (facts.cost or 0.0), policy.max_unsaved)


def waiting(job: Job, facts: JobFacts, policy: Policy) -> bool:
    """Whether the job is coloc's to start: its own mark, a batch partition, and a hold that is not somebody's wish.

    A user's hold counts as the submission's until coloc has released the job once, unless the mark says that it was the
    user's own from the start; an administrator's is coloc's own only if coloc remembers placing it.
    """
    if job.state is not JobState.PENDING or job.checkpoint is None or job.partition not in policy.batch_partitions:
        return False
    if job.held is Held.USER:
        return facts.ours or (job.checkpoint.hold != "user" and not facts.ever_released)
    return job.held is Held.ADMIN and facts.ours


def fill(view: View, ground: Ground, placed: Mapping[str, int]) -> tuple[list[Action], list[Note]]:
    """Releases (and holds of jobs that did not start), oldest first, and why the others wait. `placed`: see `kept_back`."""
    policy = view.policy
    pack = Pack(ground, placed)
    actions: list[Action] = []
    notes: list[Note] = []
    kept_cache: dict[float, Ints] = {}
    ours = [j for j in view.jobs if j.checkpoint is not None and j.partition in policy.batch_partitions]
    for job in ours:
        facts = view.facts.get(job.ref, JobFacts())
        if job.state is not JobState.PENDING or job.held is not Held.NO or job.reason in _ASIDE:
            continue
        pack.promise(job)
        waited = None if facts.released_at is None else view.at - facts.released_at
        if waited is not None and waited > policy.start_timeout:
            actions.append(
                Hold(job=job.ref, why=f"released {waited:.0f} s ago and not started ({job.reason or 'no reason told'})")
            )
    blind = [
        s.spec.name
        for s in view.services
        if reserve(s, policy, view.at, 0.0) and s.load is None and not is_wish(s.spec.name)
    ]
    for job in sorted(ours, key=lambda j: (j.submitted or 0.0, j.order)):
        facts = view.facts.get(job.ref, JobFacts())
        if not waiting(job, facts, policy):
            continue
        until = useful_time(job, policy)
        pause = max(
            (t for t in (facts.retry_at, facts.evicted_at and facts.evicted_at + policy.cooldown) if t is not None),
            default=None,
        )
        if pause is not None and pause > view.at:
            notes.append(
                Note(subject=f"job:{job.ref}", text=f"waits another {pause - view.at:.0f} s before it is tried again")
            )
            continue
        rounded = ceil(until / KEPT_STEP) * KEPT_STEP
        if rounded not in kept_cache:
            kept_cache[rounded] = kept_back(view, ground, rounded, placed)
        kept = kept_cache[rounded]
        hosts = pack.hosts(job, facts, kept)
        if hosts is None:
            told = f" (load of {', '.join(blind)} is unknown, so nothing of theirs is given away)" if blind else ""
            notes.append(
                Note(
                    subject=f"job:{job.ref}",
                    text=f"waits: no {per_node(job)} GPUs on {job.nodes_requested} node(s) stay free for the"
                    f" {until:.0f} s it needs to do useful work; {popcount(kept).sum()} free GPUs"
                    f" are kept for services{told}",
                )
            )
            continue
        # A job that did not start on coloc's choice of nodes is left to Slurm's the next time.
        pin = gpu_count(job) > 0 and facts.retry_at is None and (facts.pinned or not job.required_nodes)
        pack.take(job, facts, hosts)
        actions.append(
            Release(
                job=job.ref,
                nodes=hosts if pin else (),
                why=f"{gpu_count(job)} GPUs on {', '.join(hosts)} are needed by no service for the next {until:.0f} s",
            )
        )
    return actions, notes
