"""What Slurm believes of its nodes: GPUs by type and the number of cores, from slurm.conf or from `scontrol -o show node`."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from coloc_topology.conf import read_lines
from coloc_topology.hostlist import expand

_GPU = re.compile(r"gpu(?::([^:(]*[^:(0-9][^:(]*))?(?::([0-9]{1,6}))?(?:\(.*\))?", re.IGNORECASE)
_RELEASE = re.compile(r"([0-9]{2})\.([0-9]{2})")


class SlurmNode(NamedTuple):
    """One node: `(type, GPUs)` in the order of `Gres=` ("" untyped), sockets, cores a socket, threads a core; None: not told."""

    types: tuple[tuple[str, int], ...] = ()
    sockets: int | None = None
    cores: int | None = None
    threads: int | None = None

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        return sum(count for _, count in self.types)

    @property
    def all_cores(self) -> int | None:
        """Cores of the node; None: not told."""
        return None if self.sockets is None or self.cores is None else self.sockets * self.cores


def release_of(text: str) -> tuple[int, int] | None:
    """The release in a text as (24, 5); None: there is none."""
    found = _RELEASE.search(text)
    return None if found is None else (int(found[1]), int(found[2]))


def config_release(text: str) -> tuple[int, int] | None:
    """The release in the output of `scontrol show config`; None: not in it."""
    found = re.search(r"^SLURM_VERSION\s*=\s*(\S+)", text, re.MULTILINE)
    return None if found is None else release_of(found[1])


def read_scontrol_nodes(text: str) -> dict[str, SlurmNode]:
    """Nodes of `scontrol -o show node`."""
    nodes: dict[str, SlurmNode] = {}
    for line in text.splitlines():
        name = re.match(r"NodeName=(\S+)", line)
        if name is not None:
            nodes[name[1]] = _node(partial(_field, line))
    return nodes


def read_conf_nodes(text: str) -> dict[str, SlurmNode]:
    """Nodes of slurm.conf, `NodeName=DEFAULT` applied; included files are not followed. Raises `TopologyError` with line."""
    nodes: dict[str, SlurmNode] = {}
    default: dict[str, str] = {}
    for line in read_lines(text, skip_includes=True):
        names = line.values.get("nodename")
        if names is None:
            continue
        values = default | {key: value.text for key, value in line.values.items()}
        if names.text.upper() == "DEFAULT":
            default = values
        else:
            nodes.update(dict.fromkeys(expand(*names), _node(partial(_value, values))))
    return nodes


def gres_types(gres: str) -> tuple[tuple[str, int], ...]:
    """GPU types and their counts in a `Gres=` value, in its order."""
    found = [_GPU.fullmatch(item) for item in re.split(r",(?![^(]*\))", gres)]
    return tuple((gpu[1] or "", int(gpu[2] or 1)) for gpu in found if gpu is not None)


def _field(line: str, key: str) -> str | None:
    found = re.search(rf"(?:^|\s){key}=(\S+)", line)
    return None if found is None else found[1]


def _value(values: Mapping[str, str], key: str) -> str | None:
    return values.get(key.lower())


def _node(get: Callable[[str], str | None]) -> SlurmNode:
    def number(key: str) -> int | None:
        text = get(key) or ""
        return int(text) if re.fullmatch(r"[0-9]{1,5}", text) else None

    sockets, boards, per_board = number("Sockets"), number("Boards"), number("SocketsPerBoard")
    if sockets is None and per_board is not None:
        sockets = per_board * (boards or 1)
    return SlurmNode(gres_types(get("Gres") or ""), sockets, number("CoresPerSocket"), number("ThreadsPerCore"))
