"""Where a replica goes, and which batch jobs give up their GPUs for it: exact on each node.

Every GPU subset that reaches the level is a candidate; the jobs that hold its GPUs are its victims, so the cheapest
candidate is the cheapest feasible victim set. Judged by where the replica *will sit*, not by where the victims sit.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations

import msgspec

from coloc_topology.fit import FitTable, fit_table
from coloc_topology.shape import Level, bits, idx, mask_of
from colocd.core.service import Mode, ServiceSpec
from colocd.core.view import Job, JobFacts, JobState, Node, View


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs for one replica on one node, the victims that hold them now, and the GPU-seconds this costs."""

    node: str
    gpus: int
    level: Level
    victims: tuple[str, ...]
    cost: float
    gpu_type: str | None
    rank: tuple[float, ...]


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """What a choice may touch on each node: free GPUs, and evictable jobs with their cost; the rest is out of bounds."""

    free: dict[str, int]
    victims: dict[str, Job]
    costs: dict[str, float]
    barred: dict[str, str]
    """Why a job may not be evicted, by ref."""
    closed: dict[str, str]
    """Why a node takes no replica now, by name."""


def unsaved(job: Job, at: float, limit: float) -> float:
    """Seconds of work a requeue would lose: since the last checkpoint or start, at most `limit` (silence must not pay)."""
    saved = job.checkpoint.saved if job.checkpoint is not None else None
    since = max((t for t in (job.started, saved) if t is not None and t <= at), default=None)
    return limit if since is None else min(limit, at - since)


def gpu_count(job: Job) -> int:
    """GPUs the job holds on all its nodes, or asked for when that is unknown."""
    held = sum(m.bit_count() for m in job.gpus.values()) if job.gpus else 0
    return held or job.gpus_requested


def eviction_cost(job: Job, view: View) -> float:
    """GPU-seconds that evicting the job costs: unsaved work and restart cost on all its GPUs, and the fixed cost."""
    policy = view.policy
    restart = min((job.checkpoint.cost if job.checkpoint is not None else None) or 0.0, policy.max_unsaved)
    return (unsaved(job, view.at, policy.max_unsaved) + restart) * gpu_count(job) + policy.eviction_cost


def barred(job: Job, facts: JobFacts, view: View) -> str | None:
    """Why the job may not be evicted; None: it may."""
    policy = view.policy
    if job.checkpoint is None:
        return "not submitted through coloc"
    if job.partition not in policy.batch_partitions:
        return f"partition {job.partition} is not a batch partition"
    if job.state is not JobState.RUNNING:
        return f"is {job.state}"
    if job.gpus is None:
        return "its GPUs could not be read"
    if facts.evictions >= policy.max_evictions_per_job:
        return f"evicted {facts.evictions} times already"
    if job.started is None:
        return "its start time could not be read"
    left = job.started + policy.protected_runtime - view.at
    return f"protected for another {left:.0f} s" if left > 0 else None


def ground(view: View) -> Ground:
    """Sort a view's nodes and jobs into what a reclaim may use. GPUs of open handovers are leased and out of bounds."""
    leased: dict[str, int] = {}
    for handover in view.handovers:
        leased[handover.node] = leased.get(handover.node, 0) | handover.want
    busy = {ref for handover in view.handovers for ref in handover.victims}
    free = {n.name: n.free & ~leased.get(n.name, 0) for n in view.nodes}
    shut = {n.name: text for n in view.nodes if (text := _shut(n, leased)) is not None}
    victims: dict[str, Job] = {}
    reasons: dict[str, str] = {}
    for job in view.jobs:
        if not job.gpus and job.gpus is not None:
            continue
        reason = "gives up its GPUs already" if job.ref in busy else None
        reason = reason or barred(job, view.facts.get(job.ref, JobFacts()), view)
        if reason is None:
            victims[job.ref] = job
        else:
            reasons[job.ref] = reason
    costs = {ref: eviction_cost(job, view) for ref, job in victims.items()}
    return Ground(free=free, victims=victims, costs=costs, barred=reasons, closed=shut)


