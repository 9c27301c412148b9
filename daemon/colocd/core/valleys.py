"""Valleys: what the services may need, and so must stay free; what is left over is the batch jobs' to use."""

from collections.abc import Mapping

import numpy as np

from colocd.core.arrays import Ints
from colocd.core.free_spots import best_free, without
from colocd.core.ground import Ground
from colocd.core.need import counted, need, reserve
from colocd.core.valley_groups import Domains, groups_of, rooms
from colocd.core.view import View


def kept_back(view: View, ground: Ground, until: float, placed: Mapping[str, int]) -> Ints:
    """GPU masks, one a node of the index, that the services may need within `until` seconds, placed as replicas would be.

    Replicas on several nodes and pairs keep whole places, near as they ask; parts that fit nowhere so are kept one by one.
    `placed`: replicas per service that this plan starts already; their GPUs are struck from `ground`.
    """
    free: Ints = np.where(ground.open & (ground.index.shape >= 0), ground.free_masks, 0)
    kept: Ints = np.zeros_like(free)
    left = {s.spec.name: reserve(s, view.policy, view.at, until) - placed.get(s.spec.name, 0) for s in view.services}
    got = dict.fromkeys(left, 0)
    alone: dict[str, set[int]] = {s.spec.name: set() for s in view.services if s.spec.spread}
    groups = groups_of(view.services)
    domains: Domains = {}
    grouped = {name for group in groups for name in group.names}
    for service in sorted(view.services, key=lambda s: (-s.spec.priority, s.spec.name not in grouped, s.spec.name)):
        spec = service.spec
        for group in groups if spec.name in grouped else ():
            if spec.name in group.names:
                for name, spots in rooms(group, left, ground, free, domains):
                    got[name] += 1
                    for row, gpus in spots:
                        free[row] &= ~gpus
                        kept[row] |= gpus
                        alone.get(name, set()).add(row)
        members = ground.index.partitions.get(spec.partition)
        if members is None:
            continue
        short = need(service, view.policy, view.at).now - len(counted(service)) - placed.get(spec.name, 0)
        many, short = left[spec.name] * spec.nodes, (short - got[spec.name]) * spec.nodes
        nth = 0
        # A replica that is short now and fits nowhere keeps the largest part of an island that is free: it grows.
        for size in range(spec.gpus_per_replica, 0, -1):
            rest = without(members, alone.get(spec.name, ()))
            for row, gpus in best_free(spec, size, ground, free, rest) if nth < many else ():
                free[row] &= ~gpus
                kept[row] |= gpus
                alone.get(spec.name, set()).add(row)
                nth += 1
                if nth >= (many if size == spec.gpus_per_replica else min(many, short)):
                    break
            if nth >= min(many, short):
                break
    return kept
