"""Telling victims to checkpoint, hearing their acknowledgement, and requeueing them in one call."""

from functools import partial
from typing import Any

import msgspec

from colocd.act.answers import Marks, with_answer
from colocd.act.tools import Tools
from colocd.core.grace import HOLDING, grace_of
from colocd.core.proof import askable
from colocd.core.view import Held, Job, JobState
from colocd.store.records import BatchJob, Handover, Outcome


def holding(job: Job | None) -> bool:
    """Whether the job still works on its GPUs (completing ones are on their way out; None: Slurm forgot it)."""
    return job is not None and job.state in HOLDING


def marks(jobs: dict[str, Job]) -> dict[str, dict[str, float | int | None]]:
    """What an acknowledgement is recognised by: each victim's marks before it was told."""
    return {
        ref: {
            "yielded": job.checkpoint.yielded if job.checkpoint is not None else None,
            "restarts": job.restarts,
            "saved": job.checkpoint.saved if job.checkpoint is not None else None,
        }
        for ref, job in jobs.items()
    }


def staying(h: Handover, job: Job) -> bool:
    """Whether a victim still holds the GPUs it is to give up.

    One that was requeued since it was told and runs again runs elsewhere, for the fence keeps it off its node: it has given
    way, and is never requeued twice.
    """
    before: Marks = h.data.get("marks", {}).get(job.ref)
    return holding(job) and (before is None or job.restarts == before["restarts"])


def tell_victims(tools: Tools, h: Handover, jobs: dict[str, Job], again: bool = False) -> bool:
    """Signal every victim that takes a signal, one call per kind of signal; False when Slurm could not be reached.

    Delivery is best effort in Slurm, so a refusal is no failure: the job may have ended, or is requeued after its grace.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for ref, job in jobs.items():
        if job.checkpoint is not None and job.checkpoint.signal is not None and holding(job):
            groups.setdefault((job.checkpoint.signal, job.checkpoint.to), []).append(ref)
    reached = True
    for (signal, to), refs in sorted(groups.items()):
        kind = f"{'resignal' if again else 'signal'}-{signal}-{to}"
        if not again and any(i.kind == kind for i in tools.store.intents(handover=h.id)):
            continue  # Sent, or perhaps sent, before a crash: not twice; silence is answered by the one repetition.
        send = partial(tools.slurm.signal, refs, signal, to)
        result = tools.call(h, kind, f"job:{','.join(refs)}", send, refs=refs)
        reached = reached and result.outcome is not Outcome.UNREACHABLE
    return reached


def periods(tools: Tools, h: Handover, jobs: dict[str, Job]) -> dict[str, Any]:
    """What of the handover's times is fixed when its victims are told: their grace, and Slurm's `KillWait` after it."""
    grace = grace_of(jobs.values(), tools.policy, emergency=bool(h.data.get("emergency")))
    return {"grace": grace, "kill_wait": tools.kill_wait}


def gone_within(tools: Tools, h: Handover) -> float:
    """Seconds after its requeue within which a victim must have gone: one that ignores TERM takes `KillWait` first."""
    return tools.policy.start_timeout + (h.data.get("kill_wait") or 0.0)


def acknowledged(job: Job | None, before: Marks) -> bool:
    """Whether a victim has given its consent: it yielded, ended, requeued itself, or cannot be asked at all."""
    if job is None or not holding(job):
        return True
    if before is None or job.restarts != before["restarts"]:
        return True
    facts = job.checkpoint
    if facts is None or not askable(job):
        return True
    return facts.yielded is not None and facts.yielded != before["yielded"]


def remember_eviction(tools: Tools, h: Handover, jobs: dict[str, Job]) -> None:
    """Write, before the requeue, that the coming hold is coloc's.

    An eviction's time is when its victims were told, or when one left before them: a row that has this time was counted before
    a crash already.
    """
    known = {row.ref: row for row in tools.store.jobs()}
    now = tools.clock.now()
    # Whole milliseconds come back from the store as they went in; what a clock shows is finer than a row keeps.
    told = {ref: round(float(h.data.get("left", {}).get(ref) or h.data["told_at"]), 3) for ref in jobs}
    rows = []
    for ref, job in jobs.items():
        row = known.get(ref) or BatchJob(ref=ref, user=job.user, name=job.name, first_seen=now, last_seen=now)
        if row.evicted_at != told[ref] and ref not in h.data.get("left", {}):
            before, grace = h.data.get("marks", {}).get(ref), float(h.data.get("grace") or 0.0)
            row = with_answer(row, job, before, told[ref], grace, tools.policy, now)
        rows.append(
            msgspec.structs.replace(
                row,
                evictions=row.evictions + (row.evicted_at != told[ref]),
                evicted_at=told[ref],
                ours=True,
                released_at=None,
                retry_at=None,
                last_seen=now,
            )
        )
    tools.store.put_jobs(rows)
    for row in rows:
        if known.get(row.ref) is None or known[row.ref].evicted_at != told[row.ref]:
            job = jobs[row.ref]
            saved = job.checkpoint.saved if job.checkpoint is not None else None
            facts = {"job": row.ref, "user": job.user, "name": job.name, "service": h.service, "handover": h.id}
            tools.evicted({**facts, "evictions": row.evictions, "saved": saved, "at": told[row.ref], "why": h.why})


def loose(jobs: dict[str, Job]) -> dict[str, Job]:
    """Victims that requeued themselves and that nobody holds: Slurm would start them again where it likes."""
    return {ref: job for ref, job in jobs.items() if job.state is JobState.PENDING and job.held is Held.NO}


def hold_loose(tools: Tools, h: Handover, jobs: dict[str, Job]) -> None:
    """Hold the `loose` ones. A refusal is no failure: the next step looks again."""
    refs = sorted(loose(jobs))
    if refs:
        tools.call(h, "hold", f"job:{','.join(refs)}", lambda: tools.slurm.hold(refs), refs=refs)


def keep_loose(tools: Tools, h: Handover, jobs: dict[str, Job]) -> Handover:
    """Hold those that requeued themselves at once, while others still save: Slurm may start them any moment."""
    found = loose(jobs)
    if found:
        remember_eviction(tools, h, found)
        h = tools.save(h, evicted=sorted({*h.data.get("evicted", []), *found}))
        hold_loose(tools, h, found)
    return h


def send_away(tools: Tools, h: Handover, jobs: dict[str, Job]) -> str | None:
    """Requeue and hold all victims that still hold GPUs in one call, and hold those that requeued themselves.

    None: done, nobody holds GPUs any more. Otherwise what is still to be done, for the next step.
    """
    running = [ref for ref, job in jobs.items() if staying(h, job)]
    hold_loose(tools, h, jobs)
    if not running:
        return None
    result = tools.call(
        h, "requeue", f"job:{','.join(running)}", lambda: tools.slurm.requeue(running, hold=True), refs=running
    )
    return None if result.done else (result.detail or "the requeue is not confirmed")
