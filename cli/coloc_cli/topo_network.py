"""`coloc topo show` of what joins nodes: topology.conf, topology.yaml, or an output of `scontrol show topology`."""

from typing import Any

from coloc_cli import topo_files
from coloc_topology.domains import Domain, Domains, read_topology_conf
from coloc_topology.errors import TopologyError
from coloc_topology.hostlist import fold
from coloc_topology.source import NETWORK
from coloc_topology.topology_yaml import read_topology_yaml
from colocd.errors import BadFile

HINT = "correct the line named above; colocd itself leaves switches and blocks unknown until then"


def is_network(kind: str) -> bool:
    """Whether a file of this kind tells of switches and blocks, and not of a server."""
    return kind in NETWORK


def read(path: str, text: str, kind: str) -> tuple[dict[str, Any], list[str]]:
    """The document and the picture of a file; raises `BadFile` with line and column."""
    try:
        named = read_topology_yaml(text) if kind == "topology.yaml" else {"": read_topology_conf(text)}
    except TopologyError as error:
        raise BadFile(f"{path}, {error}", HINT) from None
    document = {
        "file": path,
        "kind": kind,
        "topologies": [{"name": name or None, "domains": _listed(domains)} for name, domains in named.items()],
    }
    lines = [f"{path}: {kind}"]
    for name, domains in named.items():
        if name:
            lines.append(f"  topology {name}{'' if domains.all else ': flat, no switches and no blocks'}")
        lines += [f"  {line}" for line in _drawn(domains)]
        if not domains.all and not name:
            lines.append("  no switches and no blocks")
    return document, lines


def _listed(domains: Domains) -> list[dict[str, Any]]:
    return [{**domain._asdict(), "nodes": sorted(domain.nodes)} for domain in domains.all]


def _drawn(domains: Domains) -> list[str]:
    """One line for each domain, widest first, those of one level indented alike."""
    if not domains.all:
        return []
    top = domains.all[-1].level
    ordered = sorted(domains.all, key=lambda domain: -domain.level)
    heads = [f"{'  ' * (top - domain.level)}{domain.kind} {domain.name}" for domain in ordered]
    wide = max(map(len, heads))
    return [f"{head:<{wide}}  {_nodes(domain)}" for head, domain in zip(heads, ordered, strict=True)]


def _nodes(domain: Domain) -> str:
    count = "1 node" if len(domain.nodes) == 1 else f"{len(domain.nodes)} nodes"
    return f"{count}: {fold(domain.nodes)}"


def refuse(path: str, kind: str) -> None:
    """Raise `BadFile` for a file that tells of the network where facts of a server are asked for."""
    if is_network(kind):
        raise BadFile(f"{path} tells of switches and blocks, not of a server's GPUs", topo_files.HINT)
