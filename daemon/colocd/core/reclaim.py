"""Where a replica goes, and which batch jobs give up their GPUs for it: exact on each node, and why not elsewhere.

Judged by where the replica *will sit*, not by where the victims sit: see `search`.
"""

from collections.abc import Mapping

import msgspec

from coloc_topology.fit import FitTable
from coloc_topology.shape import Level, bits, mask_of
from colocd.core.ground import Ground
from colocd.core.index import PlannerIndex
from colocd.core.joint import Spot, pick
from colocd.core.service import ServiceSpec
from colocd.core.victims import eviction_cost, gpu_count, unsaved
from colocd.core.view import Node, View
from colocd.core.why import reasons

__all__ = ["Choice", "Ground", "choose", "eviction_cost", "gpu_count", "ground", "make_choice", "unsaved"]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs for one replica on one node, the victims that hold them now, and the GPU-seconds this costs.

    `waits`: nobody is evicted for it, but the GPUs come free only when another handover is through.
    """

    node: str
    gpus: int
    level: Level
    victims: tuple[str, ...]
    cost: float
    gpu_type: str | None
    waits: bool = False


def ground(view: View, index: PlannerIndex | None = None) -> Ground:
    """Sort a view's nodes and jobs into what a reclaim may use. GPUs of open handovers are leased and out of bounds.

    `index`: the planner's arrays from an earlier cycle, brought up to date here; None: they are built for this call.
    """
    index = PlannerIndex() if index is None else index
    index.update(view)
    return Ground(view, index)


def make_choice(spot: Spot, spec: ServiceSpec, at: Ground) -> Choice:
    """A spot in the words of the view."""
    node = at.index.nodes[spot.row]
    table = at.index.tables[int(at.index.shape[spot.row])]
    level = table.level_of(spot.gpus)
    return Choice(
        node=node.name,
        gpus=spot.gpus,
        level=level,
        victims=tuple(job.ref for job in spot.victims),
        cost=at.cost(spot.victims),
        gpu_type=_exact_type(node, table, spot.gpus, min(spec.level, level)),
        waits=spot.waits,
    )


def _exact_type(node: Node, table: FitTable, gpus: int, level: Level) -> str | None:
    """The gres type that holds these GPUs and of which any choice of Slurm's reaches the level; None: there is none."""
    if len(set(node.types)) < 2:
        return None
    name = node.types[bits(gpus)[0]]
    members = mask_of([i for i, t in enumerate(node.types) if t == name])
    worst = table.worst_level(members, gpus.bit_count())
    return name if name and gpus & ~members == 0 and worst is not None and worst >= level else None


def choose(spec: ServiceSpec, view: View, at: Ground, hits: Mapping[str, int]) -> tuple[Choice | None, dict[str, str]]:
    """Best choice for one replica over all nodes, and for every node without one the reason.

    `hits`: evictions already planned per user, beyond those that `at` knows of.
    """
    land = at.copy() if hits else at
    for user, count in hits.items():
        if user in land.index.users:
            land.hits[land.index.users[user]] += count
    spot = pick(land, spec)
    return (None if spot is None else make_choice(spot, spec, at)), reasons(spec, at)
