"""What is compared with the plan: before the victims are told, and after Slurm has given the GPUs."""

from collections.abc import Mapping
from typing import NamedTuple

from coloc_topology.shape import Level
from colocd.act import placing
from colocd.act.tools import Tools
from colocd.core.places import domain_of
from colocd.core.seats import gpus_words, words
from colocd.core.service import Closeness, Mode, ServiceSpec
from colocd.core.victims import cpus_per_node
from colocd.core.view import Job, Node
from colocd.store.records import Handover


def plan_broken(
    places: Mapping[str, int], nodes: Mapping[str, Node], jobs: Mapping[str, Job], cpus: Mapping[str, int]
) -> str | None:
    """Why the plan does not hold any more now that the fence stands; None: it does.

    `jobs`: the victims; `cpus`: what the replica needs, by node.
    """
    for name, node in nodes.items():
        if not node.up:
            return f"node {name} is {node.state}"
        if node.used is None:
            return f"the GPUs in use on {name} cannot be read"
        theirs = 0
        for job in jobs.values():
            if job.gpus is None:
                return f"the GPUs of job {job.ref} cannot be read"
            theirs |= job.gpus.get(name, 0)
        taken = node.used & places[name] & ~theirs
        freed = sum(cpus_per_node(job) for job in jobs.values() if name in (job.gpus or {}))
        if (
            node.cpus is not None
            and node.cpus_used is not None
            and node.cpus - node.cpus_used + freed < cpus.get(name, 0)
        ):
            return f"only {node.cpus - node.cpus_used + freed} CPUs of {name} are free or come free, and {cpus[name]} are needed"
        if taken:
            return f"{gpus_words(taken)} of {name} were taken before the fence stood"
    return None


def broken(tools: Tools, places: Mapping[str, int]) -> dict[str, int]:
    """Those of the GPUs that have failed, by node; empty: none."""
    return {name: mask & tools.failed(name) for name, mask in places.items() if mask & tools.failed(name)}


class Given(NamedTuple):
    """What a replica got: the worst link level of its nodes, what joins them (None: one node), and what is wrong with that.

    `hopeless`: another try on the same nodes would end the same way.
    """

    level: Level
    closeness: Closeness | None
    wrong: str | None
    hopeless: bool = False


def given(tools: Tools, h: Handover, spec: ServiceSpec) -> Given | None:
    """Judge what Slurm gave (`h.got`, all nodes); None: the topology of a node is not known any more."""
    got = h.got or {}
    tables = {name: tools.table(name) for name in got}
    levels = [table.level_of(got[name]) for name, table in tables.items() if table is not None]
    if len(levels) < len(got) or not levels:
        return None
    level, near = min(levels), joined(tools, [*got, *h.data.get("beside", ())])
    firm = spec.mode is Mode.GUARANTEED
    if set(got) != set(h.places):
        return Given(level, near, f"{words(got)} instead of {words(h.places)}")
    if any(mask.bit_count() != spec.gpus_per_replica for mask in got.values()):
        # Slurm gives what is asked: somebody has changed the job.
        return Given(level, near, f"{words(got)} instead of {words(h.places)}", True)
    if hurt := broken(tools, got):
        return Given(level, near, f"{words(hurt)}, which have failed, instead of {words(h.places)}")
    if level < placing.required(h, spec) and firm:
        return Given(level, near, f"{words(got)} ({level.name}) instead of {words(h.places)}")
    asked = _asked(h, spec)
    if near is not None and firm and asked is not None and not _reaches(near, asked):
        return Given(level, near, f"nodes that are joined by {near.value} only, and {asked.value} is asked for", True)
    return Given(level, near, None)


def joined(tools: Tools, nodes: list[str]) -> Closeness | None:
    """The nearest domain that holds all these nodes, as the last view had them; None: it is one node."""
    if len(set(nodes)) < 2:
        return None
    seen = [tools.network(name) for name in nodes]
    for closeness in Closeness:
        names = {None if node is None else domain_of(node, closeness) for node in seen}
        if len(names) == 1 and None not in names:
            return closeness
    return Closeness.ANY


def _asked(h: Handover, spec: ServiceSpec) -> Closeness | None:
    """The least closeness that is right; None: any."""
    if h.data.get("beside"):
        return Closeness.LEAF
    return spec.closeness if len(h.places) > 1 else None


def _reaches(near: Closeness, asked: Closeness) -> bool:
    order = list(Closeness)
    return order.index(near) <= order.index(asked)
