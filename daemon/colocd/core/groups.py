"""Replicas on several nodes, and services whose replicas belong together: near each other, evicted for together.

All parts of a group are placed in one go, so a job on several of its nodes is paid once, and what any victim frees is free for
every part. `domains` finds the domain, `branch` the nodes in it, `group_spots` their GPUs.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from coloc_topology.hostlist import fold
from colocd.core.arrays import Ints
from colocd.core.branch import MOST_STEPS, Asked, Budget
from colocd.core.budgets import over_budget
from colocd.core.domains import cheapest
from colocd.core.ground import Ground
from colocd.core.group_spots import Found, Part, carried_out, grown, with_node
from colocd.core.joint import Spot
from colocd.core.openings import open_keys
from colocd.core.places import domain_of
from colocd.core.service import Closeness, Mode, ServiceSpec
from colocd.core.view import Node
from colocd.core.why import FEW_DOMAINS, short_of

MOST_DOMAINS = 64
"""Domains searched node by node where the budgets are short: those with the least bounds."""


__all__ = ["Group", "Part", "choose_group", "domains_of", "next_best", "parts_of", "rows_by_domain", "with_node"]


class Group(NamedTuple):
    """Places for all parts (per part one spot a node), what joins them (`domain` None: nothing does), and the key of all.

    `gave_up`: not all ways to share victims were looked at, so there may be a cheaper place.
    """

    spots: tuple[tuple[Spot, ...], ...]
    closeness: Closeness
    domain: str | None
    key: int
    gave_up: bool


def parts_of(spec: ServiceSpec, partner: ServiceSpec | None) -> tuple[tuple[Part, ...], tuple[Closeness, ...]]:
    """The parts of one replica, and how near they may be, in order of preference. `partner`: the service it is `beside`."""
    parts = (Part(spec, spec.nodes), *(() if partner is None else (Part(partner, partner.nodes),)))
    order = tuple(Closeness)
    if partner is not None:
        if spec.mode is Mode.BEST_EFFORT:
            return parts, order
        # What one of them asks of its own nodes holds for the pair, too: all sit in one domain.
        asked = [s.closeness for s in (spec, partner) if s.nodes > 1 and s.mode is Mode.GUARANTEED]
        return parts, order[: 1 + min(order.index(c) for c in (Closeness.LEAF, *asked))]
    if spec.mode is Mode.GUARANTEED:
        return parts, (spec.closeness,)
    return parts, order[order.index(spec.closeness) :]


def domains_of(land: Ground, nodes: Sequence[str], near: Sequence[Closeness]) -> dict[Closeness, str]:
    """Name of the domain that holds all these nodes, per closeness; those without one, or where it is not known, are missing."""
    known = [land.index.nodes[land.index.row[name]] for name in nodes if name in land.index.row]
    found: dict[Closeness, str] = {}
    for closeness in near if known and len(known) == len(nodes) else ():
        names = {_domain(node, closeness, len(known) == 1) for node in known}
        name = names.pop()
        if not names and name is not None:
            found[closeness] = name
    return found


def _domain(node: Node, closeness: Closeness, alone: bool) -> str | None:
    """The node's domain. With `alone` a node is its own NVLink domain where nothing is known of one: parts may share it."""
    name = domain_of(node, closeness)
    return f"node {node.name}" if name is None and alone and closeness is Closeness.NVLINK else name


def choose_group(
    land: Ground, parts: Sequence[Part], near: Sequence[Closeness], at: Mapping[Closeness, str] | None = None
) -> tuple[Group | None, str]:
    """The best group, at the first closeness at which there is one; None and the reason when there is none at all.

    `at`: the only domain that counts, per closeness (beside a replica that is there); None: all.
    """
    reasons = []
    for closeness in near:
        if at is not None and closeness not in at:
            reasons.append(f"its {closeness.value} domain is not known")
            continue
        found, reason = _at(land, parts, closeness, None if at is None else at[closeness])
        if found is not None:
            return found, ""
        reasons.append(reason)
    return None, "; ".join(reasons)


def next_best(
    land: Ground, parts: Sequence[Part], near: Sequence[Closeness], at: Mapping[Closeness, str] | None = None
) -> str:
    """What the best place for these parts costs, in words; `land`: what is left when a better one is taken."""
    other, _ = choose_group(land, parts, near, at)
    if other is None:
        return "there is no other place for it"
    spots = [spot for found in other.spots for spot in found]
    victims = {job.ref: job for spot in spots for job in spot.victims}
    nodes = fold(land.index.nodes[spot.row].name for spot in spots)
    return f"the next best place is on {nodes} for {land.cost(victims.values()):.0f}"


