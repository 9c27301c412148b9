"""What coloc tells of a batch job: its row in the queue, and its story in words, for whom it belongs to."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from colocd.act.tools import waits_until
from colocd.core.actions import Plan, Release
from colocd.core.admission import useful_time
from colocd.core.dependencies import never, waits_for
from colocd.core.fill import waiting
from colocd.core.grace import HOLDING
from colocd.core.outlook import Window, foreseen_until
from colocd.core.proof import unheard
from colocd.core.queueing import class_of
from colocd.core.seats import words
from colocd.core.victims import gpu_count
from colocd.core.view import Held, Job, JobFacts, JobState, View
from colocd.core.wishes import subject
from colocd.store.records import Decision, Handover

EVICT = "evict"
"""Kind of the decision by which a job was chosen as a victim."""
_ENDED = (JobState.DONE, JobState.FAILED)
_SLURMS = {
    "Dependency": "a job that it depends on has not ended",
    "DependencyNeverSatisfied": "what it depends on can never come true; `scancel` it",
    "BeginTime": "its begin time has not come",
    "JobArrayTaskLimit": "as many tasks of its array run as its owner lets run at once",
}
"""Reasons of Slurm's own, in words."""


def released(plan: Plan) -> frozenset[str]:
    """The jobs that a plan starts."""
    return frozenset(a.job for a in plan.actions if isinstance(a, Release))


def queue_rows(
    view: View, plan: Plan, expected: Mapping[str, Window], starting: Collection[str]
) -> list[dict[str, Any]]:
    """coloc's batch jobs that have not ended, in the order of their ids; see docs/api.md."""
    notes = {n.subject: n.text for n in plan.notes}
    until = foreseen_until(view)
    rows = []
    for job in view.jobs:
        if job.checkpoint is None or job.state in _ENDED:
            continue
        reason = "is released" if job.ref in starting else notes.get(f"job:{job.ref}", _depends(job) or job.reason)
        rows.append(
            {
                "ref": job.ref,
                "user": job.user,
                "name": job.name,
                "state": str(job.state),
                "gpus": gpu_count(job),
                "reason": reason,
                "evictions": view.facts.get(job.ref, JobFacts()).evictions,
                "saved": job.checkpoint.saved,
                "expected": list(expected[job.ref]) if job.ref in expected else None,
                "foreseen_until": until if job.ref in expected else None,
            }
        )
    return rows


def job_story(
    job: Job, view: View, window: Window | None, open_handovers: Sequence[Handover], decisions: Sequence[Decision]
) -> list[str]:
    """Where a job stands, what became of its work, and when it goes on. `decisions`: those on it, newest first."""
    facts = view.facts.get(job.ref, JobFacts())
    taking = next((h for h in open_handovers if job.ref in h.victims), None)
    story = [_state(job, facts, view)]
    if taking is not None and job.state in HOLDING:
        story.append(_leaving(taking, job.ref, view.at))
    if facts.evicted_at is not None:
        story.append(_evicted(job, facts, decisions, view.at))
    elif job.gpus and job.checkpoint is not None and job.checkpoint.saved is not None:
        story.append(f"its last checkpoint was {lasting(view.at - job.checkpoint.saved)} ago")
    if job.state is JobState.FAILED and facts.deaths:
        story.append(_died(job, facts))
    story += _words_of_its_own(job, facts, view)
    if job.state is JobState.PENDING and window is not None and facts.parked is None:
        story.append(_expected(job, facts, window, view))
    return story


def array_story(ref: str, view: View, notes: Mapping[str, str], expected: Mapping[str, Window]) -> list[str]:
    """Where the tasks of an array stand, taken together; empty when the view has no array of this id."""
    tasks = [j for j in view.jobs if j.ref.startswith(f"{ref}_")]
    if not tasks:
        return []
    states: dict[str, int] = {}
    for job in tasks:
        states[str(job.state)] = states.get(str(job.state), 0) + 1
    evicted = sum(view.facts.get(j.ref, JobFacts()).evictions for j in tasks)
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    story = [
        f"is an array; of its tasks that Slurm still knows {told}"
        + (f"; {evicted} evictions so far" if evicted else "")
    ]
    starts = [first for j in tasks if j.ref in expected and (first := expected[j.ref][0]) is not None]
    if starts:
        story.append(f"the next is expected to start in {lasting(max(0.0, min(starts) - view.at))}")
    reasons = [notes[f"job:{j.ref}"] for j in tasks if f"job:{j.ref}" in notes]
    story += [f"the first that is not started: {reasons[0]}"] if reasons else []
    return [*story, f"`coloc explain {tasks[0].ref}` tells of one of them"]


def _state(job: Job, facts: JobFacts, view: View) -> str:
    """What Slurm says of it, and what that means here."""
    if job.state is JobState.PENDING:
        if facts.parked is not None:
            return "is parked: coloc does not start it"
        if waiting(job, facts, view.policy):
            return "waits in coloc's queue"
        if job.held is not Held.NO:
            who = "an administrator" if job.held is Held.ADMIN else "its own user"
            return f"is held by {who}: coloc leaves it alone until `scontrol release {job.ref}`"
        if job.restarts and job.reason == "BeginTime" and view.delays.requeue is not None:
            return f"was requeued: Slurm itself starts it again, {view.delays.requeue:.0f} s after that at the earliest"
        if (told := _depends(job)) is not None:
            return f"may start as far as coloc goes; {told}"
        if job.reason in _SLURMS:
            return f"may start as far as coloc goes; Slurm keeps it back: {_SLURMS[job.reason]}"
        return f"may start; Slurm has not started it yet ({job.reason or 'no reason told'})"
    since = f" for {lasting(view.at - job.started)}" if job.gpus and job.started is not None else ""
    return f"is {job.state}" + (f" on {words(job.gpus)}{since}" if job.gpus else "")


