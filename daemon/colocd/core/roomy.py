"""Places with enough CPUs: jobs without GPUs may fill the CPUs of a node whose GPUs are to be had.

Evicting jobs for a replica that cannot start for want of CPUs would hurt them for nothing.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from colocd.core.ground import Ground
from colocd.core.together import Joint, Want, place_all
from colocd.core.victims import cpus_per_node

ROUNDS = 12
"""Plans made anew without the nodes that turned out to have too few CPUs, before only nodes with free ones are looked at."""


def place_roomy(land: Ground, wants: Sequence[Want]) -> Joint:
    """`place_all`, such that each node's free CPUs and those of its victims carry the replicas put there."""
    joint = place_all(land, wants)
    for _ in range(ROUNDS):
        short = list(_short(land, wants, joint))
        if not short:
            return joint
        for name, row in short:
            land.cramped.setdefault(name, set()).add(row)
        joint = place_all(land, wants)
    for want in wants:
        rows = np.flatnonzero(land.index.cpus < want.spec.cpus_per_replica * want.many)
        land.cramped.setdefault(want.spec.name, set()).update(rows.tolist())
    return place_all(land, wants)


def _short(land: Ground, wants: Sequence[Want], joint: Joint) -> Iterator[tuple[str, int]]:
    """Services and node rows of replicas for which the CPUs are not enough."""
    left: dict[int, int] = {}
    seen: set[tuple[int, str]] = set()
    for spots in joint.spots:
        for spot in spots:
            for job in spot.victims:
                for name in job.gpus or ():
                    row = land.index.row.get(name)
                    if row is not None and (row, job.ref) not in seen:
                        seen.add((row, job.ref))
                        left[row] = left.get(row, int(land.index.cpus[row])) + cpus_per_node(job)
    for want, spots in zip(wants, joint.spots, strict=True):
        for spot in spots:
            if spot.waits:
                continue  # it starts when another handover is through, and the view is another one
            left[spot.row] = left.get(spot.row, int(land.index.cpus[spot.row])) - want.spec.cpus_per_replica
            if left[spot.row] < 0:
                yield want.spec.name, spot.row
