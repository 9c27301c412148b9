"""Valleys: what the services may need, and so must stay free; what is left over is the batch jobs' to use."""

from collections.abc import Mapping

from coloc_topology.fit import fit_table
from colocd.core.ground import Ground
from colocd.core.need import counted, need, reserve
from colocd.core.service import Mode, ServiceSpec
from colocd.core.view import View


def kept_back(view: View, ground: Ground, until: float, placed: Mapping[str, int]) -> dict[str, int]:
    """GPU masks per node that the services may need within `until` seconds, placed as replicas would be.

    `placed`: replicas per service that this plan starts already; their GPUs are struck from `ground`.
    """
    free = dict(ground.free)
    kept: dict[str, int] = {}
    for service in sorted(view.services, key=lambda s: (-s.spec.priority, s.spec.name)):
        spec = service.spec
        short = need(service, view.policy, view.at).now - len(counted(service)) - placed.get(spec.name, 0)
        for nth in range(reserve(service, view.policy, view.at, until) - placed.get(spec.name, 0)):
            # A replica that is short now and fits nowhere keeps the largest part of an island that is free: it grows.
            sizes = range(spec.gpus_per_replica, 0, -1) if nth < short else (spec.gpus_per_replica,)
            best = next((b for size in sizes if (b := _best_free(spec, size, view, ground, free)) is not None), None)
            if best is None:
                break
            free[best[0]] &= ~best[1]
            kept[best[0]] = kept.get(best[0], 0) | best[1]
    return kept


def _best_free(
    spec: ServiceSpec, count: int, view: View, ground: Ground, free: Mapping[str, int]
) -> tuple[str, int] | None:
    """Node and mask of the best `count` free GPUs for a replica, on the fullest node so that whole nodes stay whole."""
    best: tuple[tuple[int, int, int], str, int] | None = None
    for node in view.nodes:
        if node.name in ground.closed or node.shape is None or spec.partition not in node.partitions:
            continue
        fit = fit_table(view.shapes[node.shape]).best(free[node.name], count)
        if fit is None or (spec.mode is Mode.GUARANTEED and fit.level < spec.level):
            continue
        rank = (-min(fit.level, spec.level), free[node.name].bit_count(), -fit.strength)
        if best is None or (rank, node.name) < (best[0], best[1]):
            best = (rank, node.name, fit.gpus)
    return None if best is None else (best[1], best[2])
