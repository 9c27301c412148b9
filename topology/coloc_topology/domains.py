"""What joins nodes: switches and blocks of Slurm's topology.conf and of `scontrol show topology`."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from coloc_topology.conf import Line, Value, read_lines
from coloc_topology.errors import TopologyError
from coloc_topology.hostlist import expand, fold


class Domain(NamedTuple):
    """A switch or a block with all nodes below it. `level` 0 has nodes itself; the others join domains below them."""

    kind: str
    name: str
    level: int
    nodes: frozenset[str]


class Domains:
    """The domains of one cluster; none at all for a flat network."""

    def __init__(self, domains: Iterable[Domain] = ()) -> None:
        self.all = tuple(sorted(domains, key=lambda domain: (domain.level, len(domain.nodes), domain.name)))

    def of(self, node: str) -> tuple[Domain, ...]:
        """The domains that hold a node, smallest first; empty: none does."""
        return tuple(domain for domain in self.all if node in domain.nodes)

    def common(self, nodes: Iterable[str]) -> Domain | None:
        """The smallest domain that holds all these nodes; None: nothing is known to join them."""
        wanted = set(nodes)
        return next((domain for domain in self.all if wanted <= domain.nodes), None)


class Given(NamedTuple):
    """A switch or block as a file gives it, before it is put together. `children` are names of switches or blocks."""

    name: str
    nodes: frozenset[str]
    children: tuple[str, ...]
    line: int
    column: int


def read_topology_conf(text: str) -> Domains:
    """Read topology.conf (tree or block) or the output of `scontrol show topology`.

    Raises `TopologyError` with line and column.
    """
    switches: list[Given] = []
    blocks: list[Given] = []
    ready: list[Domain] = []
    sizes: tuple[int, ...] = ()
    for line in read_lines(text):
        if "switchname" in line.values:
            switches.append(_given(line, "switchname", "switches"))
        elif "blockname" in line.values:
            blocks.append(_given(line, "blockname", ""))
        elif "aggregatedblock" in line.values:
            group = _given(line, "aggregatedblock", "")
            ready.append(Domain("block", group.name, 1, group.nodes))
        elif "blocksizes" in line.values:
            sizes = block_sizes(line.values["blocksizes"])
    return Domains([*tree(switches), *block_groups(blocks, sizes), *ready])


def _given(line: Line, key: str, below: str) -> Given:
    nodes, children = line.values.get("nodes"), line.values.get(below)
    if nodes is None and children is None:
        name = line.values[key]
        raise TopologyError(f"{name.text[:60]} has neither nodes nor anything below it", name.line, name.column)
    return Given(
        line.values[key].text,
        frozenset(() if nodes is None else expand(*nodes)),
        () if children is None else expand(*children),
        line.values[key].line,
        line.values[key].column,
    )


def block_sizes(value: Value) -> tuple[int, ...]:
    """The numbers of nodes of `BlockSizes=8,16`, ascending; raises `TopologyError` if they are no such list."""
    parts = value.text.split(",")
    sizes = sorted({int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 8})
    if not sizes or len(parts) != len(sizes) or any(size < 1 or size % sizes[0] for size in sizes):
        reason = f"BlockSizes={value.text[:60]} is no list of multiples of its smallest"
        raise TopologyError(reason, value.line, value.column)
    return tuple(sizes)


def tree(switches: Sequence[Given]) -> list[Domain]:
    """Switches with their levels and all nodes below them; raises `TopologyError` for a missing child or a circle."""
    known: dict[str, Given] = {}
    for switch in switches:
        if switch.name in known:
            raise TopologyError(
                f"switch {switch.name} is also in line {known[switch.name].line}", switch.line, switch.column
            )
        known[switch.name] = switch
    for switch in switches:
        missing = next((child for child in switch.children if child not in known), None)
        if missing is not None:
            reason = f"switch {switch.name} joins {missing}, which is not described"
            raise TopologyError(reason, switch.line, switch.column)
    done: dict[str, Domain] = {}
    left = list(switches)
    while left:
        ready = [switch for switch in left if all(child in done for child in switch.children)]
        if not ready:
            raise TopologyError(f"switch {left[0].name} is below itself", left[0].line, left[0].column)
        for switch in ready:
            below = [done[child] for child in switch.children]
            nodes = switch.nodes.union(*(child.nodes for child in below))
            level = 1 + max((child.level for child in below), default=-1)
            done[switch.name] = Domain("switch", switch.name, level, nodes)
        left = [switch for switch in left if switch.name not in done]
    return list(done.values())


def block_groups(blocks: Sequence[Given], sizes: Sequence[int]) -> list[Domain]:
    """Blocks, and the groups of consecutive blocks that Slurm joins at each further size; incomplete groups are left out."""
    found = [Domain("block", block.name, 0, block.nodes) for block in blocks]
    for level, size in enumerate(sizes[1:], start=1):
        many = size // sizes[0]
        for start in range(0, len(blocks) - many + 1, many):
            group = blocks[start : start + many]
            name = fold(block.name for block in group)
            found.append(Domain("block", name, level, frozenset().union(*(block.nodes for block in group))))
    return found
