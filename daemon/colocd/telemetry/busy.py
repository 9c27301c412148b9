"""Load of a service that tells no metrics: how busy the GPUs of its replicas are. Pure.

A weak measure (docs/agent.md): a GPU is busy while any kernel runs on it, so it tells work from none, not much from little.
"""

import math
from collections.abc import Iterable, Mapping

from coloc_topology.shape import bits
from colocd.core.readings import NodeReadings
from colocd.core.service import ServiceSpec
from colocd.core.view import Reading, Replica, ReplicaState
from colocd.telemetry.load import ServiceLoad, not_ready, silences


def busy_load(spec: ServiceSpec, replicas: Iterable[Replica], nodes: Mapping[str, NodeReadings]) -> ServiceLoad:
    """Busy GPUs of the replicas that are ready or drain: 4 GPUs at 50 % are 2. `nodes`: fresh readings by node.

    Unknown when one of them is not told, or none is ready, as with any other load.
    """
    mine = [replica for replica in replicas if replica.service == spec.name]
    values: dict[int, float | None] = {}
    times: list[float] = []
    silent: list[int] = []
    missing = not any(replica.state is ReplicaState.READY for replica in mine)
    problems = [not_ready(spec.name)] if missing else []
    for replica in mine:
        reads = [(nodes.get(name), gpus) for name, gpus in replica.places.items()]
        shares = [
            read.sm[gpu] if read is not None and gpu < len(read.sm) else None
            for read, gpus in reads
            for gpu in bits(gpus)
        ]
        value: float | None = None
        if replica.state in (ReplicaState.READY, ReplicaState.DRAINING) and shares and None not in shares:
            value = math.fsum(share for share in shares if share is not None) / 100
            times += [read.at for read, _ in reads if read is not None]
        elif replica.state is ReplicaState.READY:
            missing = True
            silent.append(replica.slot)
        values[replica.slot] = value
    if silent:
        problems += silences(spec.name, {"there is no fresh reading of its GPUs": silent})
    known = [value for value in values.values() if value is not None]
    return ServiceLoad(None if missing else Reading(math.fsum(known), min(times)), values, tuple(problems))
