"""What joins nodes, drawn: blocks, leaf switches and NVLink domains, with who sits on their nodes. Only text, no printing."""

from collections.abc import Sequence

from coloc_cli.topo_live import NodeUse, marks
from coloc_topology.hostlist import fold
from colocd.core.view import Node

KINDS = ("block", "leaf", "NVLink domain")
"""From the widest to the nearest."""


def domains_of(node: Node) -> tuple[str | None, str | None, str | None]:
    """The node's block, leaf switch and NVLink domain; None: none, or not known."""
    return node.block, node.leaf, node.nvlink_domain


def above(node: Node, nodes: Sequence[Node]) -> str | None:
    """One phrase: the domains that the node is in, nearest first, with all their nodes; None: none is known."""
    parts = []
    for kind, (at, name) in reversed(list(zip(KINDS, enumerate(domains_of(node)), strict=True))):
        if name is not None:
            parts.append(f"{kind} {name} ({fold(n.name for n in nodes if domains_of(n)[at] == name)})")
    return ", ".join(parts) or None


def tree(uses: Sequence[NodeUse]) -> list[str]:
    """Lines: the domains within each other, each with its free GPUs; below them their nodes. Empty: no domain is known.

    Nodes of one domain that look the same share a line.
    """
    told = [k for k in range(len(KINDS)) if any(domains_of(use.node)[k] is not None for use in uses)]
    return _level(uses, told, 0) if told else []


def _level(uses: Sequence[NodeUse], kinds: Sequence[int], depth: int) -> list[str]:
    indent = "  " * depth
    if not kinds:
        return [f"{indent}{line}" for line in _nodes(uses)]
    groups: dict[str | None, list[NodeUse]] = {}
    for use in uses:
        groups.setdefault(domains_of(use.node)[kinds[0]], []).append(use)
    lines = []
    for name in sorted(groups, key=lambda name: (name is None, name or "")):
        if name is None and len(groups) == 1:
            return _level(uses, kinds[1:], depth)
        here = groups[name]
        head = f"in no known {KINDS[kinds[0]]}" if name is None else f"{KINDS[kinds[0]]} {name}"
        lines += [f"{indent}{head}: {_count(here)}", *_level(here, kinds[1:], depth + 1)]
    return lines


def _count(uses: Sequence[NodeUse]) -> str:
    free = sum(use.node.free.bit_count() for use in uses if use.node.up)
    nodes = "1 node" if len(uses) == 1 else f"{len(uses)} nodes"
    return f"{nodes}, {free} of {sum(use.node.gpus for use in uses)} GPUs free"


def _nodes(uses: Sequence[NodeUse]) -> list[str]:
    same: dict[tuple[str, str], list[str]] = {}
    for use in uses:
        replicas = ", ".join(dict.fromkeys(seat.replica for seat in use.seats if seat.replica is not None))
        same.setdefault((marks(use), replicas), []).append(use.node.name)
    rows = [(fold(names), look, replicas) for (look, replicas), names in same.items()]
    wide = max(len(names) for names, _, _ in rows)
    return [f"{names:<{wide}}  {look}  {replicas}".rstrip() for names, look, replicas in rows]
