"""Replicas on several nodes, and services whose replicas belong together: near each other, evicted for together.

All parts of a group are placed in one go, so a job on several of its nodes is paid once, and what any victim frees is free for
every part. Domains are searched separately; within one, nodes are added one by one from several starts.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from coloc_topology.hostlist import fold
from colocd.core.arrays import Bools, Ints
from colocd.core.ground import Ground
from colocd.core.joint import Spot, pick
from colocd.core.openings import open_keys
from colocd.core.places import domain_of
from colocd.core.search import NEVER, Request
from colocd.core.service import Closeness, Mode, ServiceSpec
from colocd.core.view import Node
from colocd.core.why import FEW_DOMAINS, short_of

MOST_DOMAINS = 64
"""Domains searched per closeness: those whose single nodes are cheapest."""
STARTS = 8
"""Nodes from which a group is grown in each domain."""


class Part(NamedTuple):
    """GPUs on `nodes` different nodes for a replica of a service."""

    spec: ServiceSpec
    nodes: int = 1


class Group(NamedTuple):
    """Places for all parts (per part one spot a node), what joins them (`domain` None: nothing does), and the key of all.

    `gave_up`: a domain that was not searched may have a cheaper place.
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


class _Domain(NamedTuple):
    """Open nodes of one domain: whether they are too few, what the parts cost if they share nothing, and at least."""

    short: bool
    guess: int
    name: str
    bound: int
    rows: list[int]


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


def _at(land: Ground, parts: Sequence[Part], closeness: Closeness, only: str | None) -> tuple[Group | None, str]:
    domains = rows_by_domain(land, parts, closeness, only)
    if not domains and only is not None:
        return None, f"no node of {only} is open"
    if not domains:
        return None, f"no open node is in a known {closeness.value} domain"
    ranked = _ranked(land, parts, domains)
    best: Group | None = None
    searched, gave_up = 0, False
    for domain in ranked:
        if domain.short or domain.bound >= (NEVER if best is None else best.key):
            continue
        if searched >= MOST_DOMAINS:
            gave_up = True
            break
        searched += 1
        found = _in_domain(land, parts, domain.rows, domain.bound)
        if found is not None and (best is None or found[0] < best.key):
            label = None if closeness is Closeness.ANY else domain.name
            best = Group(found[1], closeness, label, found[0], gave_up=False)
            trimmed = _trimmed(land, parts, domain, found)
            best = best._replace(key=trimmed[0], spots=trimmed[1])
    if best is None:
        asked = " and ".join(f"{p.nodes} x {p.spec.gpus_per_replica} GPUs of {p.spec.name}" for p in parts)
        near = [short_of(land, parts, domains[name], name) for name in (domain.name for domain in ranked[:FEW_DOMAINS])]
        return None, f"no {closeness.value} domain of {len(domains)} has room for {asked} ({'; '.join(near)})"
    return best._replace(gave_up=gave_up), ""


def _ranked(land: Ground, parts: Sequence[Part], domains: Mapping[str, list[int]]) -> list[_Domain]:
    """The domains with enough nodes for all parts, cheapest first.

    A job on several nodes is paid once, so for the bound its cost is split over its nodes; parts may share a node and all victims
    there, so the bound is that of the dearest part. A pair is on two nodes, or on one that has GPUs for both (`shared`).
    """
    keys = [open_keys(land, part.spec) for part in parts]
    shares = [land.split_keys(Request.of(part.spec), k) for k, part in zip(keys, parts, strict=True)]
    shared = _shared(land, parts)
    ranked = []
    for name, rows in domains.items():
        # Parts of different services may share a node, the nodes of one part are different ones.
        guess = sum(_least(k[rows], part.nodes) for k, part in zip(keys, parts, strict=True))
        each = [_least(k[rows], part.nodes) for k, part in zip(shares, parts, strict=True)]
        bound = max(each)
        if shared is not None:
            both = int(shared[rows].min())
            bound = max(bound, both if len(rows) == 1 else min(sum(each), both))
        ranked.append(_Domain(any(len(rows) < part.nodes for part in parts), guess, name, bound, rows))
    return sorted(ranked)


