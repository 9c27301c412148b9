"""Parts of the API's answers: rows and sentences from records."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from coloc_topology.shape import idx
from colocd.core.forecast import headline
from colocd.core.need import counted, need
from colocd.core.seats import in_order, words
from colocd.core.view import ReplicaState, ServiceView, View
from colocd.store.records import Decision, Handover
from colocd.store.records import HandoverState as S

_LEAVING = (S.SIGNALLED, S.CHECKPOINTED, S.GRACE_EXPIRED, S.REQUEUED)


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
    return f"{h.state.value}: replica {h.slot} of {h.service} on {words(h.places)} ({times}){got}{_free_within(h)}{end}; {h.why}"


def _free_within(h: Handover) -> str:
    """While its victims have the GPUs: how long that may last from when they were told."""
    if h.state not in _LEAVING or "told_at" not in h.data:
        return ""
    grace, kill_wait = float(h.data.get("grace") or 0.0), h.data.get("kill_wait")
    if kill_wait is None:
        return f"; its GPUs come free within {grace:.0f} s of the signal, and Slurm's KillWait"
    longest = grace + float(kill_wait)
    return f"; its GPUs come free within {longest:.0f} s of the signal: {grace:.0f} s of grace, {kill_wait:.0f} s of KillWait"


def _seats(places: dict[str, int]) -> dict[str, str]:
    """GPUs by node in Slurm's notation, in its order of the nodes."""
    return {name: idx(places[name]) for name in in_order(places)}


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
        "capacity": None if service.capacity is None else msgspec.to_builtins(service.capacity),
        "lead": None if service.lead is None else msgspec.to_builtins(service.lead),
        "surge": None if service.surge is None else msgspec.to_builtins(service.surge),
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


def service_story(subject: str, view: View) -> list[str]:
    """What an owner wants to know besides: what a replica carries, and how much growth is expected.

    Empty when the subject is no service of the view.
    """
    service = next((s for s in view.services if f"service:{s.spec.name}" == subject), None)
    if service is None:
        return []
    spec, story = service.spec, []
    if service.capacity is not None:
        told = service.capacity
        story.append(
            f"a replica carries {told.per_replica:.4g} ({told.why}), used up to {spec.capacity.target_use:.0%}"
        )
    if service.surge is not None:
        story.append(f"{service.surge.share:.0%} is added to its load ({service.surge.why})")
    elif view.policy.surge_quantile > 0:
        story.append("nothing is added to its load: too little is known yet of how it grows, or it cannot be read")
    return story


def release() -> str:
    """The installed release; `unknown` in a checkout that is not installed."""
    try:
        return version("coloc")
    except PackageNotFoundError:
        return "unknown"
