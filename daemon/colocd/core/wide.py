"""Starts replicas on several nodes, and pairs: replicas of two services that belong together (`groups` finds the places).

A pair that starts together is one decision: the first one's victims make room for both, one fence is around both, and the other
starts once the first stands. Who lacks a partner is joined by the next replica of the other service.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec

from coloc_topology.hostlist import fold
from colocd.core.actions import Need, Note, Place
from colocd.core.ground import Ground
from colocd.core.groups import Group, Part, choose_group, domains_of, next_best, parts_of
from colocd.core.joint import Spot, settle
from colocd.core.need import counted
from colocd.core.reclaim import make_choice
from colocd.core.seats import in_order, words
from colocd.core.service import Closeness, ServiceSpec
from colocd.core.view import Job, ServiceView, View
from colocd.core.wishes import is_wish, subject

FEW = 4
"""Reasons told of a replica that fits beside none of its partners."""


class Ask(NamedTuple):
    """A service, what it needs, and how many replicas it may start now."""

    service: ServiceView
    wanted: Need
    lacks: int

    @property
    def spec(self) -> ServiceSpec:
        """The service's specification."""
        return self.service.spec


class Starts:
    """Collects placements and notes; gives each new replica the lowest free slot of its service."""

    def __init__(self, view: View, land: Ground) -> None:
        self.land = land
        self.actions: list[Place] = []
        self.notes: list[Note] = []
        self.placed: dict[str, int] = {}
        self._used: dict[str, set[int]] = {}
        self._view = view

    def slot(self, service: ServiceView) -> int:
        """The lowest slot of a service that nobody has; it is taken."""
        name = service.spec.name
        if name not in self._used:
            self._used[name] = {r.slot for r in service.replicas}
            self._used[name] |= {h.slot for h in self._view.handovers if h.service == name}
        used = self._used[name]
        slot = min(set(range(len(used) + 1)) - used)
        used.add(slot)
        return slot

    def lacks(self, ask: Ask) -> int:
        """Replicas of a service that are still to be placed."""
        return ask.lacks - self.placed.get(ask.spec.name, 0)

    def start(
        self,
        ask: Ask,
        spots: Sequence[Spot],
        victims: Sequence[Job],
        group: Group,
        beside: Sequence[str] = (),
        follows: str | None = None,
    ) -> Place:
        """A placement on these spots; the land is taken by `take`."""
        land, spec = self.land, ask.spec
        choices = [make_choice(spot, spec, land) for spot in spots]
        places = {choice.node: choice.gpus for choice in choices}
        places = {name: places[name] for name in in_order(places)}
        level = min(choice.level for choice in choices)
        types = {choice.gpu_type for choice in choices}
        refs = tuple(job.ref for job in victims)
        cost = land.cost(victims)
        joins = group.closeness if len({*places, *beside}) > 1 else None
        missed = f" (asked for {spec.level.name})" if level < spec.level else ""
        near = f", nodes in {group.domain or 'any place'} ({joins.value})" if joins is not None else ""
        taking = f", taking them from {', '.join(refs)} for {cost:.0f} GPU-seconds" if refs else ""
        after = f", once {follows} stands" if follows is not None else ""
        place = Place(
            service=spec.name,
            slot=self.slot(ask.service),
            places=places,
            level=level.name,
            victims=refs,
            gpu_type=types.pop() if len(types) == 1 else None,
            cost=cost,
            closeness=joins.value if joins is not None else None,
            beside=tuple(beside),
            follows=follows,
            why=f"{ask.wanted.why}; needs {ask.wanted.now}, has {ask.wanted.have}: {words(places)} are joined by"
            f" {level.name}{missed}{near}{taking}{after}",
        )
        if group.gave_up and not any(note.subject == "coloc" for note in self.notes):
            text = "places over several nodes: not all ways to share victims were tried; there may be cheaper ones"
            self.notes.append(Note(subject="coloc", text=text))
        self.actions.append(place)
        self.placed[spec.name] = self.placed.get(spec.name, 0) + 1
        return place

    def elsewhere(
        self,
        place: Place,
        parts: Sequence[Part],
        near: Sequence[Closeness],
        at: Mapping[Closeness, str] | None = None,
    ) -> None:
        """Add to the reason of a reclaim, once its place is taken, what the next best one would cost."""
        if not place.victims:
            return
        told = msgspec.structs.replace(place, why=f"{place.why}; {next_best(self.land, parts, near, at)}")
        self.actions = [told if action is place else action for action in self.actions]

    def take(self, spec: ServiceSpec, spots: Sequence[Spot]) -> None:
        """Strike what these spots take."""
        for spot in spots:
            settle(self.land, spec, spot)

    def short(self, ask: Ask, reason: str) -> None:
        """Note that a service does not get all it needs."""
        have = ask.wanted.have + self.placed.get(ask.spec.name, 0)
        lacks = f"needs {ask.wanted.now} replicas and has {have}"
        text = f"{'there is no place for it now' if is_wish(ask.spec.name) else lacks}: {reason}"
        self.notes.append(Note(subject=subject(ask.spec.name), text=text))


