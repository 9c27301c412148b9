"""Slurm's gres.conf: the GPUs of each node in Slurm's index order, and their shape as far as the file tells it.

What counts as what: `Links` n > 0 is `NV<n>`. A pair without a link is `NODE` if both GPUs have the same `Cores`, `SYS` if
not, or if one's cores are unknown (the floor: nothing better is promised). All-zero `Links` say nothing at all (NVSwitch
machines print them), so `Cores` decide alone. Without any of them, or with AutoDetect, there is no shape.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from coloc_topology import cpulist
from coloc_topology.conf import Line, Value, read_lines
from coloc_topology.errors import TopologyError
from coloc_topology.hostlist import expand
from coloc_topology.shape import Shape

MAX_NODE_GPUS = 1024
_COUNT = re.compile(r"([0-9]{1,9})([KMGTP]?)", re.IGNORECASE)
_LINKS = re.compile(r"-?[0-9]{1,4}(,-?[0-9]{1,4})*")


class Gpu(msgspec.Struct, frozen=True):
    """One GPU as gres.conf has it. `index` is Slurm's; type "" is untyped; None: not told.

    `line` and `column`: where its `Links` stand, else its line's `Name`.
    """

    index: int
    type: str
    file: str | None
    links: tuple[int, ...] | None
    cores: str | None
    flags: tuple[str, ...]
    line: int
    column: int = 1


class NodeGres(NamedTuple):
    """What gres.conf says of one node. `autodetect` in lower case, None: not set.

    `shape` None: the file does not tell it; `note` then says why, or what is uncertain in the shape; None: nothing.
    """

    gpus: tuple[Gpu, ...]
    autodetect: str | None
    shape: Shape | None
    note: str | None


class _Entry(NamedTuple):
    """A line of gres.conf: the nodes it is for (None: all), and its GPUs, still without index.

    `autodetect` is None, too, where slurmd lets it count for nothing: behind the `Name=` of a line for all nodes.
    """

    nodes: dict[str, None] | None
    autodetect: str | None
    gpus: tuple[Gpu, ...]


class GresConf:
    """A gres.conf that was read; made by `read_gres_conf`."""

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self._entries = entries
        self._for_all: list[int] = []
        self._for_one: dict[str, list[int]] = {}
        for i, entry in enumerate(entries):
            if entry.nodes is None:
                self._for_all.append(i)
            for name in entry.nodes or ():
                self._for_one.setdefault(name, []).append(i)
        self._known: dict[tuple[tuple[int, ...], tuple[str, ...]], NodeGres] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes that are named, in the file's order of first mention; empty: the lines are for all nodes."""
        return tuple(self._for_one)

    def gpus(self, name: str, types: Sequence[str] = ()) -> tuple[Gpu, ...]:
        """GPUs of a node as `node` has them, also when their links contradict each other."""
        return _ordered([self._entries[i] for i in self.lines(name)], types)

    def autodetect(self, name: str) -> tuple[str, ...]:
        """The different values of AutoDetect that a node is given, in lower case; its own ones if it has any."""
        return tuple(dict.fromkeys(_told([self._entries[i] for i in self.lines(name)])))

    def lines(self, name: str) -> tuple[int, ...]:
        """Which entries count for a node: nodes with equal ones (and types) have equal GPUs."""
        return tuple(sorted([*self._for_all, *self._for_one.get(name, ())]))

    def node(self, name: str, types: Sequence[str] = ()) -> NodeGres:
        """GPUs and shape of a node (a node that is not named: of the lines for all nodes).

        An index is the order of appearance, lines without NodeName before the others, within the order of `types`:
        slurm.conf's `Gres=gpu:a:4,gpu:b:4` puts all GPUs of type a first. Raises `TopologyError` when the node's lines
        contradict each other.
        """
        lines = self.lines(name)
        key = (lines, tuple(types))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _node_gres([self._entries[i] for i in lines], types)
        return found


def read_gres_conf(text: str, complaints: list[TopologyError] | None = None) -> GresConf:
    """Read gres.conf; lines of other resources than GPUs are passed over. Raises `TopologyError` with line and column.

    With `complaints`, `Links` that Slurm would not take are put there and left out instead.
    """
    return GresConf([_entry(line, complaints) for line in read_lines(text)])


def _entry(line: Line, complaints: list[TopologyError] | None) -> _Entry:
    names = line.values.get("nodename")
    name = line.text("name")
    autodetect = line.text("autodetect")
    keys = list(line.values)
    if names is None and name is not None and "autodetect" in keys[keys.index("name") :]:
        autodetect = None  # slurmd: "In-line AutoDetect requires NodeName to take effect"
    return _Entry(
        nodes=None if names is None else dict.fromkeys(expand(*names)),
        autodetect=None if autodetect is None else autodetect.lower(),
        gpus=_gpus(line, complaints) if name is not None and name.lower() == "gpu" else (),
    )


