"""Legal values of a service file that are hardly meant."""

import pwd
from collections.abc import Callable, Iterable

from colocd.core.service import Measure, ServiceSpec


def odd(spec: ServiceSpec, url_placeholders: Callable[[str], set[str]]) -> Iterable[str]:
    """One sentence for each."""
    try:
        pwd.getpwnam(spec.user)
    except KeyError:
        yield f"user {spec.user!r} is not known on this host"
    load = url_placeholders(spec.load.url)
    ready = url_placeholders(spec.ready.url) if spec.ready.url is not None else set()
    for key, names in (("load.url", load), ("ready.url", ready)):
        if spec.max_replicas > 1 and names & {"address", "node"} and not names & {"port", "slot"}:
            yield f"{key} has neither {{port}} nor {{slot}}: two replicas on one node would be read at the same place"
    if spec.ready.url is not None and not ready:
        yield "ready.url names no replica ({address}, {port}): all replicas become ready together"
    if spec.ready.url is None:
        yield "ready.url is not set: a replica counts as ready as soon as its job runs"
    if "port" in load | ready and "COLOC_PORT" not in spec.script:
        yield "the URLs use {port}, but the script never mentions COLOC_PORT"
    if spec.load.measure is Measure.BUSY:
        yield "load.measure busy_gpus tells work from none, not much from little; metrics of the server are far better"
    if spec.port_base < 1024:
        yield "port_base is below 1024: an ordinary user's server cannot listen there"
    if spec.lead_time > spec.ready.timeout:
        yield "lead_time is longer than ready.timeout: replicas would be given up before they can be ready"
    if spec.min_replicas == 0 and load:
        yield "min_replicas is 0 and load is read from the replicas: with none running the load is unknown"
    if spec.capacity.target_use > 0.95:
        yield "capacity.target_use is above 0.95: there is hardly any room for bursts"