class Turn(NamedTuple):
    """Services that are placed in one go: plain ones together, else one on several nodes, or a service and its partner."""

    asks: tuple[Ask, ...]
    group: bool


def turns(asks: Mapping[str, Ask]) -> Iterator[Turn]:
    """The services that lack replicas, by priority; at equal priority groups first: they fit less easily."""
    mates: dict[str, list[tuple[Ask, ...]]] = {}
    for ask in asks.values():
        partner = asks.get(ask.spec.beside or "")
        pair: tuple[Ask, ...] = (ask,) if partner is None else (ask, partner)
        if ask.spec.nodes > 1 or ask.spec.beside is not None:
            for one in pair:
                mates.setdefault(one.spec.name, []).append(pair)
    for name, pairs in mates.items():
        mates[name] = [pair for pair in pairs if len(pair) > 1] or pairs
    plain: list[Ask] = []
    done: set[tuple[str, ...]] = set()
    lacking = [ask for ask in asks.values() if ask.lacks]
    for _, level in groupby(lacking, key=lambda ask: ask.spec.priority):
        here = list(level)
        groups = [pair for ask in here for pair in mates.get(ask.spec.name, ())]
        if groups and plain:
            yield Turn(tuple(plain), group=False)
            plain = []
        for pair in groups:
            names = tuple(ask.spec.name for ask in pair)
            if names not in done:
                done.add(names)
                yield Turn(pair, group=True)
        plain += [ask for ask in here if ask.spec.name not in mates]
    if plain:
        yield Turn(tuple(plain), group=False)


def start_group(starts: Starts, turn: Turn) -> None:
    """The replicas of one turn's group."""
    if len(turn.asks) > 1:
        start_pairs(starts, turn.asks[0], turn.asks[1])
    elif turn.asks[0].spec.beside is not None:
        starts.short(turn.asks[0], f"service {turn.asks[0].spec.beside} is not known")
    else:
        start_wide(starts, turn.asks[0])


def start_wide(starts: Starts, ask: Ask) -> None:
    """Replicas on several nodes each, as many as fit."""
    while starts.lacks(ask) > 0:
        group, reason = choose_group(starts.land, *parts_of(ask.spec, None))
        if group is None:
            starts.short(ask, reason)
            return
        (spots,) = group.spots
        place = starts.start(ask, spots, _victims(spots), group)
        starts.take(ask.spec, spots)
        starts.elsewhere(place, *parts_of(ask.spec, None))


def start_pairs(starts: Starts, first: Ask, second: Ask) -> None:
    """Replicas of a service (`first`) and of the one it sits beside, until neither lacks one or nothing fits."""
    asks = (first, second)
    alone, known = seated(starts.land, first, second)
    stuck = [False, False]
    while True:
        wants = [starts.lacks(ask) > 0 and not stuck[k] for k, ask in enumerate(asks)]
        if not any(wants):
            return
        k = next((k for k in (0, 1) if wants[k] and alone[1 - k]), 0 if wants[0] else 1)
        if all(wants) and not alone[1 - k]:
            stuck = [not _both(starts, first, second)] * 2
        elif known[1 - k]:
            # Those without a partner first; one more beside a pair still serves, beside nobody it would not.
            anchors = [*alone[1 - k], *(nodes for nodes in known[1 - k] if nodes not in alone[1 - k])]
            found = _beside(starts, asks[k], asks[1 - k], first.spec, anchors)
            stuck[k] = found is None
            if found in alone[1 - k]:
                alone[1 - k].remove(found)
        else:
            stuck[k] = not _with_room(starts, asks[k], asks[1 - k], first.spec)


