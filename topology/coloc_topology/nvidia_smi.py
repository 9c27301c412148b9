"""Outputs of `nvidia-smi topo -m` and `-mp`: the shape of the node, the NICs near its GPUs, CPU and NUMA affinity.

A link between two GPUs stands twice in the matrix: what a cut output lost is taken from its mirror image, and a pair that is
in neither, or that contradicts itself, is an error. Facts beside the matrix that cannot be read are None.
"""

import re
from typing import NamedTuple

from coloc_topology import cpulist
from coloc_topology.errors import TopologyError
from coloc_topology.shape import Shape
from coloc_topology.smi_table import Cell, Row, Table, read_table

_LEGEND = re.compile(r"\s*(\S+)\s+= \S")
_PADDED = re.compile(r"(?<![0-9])0[0-9]")
_NIC_NAME = re.compile(r"\s*(\S+):\s+(\S+)\s*")


class Nic(NamedTuple):
    """A network device of the matrix. `device` is its kernel name; None: not told.

    `links[i]` is the word for the path to GPU i (`PIX` … `SYS`); None: not readable.
    """

    name: str
    device: str | None
    links: tuple[str | None, ...]


class NodeTopology(NamedTuple):
    """What one output tells. GPU numbers are nvidia-smi's.

    `numa[i]` is GPU i's NUMA affinity as printed (`0`, `0-1`); `shape.numa` has it only where it is one node.
    `pcie_only`: the output is of `-mp`, which leaves NVLinks out; None: cannot be told.
    """

    shape: Shape
    nics: tuple[Nic, ...]
    numa: tuple[str | None, ...]
    pcie_only: bool | None


def read_topo(text: str, name: str = "nvidia-smi") -> NodeTopology:
    """Read an output of `nvidia-smi topo -m` or `-mp`; `name` becomes the shape's. Raises `TopologyError`."""
    table = read_table(text)
    gpus = [device for device in table.devices if re.fullmatch(r"GPU[0-9]+", device)]
    _refuse_holes(table, gpus)
    links = tuple(tuple(_pair(table, a, b) for b in gpus) for a in gpus)
    cores = _agreed([_list(table, gpu, "CPU Affinity") for gpu in gpus])
    numa = _agreed([_list(table, gpu, "NUMA Affinity") for gpu in gpus])
    single = tuple(int(nodes) if nodes is not None and nodes.isdigit() else None for nodes in numa)
    devices = {found[1]: found[2] for line in table.below if (found := _NIC_NAME.fullmatch(line))}
    nics = tuple(
        Nic(
            nic, devices.get(nic, None if nic.startswith("NIC") else nic), tuple(_near(table, nic, gpu) for gpu in gpus)
        )
        for nic in table.devices
        if nic not in gpus
    )
    return NodeTopology(Shape(name, links, single, cores), nics, numa, _pcie_only(table, links))


def _refuse_holes(table: Table, gpus: list[str]) -> None:
    """A cut loses the end; a row missing in the middle means damage, and then its neighbours are not to be trusted."""
    rows = list(table.rows)
    for gpu in gpus:
        after = [row for row in rows if (row in gpus and gpus.index(row) > gpus.index(gpu)) or row not in gpus]
        if gpu not in table.rows and (after or (rows and table.below)):
            line = table.rows[after[0]].line if after else table.rows[rows[-1]].line + 1
            raise TopologyError(f"the row of {gpu} is missing before this line", line, 1)


def _cell(table: Table, a: str, b: str) -> Cell | None:
    row = table.rows.get(a)
    return None if row is None else row.cells.get(b)


