"""Output of `rocm-smi --showtopo`: the shape of a server with AMD GPUs.

xGMI takes NVLink's place: a direct xGMI link is `NV1`. Direct is what weighs 15, the weight of one xGMI hop; the "hops" that
rocm-smi prints are 1 for every pair that xGMI connects, directly or not. Other pairs are `NODE` (same CPU socket) or `SYS`.
"""

import re
from typing import NamedTuple

from coloc_topology import ansi
from coloc_topology.errors import TopologyError
from coloc_topology.shape import Shape

MAX_ROCM_GPUS = 128
DIRECT = 15
_TITLE = re.compile(r"=+ *(Weight|Hops|Link Type|Numa Nodes)[A-Za-z ]*=+")
_ROW = re.compile(r"\s*GPU([0-9]{1,3})\s+(\S.*)")
_HEADER = re.compile(r"\s*GPU[0-9]{1,3}(\s+GPU[0-9]{1,3})*\s*")
_NUMA = re.compile(r"\s*GPU ?\[?([0-9]{1,3})\]?\s*: \(Topology\) Numa (Node|Affinity): (-?[0-9]{1,4})\s*")


class _Table(NamedTuple):
    """One of rocm-smi's matrices: rows by GPU, each with the line it stands in and its words with their columns.

    `columns`: the GPUs that its header names, in one list for each header (there is one).
    """

    line: int
    rows: dict[int, tuple[int, list[tuple[str, int]]]]
    columns: list[list[str]]


def looks_like_rocm(text: str) -> bool:
    """Whether a text is an output of rocm-smi."""
    return "ROCm System Management Interface" in text or "Link Type between two GPUs" in text


def read_rocm(text: str, name: str = "rocm-smi") -> Shape:
    """Read an output of `rocm-smi --showtopo`; `name` becomes the shape's. Raises `TopologyError` with line and column."""
    tables, numa = _tables(text)
    types = tables.get("Link Type")
    if types is None:
        raise TopologyError("this is no output of `rocm-smi --showtopo`: it has no table of link types")
    count = _count(tables, types)
    links = tuple(
        tuple("X" if i == j else _word(tables, types, numa, min(i, j), max(i, j)) for j in range(count))
        for i in range(count)
    )
    return Shape(name, links, tuple(numa.get(i) for i in range(count)), (None,) * count)


def _count(tables: dict[str, _Table], types: _Table) -> int:
    """The number of GPUs, which all headers and rows have to agree on: a cut table shows fewer of them than there are."""
    count = len(types.columns[0]) if len(types.columns) == 1 else 0
    if not 0 < count <= MAX_ROCM_GPUS or types.columns[0] != [f"GPU{i}" for i in range(count)]:
        raise TopologyError("the table of link types has no header that names GPU0, GPU1 and so on", types.line, 1)
    if sorted(types.rows) != list(range(count)):
        raise TopologyError(
            f"the table of link types does not have the {count} rows GPU0 to GPU{count - 1}", types.line, 1
        )
    for table in tables.values():
        long = next(((line, words[count]) for line, words in table.rows.values() if len(words) > count), None)
        if long is not None:
            raise TopologyError(f"more cells in this row than the {count} GPUs of the header", long[0], long[1][1])
        if table.columns and table.columns[0] != types.columns[0]:
            raise TopologyError("the tables do not name the same GPUs", table.line, 1)
    return count


def _tables(text: str) -> tuple[dict[str, _Table], dict[int, int]]:
    tables: dict[str, _Table] = {}
    numa: dict[int, int] = {}
    here: _Table | None = None
    lines = text.split("\n")  # the last one has no end: it is empty, or perhaps cut
    for number, raw in enumerate(lines, start=1):
        line = ansi.plain(raw)
        title = _TITLE.search(line)
        if title is not None:
            if title[1] in tables:
                reason = f"a second table of {title[1].lower()}; give the output of one command"
                raise TopologyError(reason, number, title.start(1) + 1)
            here = tables[title[1]] = _Table(number, {}, [])
            continue
        node = _NUMA.fullmatch(line)
        if node is not None and node[2] == "Affinity" and int(node[3]) >= 0 and number < len(lines):
            numa[int(node[1])] = int(node[3])
        if here is not None and not here.rows and _HEADER.fullmatch(line):
            here.columns.append(line.split())
            continue
        row = _ROW.fullmatch(line)
        if row is None or here is None or row[2].startswith("GPU") or ":" in row[2]:
            continue
        if int(row[1]) in here.rows:
            raise TopologyError(f"a second row of GPU{row[1]}", number, row.start(1) - 2)
        words = [(word[0], word.start() + 1) for word in re.finditer(r"\S+", line[row.start(2) :])]
        here.rows[int(row[1])] = (number, [(word, row.start(2) + column) for word, column in words])
    return tables, numa


def _cell(table: _Table | None, i: int, j: int) -> str | None:
    """The word for a pair from either half of the matrix; None: in neither. Raises `TopologyError` when the halves differ."""
    if table is None:
        return None
    found: dict[str, tuple[int, int]] = {}
    for a, b in ((i, j), (j, i)):
        line, words = table.rows.get(a, (0, []))
        if b < len(words):
            found[words[b][0]] = (line, words[b][1])
    if len(found) > 1:
        one, other = found
        raise TopologyError(f"{other} between GPU{i} and GPU{j}, but line {found[one][0]} says {one}", *found[other])
    return next(iter(found), None)


def _place(types: _Table, i: int, j: int) -> tuple[int, int]:
    """Line and column of a pair's cell; of the row's end, or the table's title, where the cell is missing."""
    line, words = types.rows[i]
    if j < len(words):
        return line, words[j][1]
    return (line, words[-1][1]) if words else (types.line, 1)


def _word(tables: dict[str, _Table], types: _Table, numa: dict[int, int], i: int, j: int) -> str:
    kind = _cell(types, i, j)
    if kind == "XGMI":
        weight = _cell(tables.get("Weight"), i, j)
        if weight is None or not re.fullmatch(r"[0-9]{1,6}", weight):
            reason = f"no weight tells whether xGMI joins GPU{i} and GPU{j} directly; take all of `rocm-smi --showtopo`"
            raise TopologyError(reason, *_place(types, i, j))
        if int(weight) <= DIRECT:
            return "NV1"
    elif kind != "PCIE":
        what = "nothing" if kind is None else f"{kind[:20]!r}"
        reason = f"{what} is no link type, so the link between GPU{i} and GPU{j} is not told"
        raise TopologyError(reason, *_place(types, i, j))
    elif _cell(tables.get("Hops"), i, j) == "2":
        return "NODE"
    near = numa.get(i) is not None and numa.get(i) == numa.get(j)
    return "NODE" if near else "SYS"