def _both(starts: Starts, first: Ask, second: Ask) -> bool:
    """One replica of each, decided at once; False: they do not fit together anywhere."""
    parts, near = parts_of(first.spec, second.spec)
    group, reason = choose_group(starts.land, parts, near)
    if group is None:
        starts.short(first, reason)
        starts.short(second, reason)
        return False
    one, two = group.spots
    names = [tuple(starts.land.index.nodes[spot.row].name for spot in spots) for spots in (one, two)]
    lead = starts.start(first, one, _victims([*one, *two]), group, beside=names[1])
    starts.start(second, two, (), group, beside=names[0], follows=f"{lead.service}/{lead.slot}")
    starts.take(first.spec, one)
    starts.take(second.spec, two)
    starts.elsewhere(lead, parts, near)
    return True


def _beside(
    starts: Starts, me: Ask, other: Ask, follower: ServiceSpec, anchors: Sequence[tuple[str, ...]]
) -> tuple[str, ...] | None:
    """A replica near the first of these replicas of the other service (their nodes) near which it fits; None: near none."""
    _, near = parts_of(follower, other.spec if follower is me.spec else me.spec)
    reasons = []
    for nodes in anchors:
        at = domains_of(starts.land, nodes, near)
        group, reason = choose_group(starts.land, [Part(me.spec, me.spec.nodes)], near, at)
        if group is not None:
            (spots,) = group.spots
            place = starts.start(me, spots, _victims(spots), group, beside=nodes)
            starts.take(me.spec, spots)
            starts.elsewhere(place, [Part(me.spec, me.spec.nodes)], near, at)
            return nodes
        reasons.append(f"beside {other.spec.name} on {fold(nodes)}: {reason}")
    starts.short(me, "; ".join(reasons[:FEW]))
    return None


def _with_room(starts: Starts, me: Ask, other: Ask, follower: ServiceSpec) -> bool:
    """A replica whose partner is not needed now, at a place at which the partner will fit, too."""
    partner = other.spec if follower is me.spec else me.spec
    parts, near = parts_of(follower, partner)
    group, reason = choose_group(starts.land, parts, near)
    if group is None:
        starts.short(me, reason)
        return False
    spots = group.spots[0 if follower is me.spec else 1]
    holders = {job.ref: job for spot in spots for job in starts.land.holders(spot.row, spot.gpus)}
    starts.start(me, spots, tuple(holders.values()), group)
    starts.take(me.spec, spots)
    return True


def seated(
    land: Ground, first: Ask, second: Ask
) -> tuple[tuple[list[tuple[str, ...]], list[tuple[str, ...]]], tuple[list[tuple[str, ...]], list[tuple[str, ...]]]]:
    """Where the replicas of both services sit (nodes of each): those that have no partner near, and all."""
    known = tuple(
        [tuple(r.places) for r in sorted(counted(ask.service), key=lambda r: r.slot) if r.places]
        for ask in (first, second)
    )
    left = (list(known[0]), list(known[1]))
    _, near = parts_of(first.spec, second.spec)
    for closeness in near:
        for mine in list(left[0]):
            at = domains_of(land, mine, [closeness])
            mate = next((t for t in left[1] if at and domains_of(land, t, [closeness]) == at), None)
            if mate is not None:
                left[0].remove(mine)
                left[1].remove(mate)
    return left, (known[0], known[1])


def _victims(spots: Sequence[Spot]) -> tuple[Job, ...]:
    """The distinct victims of these spots, in their order."""
    return tuple({job.ref: job for spot in spots for job in spot.victims}.values())
