"""Filling the valleys: which held batch jobs may start, and where.

GPUs that the services may need before a job can do useful work are kept free, as whole placements on the best islands;
what is left over is the job's valley.
"""

from collections.abc import Mapping
from typing import NamedTuple

from coloc_topology.fit import fit_table
from colocd.core.actions import Action, Hold, Note, Release
from colocd.core.ground import Ground
from colocd.core.need import counted, need, reserve
from colocd.core.policy import Policy
from colocd.core.service import Mode, ServiceSpec
from colocd.core.victims import gpu_count
from colocd.core.view import Held, Job, JobFacts, JobState, Node, View
from colocd.core.wishes import is_wish

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

    A user's hold counts as the submission's until coloc has released the job once; an administrator's is coloc's own only
    if coloc remembers placing it.
    """
    if job.state is not JobState.PENDING or job.checkpoint is None or job.partition not in policy.batch_partitions:
        return False
    if job.held is Held.USER:
        return not facts.ever_released or facts.ours
    return job.held is Held.ADMIN and facts.ours


def kept_back(view: View, ground: Ground, until: float, placed: Mapping[str, int]) -> dict[str, int]:
    """GPU masks per node that the services may need within `until` seconds, placed as replicas would be.

    `placed`: replicas per service that this plan starts already; their GPUs are struck from `ground`.
    """
    free = dict(ground.free)
    kept: dict[str, int] = {}
    for service in sorted(view.services, key=lambda s: (-s.spec.priority, s.spec.name)):
        spec = service.spec
        short = need(service, view.policy, view.at).now - len(counted(service)) - placed.get(spec.name, 0)
        for nth in range(reserve(service, view.policy, view.at, until) - placed.get(spec.name, 0)):
            # A replica that is short now and fits nowhere keeps the largest part of an island that is free: it grows.
            sizes = range(spec.gpus_per_replica, 0, -1) if nth < short else (spec.gpus_per_replica,)
            best = next((b for size in sizes if (b := _best_free(spec, size, view, ground, free)) is not None), None)
            if best is None:
                break
            free[best[0]] &= ~best[1]
            kept[best[0]] = kept.get(best[0], 0) | best[1]
    return kept


def _best_free(
    spec: ServiceSpec, count: int, view: View, ground: Ground, free: Mapping[str, int]
) -> tuple[str, int] | None:
    """Node and mask of the best `count` free GPUs for a replica, on the fullest node so that whole nodes stay whole."""
    best: tuple[tuple[int, int, int], str, int] | None = None
    for node in view.nodes:
        if node.name in ground.closed or node.shape is None or spec.partition not in node.partitions:
            continue
        fit = fit_table(view.shapes[node.shape]).best(free[node.name], count)
        if fit is None or (spec.mode is Mode.GUARANTEED and fit.level < spec.level):
            continue
        rank = (-min(fit.level, spec.level), free[node.name].bit_count(), -fit.strength)
        if best is None or (rank, node.name) < (best[0], best[1]):
            best = (rank, node.name, fit.gpus)
    return None if best is None else (best[1], best[2])


class _Room(NamedTuple):
    gpus: dict[str, int]
    cpus: dict[str, int | None]


def _per_node(job: Job) -> int:
    if job.gpus_per_node is not None:
        return job.gpus_per_node
    return -(-job.gpus_requested // max(1, job.nodes_requested))


def _hosts(job: Job, facts: JobFacts, nodes: Mapping[str, Node], room: _Room) -> tuple[str, ...] | None:
    """Nodes for the job, fullest first so that whole nodes stay whole; None: it does not fit now."""
    asked = () if facts.pinned else job.required_nodes
    need, cpus = _per_node(job), -(-job.cpus_requested // max(1, job.nodes_requested))
    fits = [
        name
        for name, node in nodes.items()
        if room.gpus[name] >= need
        and (not asked or name in asked)
        and job.partition in node.partitions
        and (room.cpus[name] is None or (room.cpus[name] or 0) >= cpus)
    ]
    fits.sort(key=lambda name: (room.gpus[name], name))
    return tuple(fits[: job.nodes_requested]) if len(fits) >= job.nodes_requested else None


def _take(job: Job, hosts: tuple[str, ...], room: _Room) -> None:
    cpus = -(-job.cpus_requested // max(1, job.nodes_requested))
    for name in hosts:
        room.gpus[name] -= _per_node(job)
        left = room.cpus[name]
        room.cpus[name] = None if left is None else left - cpus


def fill(view: View, ground: Ground, placed: Mapping[str, int]) -> tuple[list[Action], list[Note]]:
    """Releases (and holds of jobs that did not start), oldest first, and why the others wait. `placed`: see `kept_back`."""
    policy = view.policy
    nodes = {n.name: n for n in view.nodes if n.name not in ground.closed}
    actions: list[Action] = []
    notes: list[Note] = []
    kept_cache: dict[float, dict[str, int]] = {}
    taken: dict[str, int] = dict.fromkeys(nodes, 0)
    cpus: dict[str, int | None] = {
        name: None if n.cpus is None or n.cpus_used is None else n.cpus - n.cpus_used for name, n in nodes.items()
    }
    ours = [j for j in view.jobs if j.checkpoint is not None and j.partition in policy.batch_partitions]
    for job in ours:
        facts = view.facts.get(job.ref, JobFacts())
        if job.state is not JobState.PENDING or job.held is not Held.NO or job.reason in _ASIDE:
            continue
        for name in job.required_nodes:
            if name in taken:
                taken[name] += _per_node(job)
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
        if until not in kept_cache:
            kept_cache[until] = kept_back(view, ground, until, placed)
        kept = kept_cache[until]
        room = _Room(
            {name: (ground.free[name] & ~kept.get(name, 0)).bit_count() - taken[name] for name in nodes}, dict(cpus)
        )
        hosts = _hosts(job, facts, nodes, room)
        if hosts is None:
            told = f" (load of {', '.join(blind)} is unknown, so nothing of theirs is given away)" if blind else ""
            notes.append(
                Note(
                    subject=f"job:{job.ref}",
                    text=f"waits: no {_per_node(job)} GPUs on {job.nodes_requested} node(s) stay free for the"
                    f" {until:.0f} s it needs to do useful work; {sum(m.bit_count() for m in kept.values())} free GPUs"
                    f" are kept for services{told}",
                )
            )
            continue
        # A job that did not start on coloc's choice of nodes is left to Slurm's the next time.
        pin = gpu_count(job) > 0 and facts.retry_at is None and (facts.pinned or not job.required_nodes)
        before = dict(room.gpus)
        _take(job, hosts, room)
        for name in hosts:
            taken[name] += before[name] - room.gpus[name]
            cpus[name] = room.cpus[name]
        actions.append(
            Release(
                job=job.ref,
                nodes=hosts if pin else (),
                why=f"{gpu_count(job)} GPUs on {', '.join(hosts)} are needed by no service for the next {until:.0f} s",
            )
        )
    return actions, notes
