"""Where a service's next replica could start: the nodes that may run it, and what each costs at least."""

import numpy as np

from colocd.core.arrays import Bools, Ints
from colocd.core.ground import Ground
from colocd.core.search import NEVER, Request
from colocd.core.service import ServiceSpec


def allowed(land: Ground, spec: ServiceSpec) -> Bools:
    """Nodes that may run the service at all: in its partition, known topology, CPUs to be had, no replica if they spread."""
    members = land.index.partitions.get(spec.partition)
    known: Bools = land.index.shape >= 0
    able = known & members if members is not None else np.zeros_like(known)
    able = able & (land.cpu_reach >= spec.cpus_per_replica)
    if land.cramped.get(spec.name):
        able[sorted(land.cramped[spec.name])] = False
    if spec.spread and land.hosts.get(spec.name):
        able[sorted(land.hosts[spec.name])] = False
    return able


def open_keys(
    land: Ground, spec: ServiceSpec, enough: int | None = None, below: int = NEVER, able: Bools | None = None
) -> Ints:
    """Per node the least key of a replica that starts there now; `NEVER` where none can.

    `enough`: so many of the cheapest nodes must be exact, the others may be bounds from below; None: all are exact.
    `below`: keys from here on need not be exact. `able`: what `allowed` says, where that is known.
    """
    members = land.open & (allowed(land, spec) if able is None else able)
    return land.keys(Request.of(spec), members, len(members) if enough is None else enough, below)
