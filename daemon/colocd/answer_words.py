"""Parts of the API's answers: rows and sentences from records."""

from typing import Any

import msgspec

from coloc_topology.shape import idx
from colocd.core.forecast import headline
from colocd.core.need import counted, need
from colocd.core.outlook import Window
from colocd.core.seats import in_order, words
from colocd.core.view import Held, Job, JobFacts, JobState, ReplicaState, ServiceView, View
from colocd.store.records import Decision, Handover


def decision_words(d: Decision) -> dict[str, Any]:
    """A decision as the API tells it."""
    return {"at": d.at, "subject": d.subject, "kind": d.kind, "text": d.text}


def handover_words(h: Handover) -> dict[str, Any]:
    """An open handover as the API tells it."""
    return {
        "id": h.id,
        "service": h.service,
        "slot": h.slot,
        "places": _seats(h.places),
        "state": h.state.value,
        "victims": list(h.victims),
        "since": h.created_at,
    }


def handover_sentence(h: Handover) -> str:
    """The story of a handover in one sentence."""
    entered = sorted(h.data.get("t", {}).items(), key=lambda item: float(item[1]))
    times = ", ".join(f"{state} +{at - h.created_at:.1f} s" for state, at in entered)
    end = f"; gave up: {h.data['abort']}" if "abort" in h.data else ""
    got = f"; Slurm gave {words(h.got)}" if h.got is not None else ""
    return f"{h.state.value}: replica {h.slot} of {h.service} on {words(h.places)} ({times}){got}{end}; {h.why}"


def _seats(places: dict[str, int]) -> dict[str, str]:
    """GPUs by node in Slurm's notation, in its order of the nodes."""
    return {name: idx(places[name]) for name in in_order(places)}


def job_sentence(job: Job, facts: JobFacts) -> str:
    """What Slurm says of a batch job, in words."""
    text = f"is {job.state}" + (f" on {words(job.gpus)}" if job.gpus else "")
    if job.state is JobState.PENDING:
        text += {
            Held.NO: f" ({job.reason or 'no reason told'})",
            Held.USER: " and held",
            Held.ADMIN: " and held by coloc" if facts.ours else " and held by an administrator",
        }[job.held]
    evicted = f"; evicted {facts.evictions} times" if facts.evictions else ""
    return text + evicted


def service_words(service: ServiceView, view: View) -> dict[str, Any]:
    """A service with its readings as the API tells it."""
    wanted = need(service, view.policy, view.at)
    return {
        "name": service.spec.name,
        "load": service.load.value if service.load is not None else None,
        "need": wanted.now,
        "have": len(counted(service)),
        "ready": sum(r.state is ReplicaState.READY for r in service.replicas),
        "why": wanted.why,
        "forecast": msgspec.to_builtins(headline(service.forecast, service.spec.season)),
        "removed": service.removed,
        "replicas": [
            {
                "slot": r.slot,
                "state": str(r.state),
                "job": r.job,
                "node": r.node,
                "places": _seats(r.places),
                "level": r.level,
                "load": r.load,
            }
            for r in service.replicas
        ],
    }


def job_story(job: Job, facts: JobFacts, window: Window | None, view: View) -> list[str]:
    """What a student wants to know besides: what is saved, when it was evicted, when it is expected to start."""
    at = view.at
    story: list[str] = []
    saved = job.checkpoint.saved if job.checkpoint is not None else None
    if facts.evicted_at is not None:
        kept = "nothing saved is known of" if saved is None else f"its last checkpoint was {lasting(at - saved)} ago"
        story.append(f"it was last evicted {lasting(at - facts.evicted_at)} ago; {kept}")
    elif job.gpus and saved is not None:
        story.append(f"its last checkpoint was {lasting(at - saved)} ago")
    if job.state is JobState.PENDING and window is not None:
        first, last = (None if t is None else lasting(max(0.0, t - at)) for t in window)
        if first is None:
            story.append("when it starts cannot be foreseen yet")
        else:
            story.append(f"it is expected to start in {first}" + (f" to {last}" if last and last != first else ""))
    return story


def lasting(seconds: float) -> str:
    """A duration for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