def rows_by_domain(
    land: Ground, parts: Sequence[Part], closeness: Closeness, only: str | None, shut: bool = False
) -> dict[str, list[int]]:
    """Node rows of each domain in which these parts may sit (`only`: of this one); with `shut` also nodes that are closed now."""
    domains: dict[str, list[int]] = {}
    alone = (len(parts) > 1 or only is not None) and all(part.nodes == 1 for part in parts)
    for i in range(len(land.index.nodes)) if shut else np.flatnonzero(land.open).tolist():
        name = _domain(land.index.nodes[i], closeness, alone)
        if name is not None and only in (None, name):
            domains.setdefault(name, []).append(i)
    return domains


def _codes(land: Ground, parts: Sequence[Part], closeness: Closeness, only: str | None) -> Ints:
    """The number of each node's domain (`only`: of this one), -1: not known, or another one."""
    index = land.index
    if closeness is Closeness.ANY:
        return np.zeros(len(index.nodes), dtype=np.int64)
    alone = closeness is Closeness.NVLINK and _alone(parts, only)
    if only is None:
        lonely = len(index.domains) + np.arange(len(index.nodes)) if alone else np.int64(-1)
        return np.where(index.near[closeness] < 0, lonely, index.near[closeness])
    known = index.domains.get((closeness, only))
    if known is not None:
        return np.where(index.near[closeness] == known, 0, -1)
    names = [alone and _domain(node, closeness, alone) == only for node in index.nodes]
    return np.array(names, dtype=np.int64) - 1


def _alone(parts: Sequence[Part], only: str | None) -> bool:
    """Whether a node may be a domain by itself."""
    return (len(parts) > 1 or only is not None) and all(part.nodes == 1 for part in parts)


def _at(land: Ground, parts: Sequence[Part], closeness: Closeness, only: str | None) -> tuple[Group | None, str]:
    asked, budget = Asked(land, parts), Budget(MOST_STEPS)
    codes = np.where(land.open, _codes(land, parts, closeness, only), -1)
    place, near = cheapest(asked, codes, budget)
    if place is None:
        return None, _short(land, parts, closeness, only)
    found = carried_out(asked, parts, place)
    if _over_budget(land, found):
        # Node by node, each victim is counted before the next is chosen.
        ways = [grown(land, parts, np.flatnonzero(codes == code)) for code in near[:MOST_DOMAINS].tolist()]
        least = min((way for way in ways if way is not None), key=lambda way: way[0], default=None)
        if least is None:
            return None, _short(land, parts, closeness, only)
        found, budget.met = least, True
    row = found[1][0][0].row
    label = None if closeness is Closeness.ANY else _domain(land.index.nodes[row], closeness, _alone(parts, only))
    return Group(found[1], closeness, label, found[0], gave_up=budget.met), ""


def _short(land: Ground, parts: Sequence[Part], closeness: Closeness, only: str | None) -> str:
    """Why the parts fit nowhere."""
    domains = rows_by_domain(land, parts, closeness, only)
    if not domains and only is not None:
        return f"no node of {only} is open"
    if not domains:
        return f"no open node is in a known {closeness.value} domain"
    keys = [open_keys(land, part.spec) for part in parts]

    def order(name: str) -> tuple[bool, int, str]:
        rows = domains[name]
        few = any(len(rows) < part.nodes for part in parts)
        return few, sum(int(np.sort(k[rows])[: p.nodes].sum()) for k, p in zip(keys, parts, strict=True)), name

    asked = " and ".join(f"{p.nodes} x {p.spec.gpus_per_replica} GPUs of {p.spec.name}" for p in parts)
    near = [short_of(land, parts, domains[name], name) for name in sorted(domains, key=order)[:FEW_DOMAINS]]
    return f"no {closeness.value} domain of {len(domains)} has room for {asked} ({'; '.join(near)})"


def _over_budget(land: Ground, found: Found) -> bool:
    """Whether the hourly budgets have less left than these victims need."""
    policy = land.view.policy
    if not (policy.user_evictions_per_hour or policy.evictions_per_hour):
        return False
    before = [name for name, number in land.index.users.items() for _ in range(int(land.hits[number]))]
    return over_budget(land.view, before + [job.user for spots in found[1] for spot in spots for job in spot.victims])
