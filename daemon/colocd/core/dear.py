"""How dear the jobs on each GPU will be to evict: what decides beside whom a batch job is put.

Cheap and dear jobs in one island make it dear; apart, the cheap island can be taken. Classes (`victims.dearness`) are coarse, so
that jobs that are about as dear count as equal.
"""

import numpy as np
from numpy.typing import NDArray

from colocd.core.arrays import Ints
from colocd.core.index import PlannerIndex
from colocd.core.victims import NEVER_AGAIN
from colocd.core.view import ReplicaState, View

Classes = NDArray[np.int8]


def residents(view: View, index: PlannerIndex) -> Classes:
    """Class of the job on each GPU, one row a node; 0: it is free, or a replica's. Nodes without a topology stay 0."""
    width = max((table.shape.gpus for table in index.tables), default=1)
    classes: Classes = np.zeros((len(index.nodes), width), dtype=np.int8)
    everything = np.array([*(table.shape.all for table in index.tables), 0], dtype=np.int64)[index.shape]
    others: Ints = everything & ~index.free
    for service in view.services:
        for replica in service.replicas:
            if replica.state is not ReplicaState.GONE:
                for name, gpus in replica.places.items():
                    if name in index.row:
                        others[index.row[name]] &= ~gpus
    bit = np.arange(width)
    for mask, holder in zip(index.holder_mask.T, index.holder_job.T, strict=True):
        others &= ~mask
        if mask.any():
            held = (mask[:, None] >> bit & 1) != 0
            np.copyto(classes, index.dear[holder][:, None], where=held & (everything != 0)[:, None])
    np.copyto(classes, np.int8(NEVER_AGAIN), where=(others[:, None] >> bit & 1) != 0)
    return classes
