"""Which URLs of a service are read: one per replica, or one for the whole service. Pure."""

from collections.abc import Iterable, Mapping

from colocd.core.service import ServiceSpec
from colocd.core.view import Replica, ReplicaState
from colocd.telemetry.scrape import Target

Key = tuple[str, int | None]
"""Service and slot; slot None: the service as a whole."""

_READ = (ReplicaState.STARTING, ReplicaState.READY, ReplicaState.DRAINING)


def per_replica(url: str) -> bool:
    """Tell whether a URL differs between replicas (it has a placeholder)."""
    return "{" in url


def fill_url(url: str, spec: ServiceSpec, replica: Replica, address: str) -> str:
    """Put a replica's values into a URL. `address` is Slurm's NodeAddr; an IPv6 one gets its brackets."""
    return fill_address(url, spec, replica.slot, replica.node or "", address)


def fill_address(url: str, spec: ServiceSpec, slot: int, node: str, address: str) -> str:
    """See `fill_url`."""
    host = f"[{address}]" if ":" in address and not address.startswith("[") else address
    return url.format(address=host, node=node, port=spec.port_base + slot, slot=slot)


def load_targets(spec: ServiceSpec, replicas: Iterable[Replica], addresses: Mapping[str, str]) -> tuple[Target, ...]:
    """List what to scrape for a service's load. `addresses`: NodeAddr by node name. Replicas without a node are left out."""
    if not spec.load.url:
        return ()
    if not per_replica(spec.load.url):
        return (Target((spec.name, None), spec.load.url, spec.load.server, spec.load.series),)
    return tuple(
        Target((spec.name, replica.slot), url, spec.load.server, spec.load.series)
        for replica, url in _urls(spec.load.url, spec, replicas, addresses, _READ)
    )


def ready_urls(spec: ServiceSpec, replicas: Iterable[Replica], addresses: Mapping[str, str]) -> dict[Key, str]:
    """List the ready URLs of replicas that start: one that is ready is not asked again. Empty without a ready check."""
    if spec.ready.url is None:
        return {}
    starting = (ReplicaState.STARTING,)
    return {
        (spec.name, replica.slot): url for replica, url in _urls(spec.ready.url, spec, replicas, addresses, starting)
    }


def _urls(
    url: str,
    spec: ServiceSpec,
    replicas: Iterable[Replica],
    addresses: Mapping[str, str],
    states: tuple[ReplicaState, ...],
) -> Iterable[tuple[Replica, str]]:
    for replica in replicas:
        address = addresses.get(replica.node) if replica.node is not None else None
        if replica.service == spec.name and replica.state in states and address:
            yield replica, fill_url(url, spec, replica, address)
