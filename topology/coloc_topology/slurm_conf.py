"""The one thing of slurm.conf that the GPU indices depend on: the order of the GPU types of a node."""

import re

from coloc_topology.conf import read_lines
from coloc_topology.hostlist import expand

_GPU = re.compile(r"gpu(?::([^:(]+))?(?::[0-9]+[KMG]?)?(?:\(.*\))?", re.IGNORECASE)


def gpu_types(text: str) -> dict[str, tuple[str, ...]]:
    """GPU types of each node in the order of its `Gres=`; "" is untyped. Nodes in included files are not in it.

    `NodeName=DEFAULT` counts for the lines below it. Raises `TopologyError` with line and column.
    """
    found: dict[str, tuple[str, ...]] = {}
    default: tuple[str, ...] = ()
    for line in read_lines(text, skip_includes=True):
        names = line.values.get("nodename")
        if names is None:
            continue
        gres = line.text("gres")
        types = default if gres is None else _types(gres)
        if names.text.upper() == "DEFAULT":
            default = types
        else:
            found.update(dict.fromkeys(expand(*names), types))
    return found


def _types(gres: str) -> tuple[str, ...]:
    types: list[str] = []
    for item in re.split(r",(?![^(]*\))", gres):
        gpu = _GPU.fullmatch(item)
        if gpu is not None:
            name = gpu[1] or ""
            types.append("" if name.isdigit() else name)
    return tuple(types)
