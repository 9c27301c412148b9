"""Slurm's topology.yaml (25.05 and later): several named topologies, each a tree, blocks, or flat."""

from collections.abc import Iterator

from coloc_topology.conf import Value
from coloc_topology.domains import Domains, Given, block_groups, block_sizes, tree
from coloc_topology.errors import TopologyError
from coloc_topology.hostlist import expand
from coloc_topology.yaml_subset import Item, read_yaml


def read_topology_yaml(text: str) -> dict[str, Domains]:
    """Domains by name of the topology, in the file's order. Raises `TopologyError` with line and column."""
    found: dict[str, Domains] = {}
    document = read_yaml(text)
    for entry in _list(document, "topology.yaml is not a list of topologies"):
        name = _word(entry, "topology")
        if name.text in found:
            raise TopologyError(f"a second topology {name.text}", name.line, name.column)
        found[name.text] = _domains(entry)
    return found


def _domains(entry: Item) -> Domains:
    as_tree, as_block = _get(entry, "tree"), _get(entry, "block")
    if as_tree is not None:
        return Domains(tree(list(_given(as_tree, "switches", "switch"))))
    if as_block is not None:
        sizes = _get(as_block, "block_sizes")
        words = [] if sizes is None else [str(size.value) for size in _list(sizes, "block_sizes is not a list")]
        numbers = (
            block_sizes(
                Value(
                    ",".join(words), entry.line if sizes is None else sizes.line, 1 if sizes is None else sizes.column
                )
            )
            if words
            else ()
        )
        return Domains(block_groups(list(_given(as_block, "blocks", "block")), numbers))
    if _get(entry, "flat") is not None:
        return Domains()
    raise TopologyError("this topology is neither tree nor block nor flat", entry.line, entry.column)


def _given(parent: Item, key: str, kind: str) -> Iterator[Given]:
    members = _get(parent, key)
    for member in _list(parent if members is None else members, f"{key} is not a list"):
        name = _word(member, kind)
        nodes, children = _names(member, "nodes"), _names(member, "children")
        if not nodes and not children:
            raise TopologyError(f"{kind} {name.text} has neither nodes nor anything below it", name.line, name.column)
        yield Given(name.text, frozenset(nodes), children, name.line, name.column)


def _get(item: Item, key: str) -> Item | None:
    return item.value.get(key) if isinstance(item.value, dict) else None


def _list(item: Item, complaint: str) -> list[Item]:
    if not isinstance(item.value, list):
        raise TopologyError(complaint, item.line, item.column)
    return item.value


def _word(item: Item, key: str) -> Value:
    found = _get(item, key)
    if found is None or not isinstance(found.value, str):
        raise TopologyError(f"an entry here has no name ({key})", item.line, item.column)
    return Value(found.value, found.line, found.column)


def _names(item: Item, key: str) -> tuple[str, ...]:
    found = _get(item, key)
    if found is None or found.value is None:
        return ()
    words = found.value if isinstance(found.value, list) else [found]
    names: list[str] = []
    for word in words:
        if not isinstance(word.value, str):
            raise TopologyError(f"{key} is no host list", word.line, word.column)
        names.extend(expand(word.value, word.line, word.column))
    return tuple(names)
