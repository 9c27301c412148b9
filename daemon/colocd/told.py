"""Handovers, places and jobs in the words of the API."""

from typing import Any

from coloc_topology.shape import idx
from colocd.core.seats import in_order, words
from colocd.core.view import Held, Job, JobFacts, JobState
from colocd.store.records import Handover


def handover_row(h: Handover) -> dict[str, Any]:
    """An open handover as the status shows it."""
    return {
        "id": h.id,
        "service": h.service,
        "slot": h.slot,
        "places": seats(h.places),
        "state": h.state.value,
        "victims": list(h.victims),
        "since": h.created_at,
    }


def handover_sentence(h: Handover) -> str:
    """What became of a handover, when, and why it was begun."""
    entered = sorted(h.data.get("t", {}).items(), key=lambda item: float(item[1]))
    times = ", ".join(f"{state} +{at - h.created_at:.1f} s" for state, at in entered)
    end = f"; gave up: {h.data['abort']}" if "abort" in h.data else ""
    got = f"; Slurm gave {words(h.got)}" if h.got is not None else ""
    return f"{h.state.value}: replica {h.slot} of {h.service} on {words(h.places)} ({times}){got}{end}; {h.why}"


def seats(places: dict[str, int]) -> dict[str, str]:
    """GPUs by node in Slurm's notation, in its order of the nodes."""
    return {name: idx(places[name]) for name in in_order(places)}


def job_sentence(job: Job, facts: JobFacts) -> str:
    """Where a job is and who holds it."""
    text = f"is {job.state}" + (f" on {words(job.gpus)}" if job.gpus else "")
    if job.state is JobState.PENDING:
        text += {
            Held.NO: f" ({job.reason or 'no reason told'})",
            Held.USER: " and held",
            Held.ADMIN: " and held by coloc" if facts.ours else " and held by an administrator",
        }[job.held]
    evicted = f"; evicted {facts.evictions} times" if facts.evictions else ""
    return text + evicted
