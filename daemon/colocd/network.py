"""What joins nodes: NVLink domains from NVML dumps, leaf switches and blocks from Slurm's topology files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from coloc_topology.domains import Domains, read_topology_conf
from coloc_topology.errors import TopologyError
from coloc_topology.topology_yaml import read_topology_yaml

YAML, CONF = "topology.yaml", "topology.conf"


class NodeDomains(NamedTuple):
    """Names of the domains that a node is in, nearest first; None: not told (or there is none)."""

    nvlink: str | None = None
    leaf: str | None = None
    block: str | None = None


NOWHERE = NodeDomains()


def load_domains(
    slurm_conf: str, nodes: Iterable[str], nvlink: Mapping[str, str], problems: list[str], show_topo: str | None = None
) -> dict[str, NodeDomains]:
    """The domains of the nodes: topology.yaml or topology.conf beside slurm.conf, else `scontrol show topology`'s output.

    A file that cannot be read is told in `problems` and then tells nothing. Nodes in no domain are left out.
    """
    network = _network(Path(slurm_conf), problems, show_topo)
    below: dict[str, dict[str, str]] = {"switch": {}, "block": {}}
    for domain in (domain for domains in network for domain in domains.all if domain.level == 0):
        for node in domain.nodes:
            below[domain.kind].setdefault(node, domain.name)
    places = {
        node: NodeDomains(nvlink.get(node), below["switch"].get(node), below["block"].get(node)) for node in nodes
    }
    return {node: place for node, place in places.items() if any(place)}


def _network(slurm_conf: Path, problems: list[str], show_topo: str | None) -> tuple[Domains, ...]:
    what = YAML
    try:
        text = _read(slurm_conf.with_name(YAML))
        if text is not None:
            return tuple(read_topology_yaml(text).values())
        what, text = CONF, _read(slurm_conf.with_name(CONF))
        if text is None:
            what, text = "scontrol show topology", show_topo
        return () if text is None else (read_topology_conf(text),)
    except TopologyError as error:
        problems.append(f"switches and blocks are unknown: {what}, {error}")
    except OSError as error:
        problems.append(f"switches and blocks are unknown: {what} {error.strerror or 'cannot be read'}")
    return ()


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return None