def _shut(node: Node, leased: Mapping[str, int]) -> str | None:
    if not node.up:
        return f"is {node.state or 'not up'}"
    if node.used is None:
        return "its used GPUs could not be read"
    if node.reserved:
        return "is reserved by somebody else"
    if node.name in leased or node.fence is not None:
        return "has a handover under way"
    return None


def _exact_type(node: Node, table: FitTable, gpus: int, level: Level) -> str | None:
    """The gres type that holds these GPUs and of which any choice of Slurm's reaches the level; None: there is none."""
    if len(set(node.types)) < 2:
        return None
    name = node.types[bits(gpus)[0]]
    members = mask_of([i for i, t in enumerate(node.types) if t == name])
    worst = table.worst_level(members, gpus.bit_count())
    return name if name and gpus & ~members == 0 and worst is not None and worst >= level else None


def _broken(table: FitTable, open_gpus: int, taken: int) -> int:
    """How many NVLink islands that were wholly open are only partly open after `taken` is gone: damage to others."""
    whole = [i for i in table.islands(Level.NVLINK) if i & ~open_gpus == 0]
    return sum(1 for island in whole if island & taken and island & ~taken)


def on_node(
    node: Node, spec: ServiceSpec, view: View, at: Ground, hits: Mapping[str, int]
) -> tuple[Choice | None, str]:
    """Best choice on one node, or None and the reason. `hits`: evictions already planned per user in this plan."""
    if node.name in at.closed:
        return None, at.closed[node.name]
    if spec.partition not in node.partitions:
        return None, f"is not in partition {spec.partition}"
    shape = view.shapes.get(node.shape) if node.shape is not None else None
    if shape is None:
        return None, "its topology is unknown"
    table, count = fit_table(shape), spec.gpus_per_replica
    holders = {ref: job for ref, job in at.victims.items() if job.gpus and node.name in job.gpus}
    free = at.free[node.name]
    reach = free
    for job in holders.values():
        reach |= (job.gpus or {})[node.name]
    if reach.bit_count() < count:
        return None, f"only {reach.bit_count()} GPUs are free or can be freed{_bars(node, at, view.jobs)}"
    best: Choice | None = None
    for members in combinations(bits(reach), count):
        gpus = mask_of(members)
        fit = table.fit(gpus)
        if spec.mode is Mode.GUARANTEED and fit.level < spec.level:
            continue
        refs = sorted(
            (r for r, j in holders.items() if (j.gpus or {})[node.name] & gpus & ~free), key=lambda r: holders[r].order
        )
        cost = sum(at.costs[r] for r in refs)
        users_again = sum(hits.get(holders[r].user, 0) for r in refs)
        missed = max(0, spec.level - fit.level)
        damage = _broken(table, reach, gpus)
        rank = (missed, cost, len(refs), users_again, damage, -fit.strength)
        if best is None or (rank, gpus) < (best.rank, best.gpus):
            best = Choice(
                node=node.name, gpus=gpus, level=fit.level, victims=tuple(refs), cost=cost, gpu_type=None, rank=rank
            )
    if best is None:
        return None, f"no {count} of GPUs {idx(reach)} reach {spec.level.name}{_bars(node, at, view.jobs)}"
    wanted = min(spec.level, best.level)
    return msgspec.structs.replace(best, gpu_type=_exact_type(node, table, best.gpus, wanted)), ""


def _bars(node: Node, at: Ground, jobs: Iterable[Job]) -> str:
    """The jobs on the node that may not be evicted, with their reasons, for the explanation."""
    told = [
        f"job {j.ref} {at.barred[j.ref]}"
        for j in jobs
        if j.ref in at.barred and (j.gpus is None or node.name in j.gpus)
    ]
    return f" ({'; '.join(told)})" if told else ""


def choose(spec: ServiceSpec, view: View, at: Ground, hits: Mapping[str, int]) -> tuple[Choice | None, dict[str, str]]:
    """Best choice over all nodes, and for every node without one the reason. Ties end in the node's name and GPU mask."""
    best: Choice | None = None
    reasons: dict[str, str] = {}
    for node in view.nodes:
        found, reason = on_node(node, spec, view, at, hits)
        if found is None:
            reasons[node.name] = reason
        elif best is None or (found.rank, found.node, found.gpus) < (best.rank, best.node, best.gpus):
            best = found
    return best, reasons