def _shared(land: Ground, parts: Sequence[Part]) -> Ints | None:
    """What a node costs at least that has GPUs for both parts of a pair, joined anyhow; None: no such pair, or not known.

    It is not known where GPUs come free later on open nodes, by the handover of a job on several: a part may use them.
    """
    if len(parts) != 2 or any(part.nodes > 1 for part in parts) or land.later[land.open].any():
        return None
    gpus = sum(part.spec.gpus_per_replica for part in parts)
    spec = msgspec.structs.replace(parts[0].spec, gpus_per_replica=gpus, link_level="SYS", mode=Mode.GUARANTEED)
    return land.split_keys(Request.of(spec), open_keys(land, spec))


def _least(keys: Ints, many: int) -> int:
    """Sum of the least keys."""
    least: list[int] = (np.partition(keys, many - 1)[:many] if many < len(keys) else keys).tolist()
    return sum(least)


def _in_domain(
    land: Ground, parts: Sequence[Part], rows: Sequence[int], bound: int
) -> tuple[int, tuple[tuple[Spot, ...], ...]] | None:
    """Key and spots of the best group on these nodes: grown from each of the cheapest nodes, and from each order of the parts.

    `bound`: no group here costs less.
    """
    members: Bools = np.zeros(len(land.index.nodes), dtype=np.bool_)
    members[list(rows)] = True
    best: tuple[int, tuple[tuple[Spot, ...], ...]] | None = None
    for order in _orders(parts):
        keys = np.where(members, open_keys(land, parts[order[0]].spec), NEVER)
        starts = np.argsort(keys, kind="stable")[:STARTS]
        for start in starts[keys[starts] < NEVER].tolist():
            found = _grow(land, parts, order, members, start)
            if found is not None and (best is None or found[0] < best[0]):
                best = found
                if best[0] <= bound:
                    return best
    return best


def _trimmed(
    land: Ground, parts: Sequence[Part], domain: _Domain, found: tuple[int, tuple[tuple[Spot, ...], ...]]
) -> tuple[int, tuple[tuple[Spot, ...], ...]]:
    """The group, or one that needs fewer of its victims: grown node by node, an early one may turn out to be needless."""
    while found[0] > domain.bound:
        rows = [land.index.job_row[job.ref] for spots in found[1] for spot in spots for job in spot.victims]
        if len(rows) < 2:
            break
        for row in sorted(rows, key=lambda row: (-int(land.job_keys(np.array([row]))[0]), row)):
            poorer = land.only([other for other in rows if other != row])
            fewer = (
                _in_domain(poorer, parts, domain.rows, domain.bound) if _may_fit(poorer, parts, domain.rows) else None
            )
            if fewer is not None and fewer[0] < found[0]:
                found = fewer
                break
        else:
            break
    return found


def _may_fit(land: Ground, parts: Sequence[Part], rows: Sequence[int]) -> bool:
    """Whether as many of these nodes as each part needs have room for it."""
    return all(int((open_keys(land, part.spec)[rows] < NEVER).sum()) >= part.nodes for part in parts)


def with_node(
    land: Ground, parts: Sequence[Part], rows: Sequence[int], row: int
) -> tuple[int, tuple[tuple[Spot, ...], ...]] | None:
    """Key and spots of the best group on these nodes that is grown from node `row`, any part of it there; None: none fits."""
    members: Bools = np.zeros(len(land.index.nodes), dtype=np.bool_)
    members[list(rows)] = True
    found = [_grow(land, parts, order, members, row) for order in _orders(parts)]
    return min((f for f in found if f is not None), key=lambda f: f[0], default=None)


def _orders(parts: Sequence[Part]) -> list[list[int]]:
    return [list(range(len(parts))), list(range(len(parts)))[::-1]][: 1 + (len(parts) > 1)]


def _grow(
    land: Ground, parts: Sequence[Part], order: Sequence[int], members: Bools, start: int
) -> tuple[int, tuple[tuple[Spot, ...], ...]] | None:
    """Add the cheapest node for each part in turn, the first one on `start`; None: the group does not fit."""
    land = land.copy()
    spots: list[list[Spot]] = [[] for _ in parts]
    first = True
    for at in order:
        left = members.copy()
        for _ in range(parts[at].nodes):
            keys = np.where(left, open_keys(land, parts[at].spec), NEVER)
            if first:
                keys = np.where(np.arange(len(keys)) == start, keys, NEVER)
                first = False
            spot = pick(land, parts[at].spec, keys)
            if spot is None:
                return None
            land.seize(spot.row, spot.gpus, spot.victims)
            spots[at].append(spot)
            left[spot.row] = False
    return sum(s.key for found in spots for s in found), tuple(tuple(found) for found in spots)
