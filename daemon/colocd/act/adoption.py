"""Placing a job that somebody else submitted: it is held while its GPUs are freed, then let in through the fence.

Its owner keeps it: coloc never cancels it. When the handover fails, the job goes back to how it waited before.
"""

from colocd.act.tools import Tools, fence_name
from colocd.core.queueing import settling
from colocd.core.seats import in_order
from colocd.core.service import Mode
from colocd.core.view import Held, Job, JobState
from colocd.core.wishes import PREFIX
from colocd.slurm.port import JobUpdate
from colocd.store.records import Handover

KEPT = "kept-held:"
"""Settings with this prefix and a job's ref: the hold it has now is coloc's, until the next try to place it."""


def ref_of(h: Handover) -> str:
    """Ref of the job that a handover places."""
    return h.service.removeprefix(PREFIX)


def hold_back(tools: Tools, h: Handover) -> tuple[Handover, str | None]:
    """Keep the job from starting anywhere by itself. (handover, why it cannot be placed any more)."""
    ref = ref_of(h)
    job = tools.slurm.jobs([ref]).get(ref)
    if job is None or job.state is not JobState.PENDING:
        return h, f"job {ref} is {job.state if job is not None else 'gone'} and waits for no place any more"
    if "was_held" not in h.data:
        h = tools.save(h, was_held=job.held is not Held.NO)
    if job.held is Held.NO:
        tools.call(h, "hold-wish", f"job:{ref}", lambda: tools.slurm.hold([ref]))
    return h, None


def admit(tools: Tools, h: Handover) -> tuple[Handover, str | None]:
    """Point the job at the fence and release it; (handover with the job, what is still wrong)."""
    ref = ref_of(h)
    job = tools.slurm.jobs([ref]).get(ref)
    if job is None or job.state is not JobState.PENDING:
        return tools.save(h, abort=f"job {ref} does not wait for a place any more"), None
    if (soon := settling(job, tools.clock.now())) > 0:
        return h, f"job {ref} was requeued just now: Slurm may start it again in {soon:.1f} s"
    change = JobUpdate(nodes=in_order(h.places), reservation=fence_name(h), start_now=job.restarts > 0)
    result = tools.call(h, "admit", f"job:{ref}", lambda: tools.slurm.update(ref, change))
    if not result.done:
        return h, result.detail or "the change of the job is not confirmed"
    result = tools.call(h, "release-wish", f"job:{ref}", lambda: tools.slurm.release([ref]))
    if not result.done:
        return h, result.detail or "the release of the job is not confirmed"
    return tools.save(h, job=ref, submitted_at=tools.clock.now()), None


def send_back(tools: Tools, h: Handover) -> bool:
    """The job got wrong GPUs: requeue and hold it, so that it can be let in again. True when that is done."""
    ref = ref_of(h)
    return tools.call(h, "unplace", f"job:{ref}", lambda: tools.slurm.requeue([ref], hold=True)).done


def give_back(tools: Tools, h: Handover) -> bool:
    """After a failed handover: no reservation and no node any more; True when that is so.

    A guaranteed request, or a job that was submitted held, stays held (by coloc, remembered) until the next try: released,
    Slurm could start it on worse GPUs. A best-effort one waits as before.
    """
    ref = ref_of(h)
    job: Job | None = tools.slurm.jobs([ref]).get(ref)
    if job is None or job.state not in (JobState.PENDING, JobState.RUNNING) or "was_held" not in h.data:
        return True
    waits = job.state is JobState.PENDING
    if job.reservation is not None or (waits and job.required_nodes):
        change = JobUpdate(nodes=() if waits else None, reservation="")
        if not tools.call(h, "unadmit", f"job:{ref}", lambda: tools.slurm.update(ref, change)).done:
            return False
    if not waits:
        return True
    spec = tools.spec(h.service)
    if h.data["was_held"] or (spec is not None and spec.mode is Mode.GUARANTEED):
        tools.store.put_setting(f"{KEPT}{ref}", "yes")
        return job.held is not Held.NO or tools.call(h, "rehold", f"job:{ref}", lambda: tools.slurm.hold([ref])).done
    return job.held is Held.NO or tools.call(h, "rerelease", f"job:{ref}", lambda: tools.slurm.release([ref])).done
