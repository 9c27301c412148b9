"""The plan: a pure function of the view. Same view, same plan, byte for byte."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from coloc_topology.shape import idx
from colocd.core.actions import Action, Need, Note, Plan
from colocd.core.drain import drains
from colocd.core.early import begin_early, forced, place_action, shortage, slots_of
from colocd.core.fill import fill
from colocd.core.ground import Ground
from colocd.core.hasten import hasten
from colocd.core.index import PlannerIndex
from colocd.core.joint import Spot
from colocd.core.need import at_once, need
from colocd.core.proof import told as weighed
from colocd.core.reclaim import ground, make_choice
from colocd.core.roomy import place_roomy
from colocd.core.together import Want
from colocd.core.view import JobFacts, ServiceView, View
from colocd.core.why import where
from colocd.core.wide import Ask, Starts, start_group, turns
from colocd.core.wishes import is_wish, refusal
from colocd.core.wishes import subject as subject_of


def plan(view: View, index: PlannerIndex | None = None) -> Plan:
    """Map one view to one plan: replicas of all services together first, then drains, then batch jobs into what is left.

    `index`: the planner's arrays from the last cycle, to save time; the plan is the same without.
    """
    if view.paused is not None:
        return Plan(at=view.at, summary=f"paused: {view.paused}")
    services = sorted(view.services, key=lambda s: (-s.spec.priority, s.spec.name))
    needs = tuple(need(s, view.policy, view.at) for s in services)
    land = ground(view, index)
    actions: list[Action] = []
    notes: list[Note] = []
    asks: dict[str, Ask] = {}
    for service, wanted in zip(services, needs, strict=True):
        note = _held_up(service, wanted, view)
        asks[service.spec.name] = Ask(service, wanted, 0 if note is not None else max(0, wanted.now - wanted.have))
        if note is not None:
            notes.append(note)
    placed: Counter[str] = Counter()
    groups = Starts(view, land)
    for turn in turns(asks):
        if turn.group:
            start_group(groups, turn)
            continue
        joint = place_roomy(land, [Want(ask.spec, ask.lacks) for ask in turn.asks])
        land = groups.land = joint.land
        for ask, spots in zip(turn.asks, joint.spots, strict=True):
            starts, told = _starts(ask.service, ask.wanted, view, spots, land)
            actions += starts
            notes += told
            placed[ask.spec.name] = len(spots)
        if joint.gave_up:
            less = "over 2 %" if joint.less is None else f"up to {joint.less} %"
            text = f"cheaper ways to place replicas together were not all tried: one may cost {less} less"
            notes.append(Note(subject="coloc", text=text))
    actions += groups.actions
    notes += groups.notes
    placed.update(groups.placed)
    land = forced(view, services, needs, placed, land, actions, _held_up)
    lacking = tuple(sorted(name for name, ask in asks.items() if ask.lacks > placed[name]))
    land, early, told = begin_early(view, services, needs, placed, land, actions, together=bool(lacking))
    actions += early
    notes += told
    actions += hasten(view, services, needs, lacking)
    for service, wanted in zip(services, needs, strict=True):
        drained, told = drains(service, wanted, view, land)
        actions += drained
        notes += told
    filled, told = fill(view, land, placed)
    actions += filled
    notes += told
    return Plan(
        at=view.at, actions=tuple(actions), needs=needs, notes=tuple(notes), summary=_summary(view, actions, needs)
    )


def _held_up(service: ServiceView, wanted: Need, view: View) -> Note | None:
    """Why a service that lacks replicas gets none in this plan; None: nothing is in the way."""
    spec = service.spec
    subject = subject_of(spec.name)
    if wanted.now <= wanted.have:
        return None
    if service.retry_at is not None and service.retry_at > view.at:
        text = f"the last placement failed; the next is tried in {service.retry_at - view.at:.0f} s"
        return Note(subject=subject, text=text)
    return None


def _starts(
    service: ServiceView, wanted: Need, view: View, spots: Sequence[Spot], land: Ground
) -> tuple[list[Action], list[Note]]:
    """Placements for the replicas that can start now, and notes on those that wait or have no place."""
    spec = service.spec
    subject = subject_of(spec.name)
    used = slots_of(service, view)
    actions: list[Action] = []
    notes: list[Note] = []
    waiting: list[str] = []
    for spot in spots:
        choice = make_choice(spot, spec, land)
        if choice.waits:
            waiting.append(f"{choice.node} GPUs {idx(choice.gpus)}")
            continue
        slot = min(set(range(len(used) + 1)) - used)
        used.add(slot)
        action = place_action(service, slot, shortage(wanted), choice, land)
        hurry = wanted.have + len(actions) < at_once(service, view)
        actions.append(msgspec.structs.replace(action, emergency=hurry and bool(action.victims)))
    if waiting:
        text = f"{len(waiting)} of its replicas wait for GPUs that handovers under way free: {', '.join(waiting)}"
        notes.append(Note(subject=subject, text=text))
    if len(spots) < wanted.now - wanted.have:
        lacks = f"needs {wanted.now} replicas and has {wanted.have + len(spots)}"
        text = f"{'there is no place for it now' if is_wish(spec.name) else lacks}: {where(spec, land)}"
        notes.append(Note(subject=subject, text=text))
    return actions, notes


def _summary(view: View, actions: list[Action], needs: tuple[Need, ...]) -> str:
    kinds: dict[str, int] = {}
    for action in actions:
        kind = type(action).__name__.lower()
        kinds[kind] = kinds.get(kind, 0) + 1
    doing = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing to do"
    short = [f"{n.service} {n.have}/{n.now}" for n in needs if not is_wish(n.service)]
    free = sum(n.free.bit_count() for n in view.nodes)
    total = sum(n.gpus for n in view.nodes)
    return f"{doing}; {free} of {total} GPUs free" + (f"; replicas {', '.join(short)}" if short else "")


def explain(subject: str, view: View, result: Plan) -> list[str]:
    """Sentences of this plan about one subject (`job:17`, `service:chat`, `node:n1`), actions first."""
    kind, _, name = subject.partition(":")
    told: list[str] = []
    for action in result.actions:
        record = msgspec.to_builtins(action)
        mine = (
            (kind == "job" and (record.get("job") == name or name in record.get("victims", ())))
            or (kind == "service" and record.get("service") == name)
            or record.get("service") == subject
            or (kind == "node" and (name in record.get("places", ()) or name in record.get("nodes", ())))
        )
        if mine:
            told.append(f"{record['type']}: {action.why}")
    told += [
        n.why if is_wish(n.service) else f"{n.service} needs {n.now} replicas: {n.why}"
        for n in result.needs
        if subject == subject_of(n.service)
    ]
    told += [
        f"replicas are begun {s.lead.seconds:.0f} s ahead ({s.lead.why})"
        for s in view.services
        if s.lead is not None and subject == subject_of(s.spec.name) and not is_wish(s.spec.name)
    ]
    told += [note.text for note in result.notes if note.subject == subject]
    if kind == "service":
        told += [
            f"its load is foreseen so: {s.forecast.basis}" for s in view.services if s.spec.name == name and s.forecast
        ]
    if kind == "job" and all(h.service != subject for h in view.handovers):
        left = (refusal(j, view.policy) for j in view.jobs if j.ref == name and (j.request is None or not j.gpus))
        told += [reason for reason in left if reason is not None]
    if kind == "job":
        land = ground(view)
        if name in land.barred:
            told.append(f"cannot be evicted now: {land.barred[name]}")
        elif name in land.costs:
            how = weighed(land.victims[name], view.facts.get(name, JobFacts()), view.policy)
            told.append(f"evicting it now would cost {land.costs[name]:.0f} GPU-seconds, by {how}")
    return told
