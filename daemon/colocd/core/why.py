"""Why a replica does not go to a node: what forbids it, or what it would cost there against the best node."""

from collections.abc import Iterable, Sequence
from math import inf

import numpy as np

from coloc_topology.shape import idx
from colocd.core.comment import own_key
from colocd.core.ground import Ground
from colocd.core.index import NO_FACTS
from colocd.core.joint import Spot, pick
from colocd.core.proof import save_time
from colocd.core.search import MISSED_SHIFT, NEVER, Request
from colocd.core.service import Mode, ServiceSpec

FEW = 8
"""Nodes whose reasons are told one by one."""
FEW_DOMAINS = 3
"""Domains, and nodes in each, of which it is told why they have no room for parts of a group."""


def reasons(spec: ServiceSpec, at: Ground, rows: Iterable[int] | None = None) -> dict[str, str]:
    """Why a replica cannot start on a node now, for every node (of these rows; None: of all) on which it cannot."""
    told: dict[str, str] = {}
    keys = at.found(Request.of(spec)).key
    members = at.index.partitions.get(spec.partition)
    for i in range(len(at.index.nodes)) if rows is None else rows:
        node = at.index.nodes[i]
        if not at.open[i]:
            told[node.name] = at.reason(i)
        elif members is None or not members[i]:
            told[node.name] = f"is not in partition {spec.partition}"
        elif at.index.shape[i] < 0:
            told[node.name] = "its topology is unknown"
        elif spec.spread and i in at.hosts.get(spec.name, ()):
            told[node.name] = f"has a replica of {spec.name} already, and no node may have two"
        elif keys[i] >= NEVER:
            told[node.name] = _too_little(spec, at, i)
        elif at.cpu_reach[i] < spec.cpus_per_replica or i in at.cramped.get(spec.name, ()):
            told[node.name] = f"has too few CPUs: a replica needs {spec.cpus_per_replica}, and other jobs keep theirs"
    return told


def _too_little(spec: ServiceSpec, at: Ground, i: int) -> str:
    table, many = at.index.tables[int(at.index.shape[i])], spec.gpus_per_replica
    if many > table.shape.gpus:
        return f"has {table.shape.gpus} GPUs, never {many}"
    if spec.mode is Mode.GUARANTEED and table.best_at(table.shape.all, many, spec.level) is None:
        return f"can never hold it: no {many} of its {table.shape.gpus} GPUs reach {spec.level.name}, even when all are free"
    free, masks, _ = at.content(i)
    reach = free | int(np.bitwise_or.reduce(masks))
    if reach.bit_count() < spec.gpus_per_replica:
        return f"only {reach.bit_count()} GPUs are free or can be freed{_bars(i, at)}"
    return f"no {spec.gpus_per_replica} of GPUs {idx(reach)} reach {spec.level.name}{_bars(i, at)}"


def _bars(i: int, at: Ground) -> str:
    """The jobs on the node that may not be evicted, with their reasons, for the explanation."""
    name = at.index.nodes[i].name
    told = [
        f"job {job.ref} {'is one of coloc itself' if own_key(job.comment) else bar}"
        for job in at.holding(name)
        if (bar := at.bar(job)) is not None
    ]
    return f" ({'; '.join(told)})" if told else ""


def where(spec: ServiceSpec, at: Ground) -> str:
    """The reasons of all nodes in one sentence: each of a few nodes, kinds of reasons with their numbers for many."""
    told = reasons(spec, at)
    if not told:
        return "there are no nodes" if not at.index.nodes else "every node that could is taken by this plan"
    if len(told) <= FEW:
        return "; ".join(f"{node} {reason}" for node, reason in sorted(told.items()))
    kinds: dict[str, list[str]] = {}
    for node, reason in sorted(told.items()):
        kinds.setdefault(reason.partition(" (")[0], []).append(node)
    most = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    parts = [f"{nodes[0]}{f' and {len(nodes) - 1} more' if len(nodes) > 1 else ''} {reason}" for reason, nodes in most]
    return "; ".join([*parts[:FEW], *([f"{len(parts) - FEW} more kinds of reasons"] if len(parts) > FEW else [])])


def short_of(land: Ground, parts: Sequence[tuple[ServiceSpec, int]], rows: Sequence[int], domain: str) -> str:
    """What these nodes of a domain lack for the parts (a service and its number of nodes each).

    How many have room for each, and of a few others why they have not.
    """
    told = []
    for spec, _ in parts:
        bars = reasons(spec, land, rows)
        name, many = spec.name, spec.gpus_per_replica
        text = f"{len(rows) - len(bars)} of {len(rows)} nodes have room for {many} GPUs of {name}"
        few = [f"{node} {why}" for node, why in list(bars.items())[:FEW_DOMAINS]]
        more = [f"{len(bars) - FEW_DOMAINS} more"] if len(bars) > FEW_DOMAINS else []
        told.append(f"{text}: {', '.join([*few, *more])}" if few else text)
    return f"{domain}: {', and '.join(told)}"


def why_node(spec: ServiceSpec, at: Ground, name: str) -> str:
    """Why the next replica of a service would or would not go to this node."""
    i = at.index.row.get(name)
    if i is None:
        return "is not a node that Slurm has"
    reason = reasons(spec, at).get(name)
    if reason is not None:
        return f"cannot go there: {name} {reason}"
    winner = pick(at, spec)
    assert winner is not None, "there is this node at least"
    found = at.refine(Request.of(spec), np.array([i, winner.row]))
    gpus = int(found.gpus[i])
    here = Spot(i, gpus, tuple(at.holders(i, gpus)), int(found.key[i]), waits=False)
    if winner.row == i:
        return f"would go there: {_words(here, at)}"
    best = f"the best is {at.index.nodes[winner.row].name} with {_words(winner, at)}"
    return f"goes elsewhere: {_words(here, at)}; {best}; {_difference(here, winner, at, spec)}"


def _words(spot: Spot, at: Ground) -> str:
    level = at.index.tables[int(at.index.shape[spot.row])].level_of(spot.gpus)
    text = f"GPUs {idx(spot.gpus)} ({level.name})"
    if not spot.victims:
        return f"{text} are free"
    facts = at.view.facts
    asked = [job.ref for job in spot.victims if save_time(job, facts.get(job.ref, NO_FACTS), at.view.policy) < inf]
    how = f" (weighed by one save, as they answered when told: {', '.join(asked)})" if asked else ""
    return f"{text} from {', '.join(job.ref for job in spot.victims)} for {at.cost(spot.victims):.0f} GPU-seconds{how}"


def _difference(here: Spot, winner: Spot, at: Ground, spec: ServiceSpec) -> str:
    """What decided between the two."""
    if here.key >> MISSED_SHIFT != winner.key >> MISSED_SHIFT:
        return "here it would be joined worse"
    mine, best = at.cost(here.victims), at.cost(winner.victims)
    if mine != best:
        return f"here it costs {mine - best:.0f} GPU-seconds more"
    if len(here.victims) != len(winner.victims):
        return "here more jobs have to go"
    rows = np.array([here.row, winner.row])
    found = at.found(Request.of(spec))
    again = at.again(rows, np.array([here.gpus, winner.gpus])).tolist()
    if again[0] != again[1]:
        return "here users would be hit again"
    if found.damage[here.row] != found.damage[winner.row]:
        return "here more whole islands would be broken"
    return (
        "here the links are weaker"
        if found.strength[here.row] != found.strength[winner.row]
        else "its name comes first"
    )
