"""Victims of a planned reclaim that go before the others, each at its own moment of least loss, while the fence stands.

Only jobs that nobody can ask go early: what they lose depends on when they go. Those that can be asked are told together,
at the end.
"""

from collections.abc import Callable, Mapping

from colocd.act import placing, readback, victims
from colocd.act.tools import Tools, fenced
from colocd.core.proof import askable
from colocd.core.seats import words
from colocd.core.service import ServiceSpec
from colocd.core.view import Job, Node
from colocd.store.records import Handover

TRIES = 5
"""Requeues of one early victim before it is left to the end."""
Left = Callable[[str, float], float]
"""Seconds left (negative: over) of a period of this name that began with the decision."""


def waited_for(h: Handover, jobs: Mapping[str, Job], left: Left) -> set[str]:
    """Victims that still hold their GPUs and whose moment has not come; none when the latest moment is over."""
    moments: dict[str, float] = h.data.get("moments", {})
    if not moments or "hastened" in h.data or left("latest", h.data["latest"]) <= 0:
        return set()
    return {
        ref
        for ref, moment in moments.items()
        if ref in jobs and victims.staying(h, jobs[ref]) and not _come(h, jobs[ref], left(f"moment-{ref}", moment))
    }


def _come(h: Handover, job: Job, wait: float) -> bool:
    """Whether a victim's moment has come. `wait`: seconds until the one that was foreseen."""
    mark = job.checkpoint
    if askable(job):
        return wait <= 0
    if mark is None or not mark.interval:
        return False  # It is expected to end: better waited for as long as may be than ended shortly before.
    before = h.data["marks"].get(job.ref, {}).get("saved")
    fresh = mark.saved is not None and (before is None or mark.saved > before)
    # Its own checkpoint may come a little sooner or later than foreseen: right after it is what counts.
    return wait <= (mark.interval if fresh else -mark.interval) / 2


def go_early(tools: Tools, h: Handover, jobs: Mapping[str, Job], waiting: set[str]) -> Handover:
    """Requeue and hold the victims whose moment has come while others are waited for; hold those that requeued themselves.

    Written down before Slurm is asked. One that Slurm does not requeue in `TRIES` goes with the others in the end.
    """
    tries: dict[str, int] = h.data.get("tries", {})
    early = {
        ref: job
        for ref, job in jobs.items()
        if ref not in waiting and not askable(job) and victims.staying(h, job) and tries.get(ref, 0) < TRIES
    } | victims.loose(dict(jobs))
    if not early:
        return h
    left = {**dict.fromkeys(early, tools.clock.now()), **h.data.get("left", {})}
    h = tools.save(h, left=left, tries={**tries, **{ref: tries.get(ref, 0) + 1 for ref in early}})
    victims.remember_eviction(tools, h, early)
    h = tools.save(h, evicted=sorted({*h.data.get("evicted", []), *early}))
    victims.send_away(tools, h, early)
    return h


def plan_broken(
    tools: Tools, h: Handover, nodes: Mapping[str, Node], jobs: Mapping[str, Job], spec: ServiceSpec
) -> str | None:
    """Why the plan does not hold any more while the fence stands; None: it does.

    Once it waits for moments, victims come and go, and nobody else can have come: then only the machines are looked at.
    """
    if "marks" not in h.data or not h.data.get("moments"):
        return readback.plan_broken(fenced(h), nodes, jobs, dict.fromkeys(h.places, spec.cpus_per_replica))
    failed = readback.broken(tools, h.places)
    return placing.down(dict(nodes)) or (f"{words(failed)} failed meanwhile" if failed else None)


def waited(tools: Tools, h: Handover, jobs: dict[str, Job]) -> Handover:
    """Note, before the last victims are told, what of their marks and of the handover's times is as it is only now."""
    if not h.data.get("moments") or "waited" in h.data:
        return h
    still = {ref: job for ref, job in jobs.items() if victims.staying(h, job)}
    marks = {**h.data["marks"], **victims.marks(still)}
    since = max(0.0, tools.clock.now() - float(h.data["t"]["fenced"]))
    return tools.save(h, marks=marks, waited=since, **victims.periods(tools, h, jobs))
