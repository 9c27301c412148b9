"""How handovers end: nothing of coloc's own stays behind, and a handover that fails tells why."""

import msgspec

from colocd.act import adoption, placing
from colocd.act.tools import Tools
from colocd.core.wishes import is_wish
from colocd.store.records import Handover, Outcome
from colocd.store.records import HandoverState as S

IN_USE = 60.0
"""Seconds after which a fence that Slurm does not delete is left to the sweep: on a dead node jobs end when Slurm gives it up."""
_SAFE = (S.PLANNED, S.REQUEUED, S.FREED, S.PLACED, S.VERIFIED)


def told(tools: Tools, h: Handover) -> bool:
    """Whether a victim was told, or may have been before a crash or a time-out."""
    maybe = (Outcome.DONE, Outcome.UNKNOWN, Outcome.OPEN)
    sent = (i for i in tools.store.intents(handover=h.id) if i.kind.startswith("signal-"))
    return "told_at" in h.data or any(i.outcome in maybe for i in sent)


def may_end(tools: Tools, h: Handover) -> bool:
    """A handover is not given up between telling its victims and requeueing them: they wait for their requeue."""
    return h.state in _SAFE or bool(h.data.get("stuck")) or not told(tools, h)


def clear(tools: Tools, h: Handover, keep: str = "") -> bool:
    """End all jobs of this handover but `keep`, then lower the fence; True when nothing of it is left."""
    replicas, plugs = placing.own_jobs(tools, h)
    left = [r for r, j in {**replicas, **plugs}.items() if r != keep and j.state in placing.ALIVE]
    if left and not tools.call(h, "clear", placing.subject(h), lambda: tools.slurm.cancel(left), refs=left).done:
        return False
    return placing.lower_fence(tools, h)


def _fence_stays(tools: Tools, h: Handover) -> bool:
    """Nothing of the handover can start any more, and its fence has been in use by ended jobs for too long."""
    tried = [i.at for i in tools.store.intents(handover=h.id) if i.kind == "unfence"]
    if not tried or tools.clock.now() - min(tried) < IN_USE:
        return False
    return not any(job.state in placing.ALIVE for jobs in placing.own_jobs(tools, h) for job in jobs.values())


def end(tools: Tools, h: Handover) -> Handover:
    """Give up: requeued victims go back to the queue, the service waits before it tries again, the operator is told."""
    # A reservation cannot be deleted while a job uses it, not even a waiting one: the job leaves it first.
    if is_wish(h.service) and not adoption.give_back(tools, h):
        return h
    if not clear(tools, h) and not _fence_stays(tools, h):
        return h
    tools.store.delete_replica(h.service, h.slot)
    tools.pause_service(h.service)
    hurt = h.data.get("evicted", [])
    h = tools.save(h, state=S.FAILED if hurt else S.ROLLED_BACK)
    after = f"; jobs {', '.join(hurt)} were requeued and start again when there is room" if hurt else ""
    tools.tell(f"handover:{h.id}", h.state.value, f"gave up: {h.data['abort']}{after}")
    return h


def without(h: Handover, key: str) -> Handover:
    """The handover without one of its notes (not saved)."""
    return msgspec.structs.replace(h, data={k: v for k, v in h.data.items() if k != key})