def _pair(table: Table, a: str, b: str) -> str:
    """The word for GPUs a and b, from either half of the matrix."""
    here, there = _cell(table, a, b), _cell(table, b, a)
    for row, column, cell in ((a, b, here), (b, a, there)):
        if cell is not None and (cell.word == "X") != (a == b):
            reason = f"{cell.word} where {row} meets {column}; cells are missing or shifted in this row"
            raise TopologyError(reason, table.rows[row].line, cell.column)
    for row, column, cell in ((a, b, there), (b, a, here)):
        _refuse_other(table, row, column, cell)
    if here is None and there is None:
        if a == b and "GPU1" in table.devices:
            return "X"
        raise _missing(table, a, b)
    if here is not None and there is not None and here.word != there.word:
        first, second = sorted((table.rows[a].line, table.rows[b].line))
        later, cell = (a, here) if table.rows[a].line == second else (b, there)
        reason = f"{cell.word} between {a} and {b}, but line {first} says {(there if later == a else here).word}"
        raise TopologyError(reason, second, cell.column)
    return (here or there or Cell("", 0)).word


def _refuse_other(table: Table, row: str, column: str, mirror: Cell | None) -> None:
    """A row that has something else than a link word in a cell (`N/A`, `ERR!`) contradicts the mirror cell."""
    line = table.rows.get(row)
    stop = None if line is None else line.stop
    word = "X" if row == column else None if mirror is None else mirror.word
    if line is not None and stop is not None and stop.device == column and word is not None and not stop.may_be(word):
        reason = f"{stop.word!r} is no link word, but between {column} and {row} stands {word}"
        if row == column:
            reason = f"{stop.word!r} where {row} meets itself; cells are missing or shifted in this row"
        raise TopologyError(reason, line.line, stop.column)


def _missing(table: Table, a: str, b: str) -> TopologyError:
    if a == b:
        return TopologyError("the matrix under this header has no row of GPU0; it was cut", table.line, 1)
    row: Row | None = table.rows.get(a) or table.rows.get(b)
    if row is None:
        return TopologyError(
            f"the matrix under this header has no row of {a} and none of {b}; it was cut", table.line, 1
        )
    if row.stop is None:
        return TopologyError(f"no cell tells the link between {a} and {b}", row.line, 1)
    what = f"{row.stop.word!r} is no link word" if row.stop.word else "the row ends here"
    return TopologyError(f"{what}, so the link between {a} and {b} is not told", row.line, row.stop.column)


def _near(table: Table, nic: str, gpu: str) -> str | None:
    """The word for a NIC and a GPU; None: in neither half, the halves differ, or it is none for a NIC."""
    words = {cell.word for cell in (_cell(table, gpu, nic), _cell(table, nic, gpu)) if cell is not None}
    for row, column in ((gpu, nic), (nic, gpu)):
        stop = table.rows[row].stop if row in table.rows else None
        if stop is not None and stop.device == column and not all(map(stop.may_be, words)):
            return None
    word = words.pop() if len(words) == 1 else "X"
    return None if word == "X" or word.startswith("NV") else word


def _list(table: Table, gpu: str, fact: str) -> str | None:
    row = table.rows.get(gpu)
    text = None if row is None else row.facts.get(fact)
    if text is None or _PADDED.search(text) or cpulist.ranges(text) is None:
        return None
    return text


def _agreed(lists: list[str | None]) -> tuple[str | None, ...]:
    """The lists of the GPUs. GPUs are near the same CPUs or near others: where lists overlap and differ, one is damaged."""
    known = {text: cpulist.ranges(text) or () for text in lists if text is not None}
    doubtful = {
        one
        for one, mine in known.items()
        for other, theirs in known.items()
        if mine != theirs and any(low <= end and start <= high for low, high in mine for start, end in theirs)
    }
    return tuple(None if text in doubtful else text for text in lists)


def _pcie_only(table: Table, links: tuple[tuple[str, ...], ...]) -> bool | None:
    if any(word.startswith("NV") for row in links for word in row):
        return False
    legend = {found[1] for line in table.below if (found := _LEGEND.match(line))}
    return "NV#" not in legend if {"X", "PIX"} <= legend else None
