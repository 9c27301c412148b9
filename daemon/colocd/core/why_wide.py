"""Why a node is, or is not, part of the place of a replica on several nodes, or of a pair."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from coloc_topology.hostlist import fold
from colocd.core.actions import Need
from colocd.core.ground import Ground
from colocd.core.groups import Group, Part, choose_group, domains_of, parts_of, rows_by_domain, with_node
from colocd.core.joint import Spot
from colocd.core.need import counted, need
from colocd.core.search import MISSED_SHIFT
from colocd.core.seats import words
from colocd.core.service import Closeness
from colocd.core.view import Job, ServiceView, View
from colocd.core.why import reasons, short_of, why_node
from colocd.core.wide import Ask, seated


class _Wish(NamedTuple):
    """What is placed in one go, how near, and (`at`) the only domains that count; `text`: beside whom, in words."""

    parts: tuple[Part, ...]
    near: tuple[Closeness, ...]
    at: Mapping[Closeness, str] | None = None
    text: str = ""


def why_place(service: ServiceView, view: View, at: Ground, name: str) -> str:
    """Why the next replica of a service would or would not sit on this node, alone or as part of a place over several nodes."""
    spec = service.spec
    if spec.nodes == 1 and spec.beside is None and _mate(service, view) is None:
        return why_node(spec, at, name)
    row = at.index.row.get(name)
    if row is None:
        return "is not a node that Slurm has"
    wishes = _wishes(service, view, at)
    if not wishes:
        return f"goes nowhere: service {spec.beside} is not known"
    wish, best = wishes[0], None
    for one in wishes:
        best, _ = choose_group(at, one.parts, one.near, one.at)
        if best is not None:
            wish = one
            break
    if best is not None and any(spot.row == row for spots in best.spots for spot in spots):
        return f"would be part of its place{wish.text}: {_words(wish.parts, best, at)}"
    bars = {part.spec.name: reasons(part.spec, at, [row]).get(name) for part in wish.parts}
    if None not in bars.values():
        told = list(dict.fromkeys(str(why) for why in bars.values()))
        text = told[0] if len(told) == 1 else "; ".join(f"for {who}: {why}" for who, why in bars.items())
        return f"cannot be part of a place{wish.text}: {name} {text}{_chosen(wish, best, at)}"
    here, told = _here(wish, at, row)
    if here is None:
        return f"cannot be part of a place{wish.text}: {'; '.join(told)}{_chosen(wish, best, at)}"
    text = f"goes elsewhere{wish.text}: here it would be {_words(wish.parts, here, at)}{_chosen(wish, best, at)}"
    return text if best is None else f"{text}; {_difference(here, best, wish, at)}"


def _mate(service: ServiceView, view: View) -> ServiceView | None:
    """The service that this one sits beside, else the first that sits beside this one."""
    spec = service.spec
    if spec.beside is not None:
        return next((s for s in view.services if s.spec.name == spec.beside), None)
    ranked = sorted(view.services, key=lambda s: (-s.spec.priority, s.spec.name))
    return next((s for s in ranked if s.spec.beside == spec.name), None)


def _wishes(service: ServiceView, view: View, at: Ground) -> list[_Wish]:
    """What the next plan would look for, in its order; empty: the partner is not known."""
    spec, mate = service.spec, _mate(service, view)
    if mate is None:
        return [] if spec.beside is not None else [_Wish(*parts_of(spec, None))]
    first, second = (service, mate) if spec.beside is not None else (mate, service)
    parts, near = parts_of(first.spec, second.spec)
    blank = Need(service="", now=0, have=0, why="")
    alone, known = seated(at, Ask(first, blank, 0), Ask(second, blank, 0))
    k = 1 if service is first else 0  # whose replicas it may sit beside
    anchors = list(alone[k])
    if need(mate, view.policy, view.at).now <= len(counted(mate)):
        anchors += [nodes for nodes in known[k] if nodes not in anchors]
    if not anchors:
        return [_Wish(parts, near)]
    mine = (Part(spec, spec.nodes),)
    return [
        _Wish(mine, near, domains_of(at, nodes, near), f" beside {mate.spec.name} on {fold(nodes)}")
        for nodes in anchors
    ]


def _here(wish: _Wish, at: Ground, row: int) -> tuple[Group | None, list[str]]:
    """The best place that has a part on this node, at the first closeness at which there is one; else why at none of them."""
    told: list[str] = []
    for closeness in wish.near:
        only = None if wish.at is None else wish.at.get(closeness)
        if wish.at is not None and only is None:
            told.append(f"the partner's {closeness.value} domain is not known")
            continue
        domains = rows_by_domain(at, wish.parts, closeness, only, shut=True)
        domain = next((name for name, rows in domains.items() if row in rows), None)
        if domain is None:
            told.append(f"it is not in {only}" if only is not None else f"its {closeness.value} domain is not known")
            continue
        rows = [i for i in domains[domain] if at.open[i]]
        found = with_node(at, wish.parts, rows, row)
        if found is not None:
            label = None if closeness is Closeness.ANY else domain
            return Group(found[1], closeness, label, found[0], gave_up=False), []
        told.append(f"{closeness.value} {short_of(at, wish.parts, domains[domain], domain)}")
    return None, told


def _victims(group: Group) -> tuple[Job, ...]:
    return tuple({job.ref: job for spots in group.spots for spot in spots for job in spot.victims}.values())


def _words(parts: Sequence[Part], group: Group, at: Ground) -> str:
    def seats(spots: Sequence[Spot]) -> str:
        level = min(at.index.tables[int(at.index.shape[s.row])].level_of(s.gpus) for s in spots)
        return f"{words({at.index.nodes[s.row].name: s.gpus for s in spots})} ({level.name})"

    text = ", ".join(f"{part.spec.name} on {seats(spots)}" for part, spots in zip(parts, group.spots, strict=True))
    where = f", nodes in {group.domain} ({group.closeness.value})" if group.domain is not None else ""
    jobs = _victims(group)
    if not jobs:
        return f"{text}{where}, all free"
    return f"{text}{where}, from {', '.join(job.ref for job in jobs)} for {at.cost(jobs):.0f} GPU-seconds"


def _chosen(wish: _Wish, best: Group | None, at: Ground) -> str:
    return "; no place fits now" if best is None else f"; the best is {_words(wish.parts, best, at)}"


def _difference(here: Group, best: Group, wish: _Wish, at: Ground) -> str:
    """What decided between the two places."""
    if wish.near.index(here.closeness) > wish.near.index(best.closeness):
        return f"there the nodes are nearer each other ({best.closeness.value})"
    if here.key >> MISSED_SHIFT != best.key >> MISSED_SHIFT:
        return "here GPUs would be joined worse"
    mine, other = at.cost(_victims(here)), at.cost(_victims(best))
    if mine < other:
        return f"here it costs {other - mine:.0f} GPU-seconds less, but the bounded search did not come by"
    if mine > other:
        return f"here it costs {mine - other:.0f} GPU-seconds more"
    more = len(_victims(here)) - len(_victims(best))
    return "here more jobs have to go" if more > 0 else "it was found first among equals"