def _depends(job: Job) -> str | None:
    """What a job that coloc lets start waits for by Slurm's word; None: for no other job."""
    if job.state is not JobState.PENDING or (told := waits_for(job)) is None:
        return None
    return never(job) or f"waits for {told}"


def _leaving(h: Handover, ref: str, at: float) -> str:
    """It is a victim and still has its GPUs: until when."""
    who = f"{subject(h.service).replace(':', ' ')} (handover {h.id})"
    grace, kill_wait = h.data.get("grace"), h.data.get("kill_wait")
    last = "" if not kill_wait else f"; if it ignores TERM then, Slurm kills it {kill_wait:.0f} s later"
    if waits_until(h) is not None and ref in h.data["moments"]:
        wait = max(0.0, h.data["decided_at"] + h.data["moments"][ref] - at)
        return (
            f"has to give up its GPUs for {who} in about {lasting(wait)}, when it loses least; until then it works on"
        )
    if "told_at" not in h.data or grace is None:
        return f"has to give up its GPUs for {who}, and will be told to save in a moment"
    if not grace:
        return f"gives up its GPUs for {who}: nobody there can be asked to save, so it is requeued now{last}"
    left = max(0.0, h.data["told_at"] + grace - at)
    return (
        f"has to give up its GPUs for {who}: it was told to save {lasting(at - h.data['told_at'])} ago and keeps them until it"
        f" says that it has, at most {lasting(left)} more{last}"
    )


def _evicted(job: Job, facts: JobFacts, decisions: Sequence[Decision], at: float) -> str:
    """When it was evicted last, for whom and why it, and what of its work is saved."""
    gone = facts.evicted_at or 0.0
    saved = job.checkpoint.saved if job.checkpoint is not None else None
    # "gives up its GPUs for service chat: …": the sentence with which it was chosen.
    why = next((d.text.removeprefix("gives up its GPUs ") for d in decisions if d.kind == EVICT), None)
    times = "" if facts.evictions < 2 else f" ({facts.evictions} times in all)"
    told = f"was evicted {lasting(at - gone)} ago{times}" + (f" {why}" if why is not None else "")
    if saved is not None and saved + 1 > gone:  # jobs tell whole seconds, rounded down
        return f"{told}; its last checkpoint was {lasting(at - saved)} ago, after it was asked: nothing was lost"
    if facts.took is not None and not facts.alike:
        return f"{told}; it answered {lasting(facts.took)} after it was told to save: nothing should be lost"
    if facts.silent and not facts.alike:
        told += "; it did not answer in the time that it asks for"
    if saved is None:
        return f"{told}; coloc knows of no checkpoint of it"
    return f"{told}; its last checkpoint was {lasting(gone - saved)} before that: what it did since is done again"


def _words_of_its_own(job: Job, facts: JobFacts, view: View) -> list[str]:
    """What of the job's own wishes does not count here, and what its owner can do."""
    mark, told = job.checkpoint, []
    if mark is not None and mark.rank is not None and job.state not in _ENDED:
        kind = class_of(job, view.policy)
        if mark.rank != ("normal" if kind is None else kind.name):
            told.append(
                f"it asks for class {mark.rank}, which users cannot choose here: it is in {kind.name if kind else 'none'}"
            )
    if mark is not None and job.state is JobState.PENDING and unheard(job, facts):
        told.append(
            f"it says that it saves every {lasting(mark.interval or 0.0)}, but in {lasting(facts.ran)} coloc heard of no save:"
            " `coloc checkpointed` in the job, or --coloc-files, tells of them"
        )
    return told


def _died(job: Job, facts: JobFacts) -> str:
    """It failed soon after a resume, which Slurm takes for its end: what is left, and what its owner can do."""
    again = f"`scontrol requeue {job.ref}` while Slurm remembers it, else submit it again"
    then = f"; it is parked then, until `coloc unpark {job.ref}`" if facts.parked is not None else ""
    return (
        f"it ended soon after a resume with nothing new saved ({facts.deaths} in a row): look at its output first; what it saved"
        f" before is left as it was, and it can go on from there with {again}{then}"
    )


def _expected(job: Job, facts: JobFacts, window: Window, view: View) -> str:
    """When it starts, in words."""
    first, last = (None if t is None else lasting(max(0.0, t - view.at)) for t in window)
    verb = "go on" if facts.evictions else "start"
    until = foreseen_until(view)
    if first is None:
        if until is None:
            return f"when it will {verb} cannot be foreseen: too little is known of the services' load, or of the jobs before it"
        wants = f"{gpu_count(job)} GPUs for {lasting(useful_time(job, view.policy, view, facts))}"
        return f"no valley long enough for it ({wants}) is foreseen in the next {lasting(until - view.at)}"
    if last is None:
        return f"it is expected to {verb} in {first} at the earliest; if the load is high, not within what is foreseen"
    return f"it is expected to {verb} in {first}" + (f" to {last}" if last != first else "")


def lasting(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
