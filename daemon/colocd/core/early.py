"""Places for replicas beyond the ordinary ones: by an operator's word, and ahead of the need."""

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from coloc_topology.shape import idx
from colocd.core.actions import Action, Need, Note, Place
from colocd.core.ahead import Moment, ahead_of_need, moments
from colocd.core.ground import Ground
from colocd.core.joint import pick, settle
from colocd.core.reclaim import Choice, make_choice
from colocd.core.together import Want, place_all
from colocd.core.view import ServiceView, View


def place_action(service: ServiceView, slot: int, why: str, choice: Choice, land: Ground) -> Place:
    """The action that starts a replica at this choice; `why` it is needed. `land`: what is left when the places are taken."""
    spec = service.spec
    taking = (
        f", taking them from {', '.join(choice.victims)} for {choice.cost:.0f} GPU-seconds" if choice.victims else ""
    )
    missed = f" (asked for {spec.level.name})" if choice.level < spec.level else ""
    other = _elsewhere(service, choice, land)
    return Place(
        service=spec.name,
        slot=slot,
        places={choice.node: choice.gpus},
        level=choice.level.name,
        victims=choice.victims,
        gpu_type=choice.gpu_type,
        cost=choice.cost,
        why=f"{why}: GPUs {idx(choice.gpus)} of {choice.node} are joined by {choice.level.name}{missed}{taking}{other}",
    )


def _elsewhere(service: ServiceView, choice: Choice, land: Ground) -> str:
    """Why these jobs and no others: what the next best place would cost. Nothing where nobody is evicted."""
    if not choice.victims:
        return ""
    other = pick(land, service.spec)
    if other is None:
        return "; there is no other place for it"
    node, cost = land.index.nodes[other.row].name, land.cost(other.victims)
    return f"; the next best place is on {node} for {cost:.0f}"


def shortage(wanted: Need) -> str:
    """Why a service gets a replica now."""
    return f"{wanted.why}; needs {wanted.now}, has {wanted.have}"


def forced(
    view: View,
    services: Sequence[ServiceView],
    needs: Sequence[Need],
    placed: Counter[str],
    land: Ground,
    actions: list[Action],
    held_up: Callable[[ServiceView, Need, View], Note | None],
) -> Ground:
    """Add one more replica for each service that an operator lets ignore the budgets and that is still short."""
    for service, wanted in zip(services, needs, strict=True):
        name = service.spec.name
        word = view.overrides.get(name)
        if (
            service.spec.nodes > 1
            or word is None
            or wanted.now <= wanted.have + placed[name]
            or held_up(service, wanted, view) is not None
        ):
            continue
        joint = place_all(land.without_budgets(), [Want(service.spec, 1)])
        spots = [spot for spot in joint.spots[0] if not spot.waits]
        if spots:
            used = slots_of(service, view) | {a.slot for a in actions if isinstance(a, Place) and a.service == name}
            slot = min(set(range(len(used) + 1)) - used)
            action = place_action(
                service, slot, shortage(wanted), make_choice(spots[0], service.spec, joint.land), joint.land
            )
            why = f"{action.why}; budgets are overridden: {word}"
            actions.append(msgspec.structs.replace(action, why=why, override=True))
            placed[name] += 1
            joint.land.lifted = False
            land = joint.land
    return land


def slots_of(service: ServiceView, view: View) -> set[int]:
    """Slots of a service that are taken."""
    name = service.spec.name
    return {r.slot for r in service.replicas} | {h.slot for h in view.handovers if h.service == name}


def begin_early(
    view: View,
    services: Sequence[ServiceView],
    needs: Sequence[Need],
    placed: Counter[str],
    land: Ground,
    actions: Sequence[Action],
    *,
    together: bool,
) -> tuple[Ground, list[Action], list[Note]]:
    """Reclaims for replicas that the forecast needs soon, where their moment of least loss is now; notes on the others.

    Only services that lack nothing now: what is needed at once goes first. `together`: somebody lacks a place, so no node is
    fenced for longer than needed, and all victims of a place go at once.
    """
    early: list[Action] = []
    notes: list[Note] = []
    scene = land  # With the places of those that still wait struck, which are the batch jobs' until then.
    for service, wanted in zip(services, needs, strict=True):
        spec = service.spec
        short = wanted.now - wanted.have - placed[spec.name]
        waits = service.retry_at is not None and service.retry_at > view.at
        due = (
            []
            if short > 0 or waits or spec.nodes > 1 or spec.beside is not None
            else ahead_of_need(service, wanted.now, view)
        )
        for latest in due[placed[spec.name] :]:
            joint = place_all(scene, [Want(spec, 1)])
            spots = [spot for spot in joint.spots[0] if not spot.waits]
            if not spots or not spots[0].victims:
                break  # Free GPUs are kept for it anyway, and nothing is lost by waiting.
            at = moments(spots[0], land.index.nodes[spots[0].row], latest, view, together=together)
            if all(moment.ahead > 0 for moment in at.values()):
                notes += [Note(subject=f"job:{ref}", text=_announced(spec.name, moment)) for ref, moment in at.items()]
                scene = joint.land
                continue
            later = {ref: moment for ref, moment in at.items() if moment.ahead > 0}
            notes += [Note(subject=f"job:{ref}", text=_announced(spec.name, moment)) for ref, moment in later.items()]
            mine = {a.slot for a in (*actions, *early) if isinstance(a, Place) and a.service == spec.name}
            used = slots_of(service, view) | mine
            first = [ref for ref in at if ref not in later]
            who = f"job {first[0]} loses" if len(first) == 1 else f"jobs {', '.join(first)} lose"
            who = who if later else "its victims lose"
            why = f"a replica more is foreseen to be needed, to be begun within {latest:.0f} s; now {who} least"
            slot = min(set(range(len(used) + 1)) - used)
            action = place_action(service, slot, why, make_choice(spots[0], spec, joint.land), joint.land)
            if later:
                wait = {ref: moment.ahead for ref, moment in later.items()}
                action = msgspec.structs.replace(action, moments=wait, latest=latest)
            early.append(action)
            placed[spec.name] += 1
            scene, land = joint.land, land.copy()
            settle(land, spec, spots[0])
    return land, early, notes


def _announced(service: str, moment: Moment) -> str:
    return (
        f"in about {moment.ahead:.0f} s its GPUs are wanted for {service}; coloc waits {moment.waits_for}: then {moment.lost:.0f}"
        " GPU-seconds are lost"
    )