def _gpus(line: Line, complaints: list[TopologyError] | None) -> tuple[Gpu, ...]:
    """The GPUs of one line, all with index 0 for now."""
    file, several = line.values.get("file") or line.values.get("files"), line.text("multiplefiles")
    if file is not None and several is not None:
        raise TopologyError("File and MultipleFiles in one line; slurmd refuses that", file.line, file.column)
    files: tuple[str | None, ...] = expand(*file) if file is not None else (several,) if several is not None else ()
    count = line.values.get("count")
    if count is not None:
        number = _number(count)
        if files and number != len(files):
            raise TopologyError(f"Count is {number} but File names {len(files)} devices", count.line, count.column)
        files = files or (None,) * number
    files = files or (None,)
    cores = line.values.get("cores") or line.values.get("cpus")
    if cores is not None and cpulist.ranges(cores.text) is None:
        raise TopologyError(f"Cores={cores.text[:60]} is not a list of cores", cores.line, cores.column)
    told = line.values.get("links") or line.values.get("link")
    try:
        links = _links(told, len(files))
    except TopologyError as error:
        if complaints is None:
            raise
        complaints.append(error)
        links = None
    flags = tuple(flag for flag in (line.text("flags") or "").split(",") if flag)
    at = (told or line.values["name"]).column
    kind, near = line.text("type") or "", None if cores is None else cores.text
    return tuple(Gpu(0, kind, file, links, near, flags, line.number, at) for file in files)


def _number(count: Value) -> int:
    found = _COUNT.fullmatch(count.text)
    number = int(found[1]) * 1024 ** " KMGTP".index(found[2].upper() or " ") if found else -1
    if not 0 < number <= MAX_NODE_GPUS:
        raise TopologyError(f"Count={count.text[:60]} is no number of GPUs", count.line, count.column)
    return number


def _links(value: Value | None, devices: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not _LINKS.fullmatch(value.text):
        raise TopologyError(f"Links={value.text[:60]} is not a list of numbers", value.line, value.column)
    links = tuple(int(number) for number in value.text.split(","))
    if devices != 1:
        raise TopologyError(f"one Links list for {devices} devices; give each its own line", value.line, value.column)
    if links.count(-1) != 1 or min(links) < -1:
        reason = f"Links={value.text[:60]} needs exactly one -1, the GPU itself; Slurm ignores it otherwise"
        raise TopologyError(reason, value.line, value.column)
    return links


def _ordered(entries: Sequence[_Entry], types: Sequence[str]) -> tuple[Gpu, ...]:
    """The GPUs of the entries with Slurm's indices: slurmd takes lines without `NodeName` first, wherever they stand."""
    first = sorted(entries, key=lambda entry: entry.nodes is not None)
    listed = [gpu for entry in first for gpu in entry.gpus]
    order = {name.lower(): place for place, name in enumerate(types)}  # Slurm's types are the same in any case
    listed.sort(key=lambda gpu: order.get(gpu.type.lower(), len(order)))
    return tuple(msgspec.structs.replace(gpu, index=index) for index, gpu in enumerate(listed))


def _node_gres(entries: Sequence[_Entry], types: Sequence[str]) -> NodeGres:
    gpus = _ordered(entries, types)
    told = _told(entries)
    autodetect = told[-1] if told else None
    if autodetect not in (None, "off"):
        note = f"AutoDetect={autodetect} leaves order and links of the GPUs to slurmd, so gres.conf does not tell them"
        return NodeGres(gpus, autodetect, None, note)
    if not gpus:
        return NodeGres(gpus, autodetect, None, "gres.conf lists no GPU of it")
    if len(gpus) > MAX_NODE_GPUS:
        raise TopologyError(f"more than {MAX_NODE_GPUS} GPUs on one node", gpus[-1].line, gpus[-1].column)
    return NodeGres(gpus, autodetect, *_shape(gpus))


def _told(entries: Sequence[_Entry]) -> list[str]:
    told = [(entry.nodes, entry.autodetect) for entry in entries if entry.autodetect is not None]
    return [value for nodes, value in told if nodes is not None] or [value for _, value in told]


def _shape(gpus: Sequence[Gpu]) -> tuple[Shape | None, str | None]:
    count = len(gpus)
    told: dict[tuple[int, int], int] = {}
    for gpu in gpus:
        if gpu.links is None:
            continue
        if len(gpu.links) != count:
            raise TopologyError(f"Links has {len(gpu.links)} numbers for a node of {count} GPUs", gpu.line, gpu.column)
        if gpu.links[gpu.index] != -1:
            reason = f"Links puts this GPU at index {gpu.links.index(-1)}, but it is number {gpu.index} of its node"
            raise TopologyError(reason, gpu.line, gpu.column)
        for other, links in enumerate(gpu.links):
            if told.get((other, gpu.index), links) != links and other != gpu.index:
                reason = f"Links says {links} to GPU {other}, but line {gpus[other].line} says otherwise"
                raise TopologyError(reason, gpu.line, gpu.column)
            told[gpu.index, other] = links
    linked = any(links > 0 for links in told.values())
    cores = [None if gpu.cores is None else cpulist.ranges(gpu.cores) for gpu in gpus]
    if count > 1 and not linked and None in cores:
        return None, "gres.conf tells neither Links nor Cores of all its GPUs"

    def word(i: int, j: int) -> str:
        links = told.get((i, j), told.get((j, i), 0))
        if i == j or links > 0:
            return "X" if i == j else f"NV{links}"
        return "NODE" if cores[i] is not None and cores[i] == cores[j] else "SYS"

    matrix = tuple(tuple(word(i, j) for j in range(count)) for i in range(count))
    note = None
    if count > 1 and not linked:
        why = "only zeros in Links" if told else "no Links"
        note = f"gres.conf has {why}, so NVLinks are unknown and pairs count as NODE or SYS by their Cores"
    return Shape("gres", matrix, (None,) * count, tuple(gpu.cores for gpu in gpus)), note
