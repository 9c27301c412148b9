"""Which shape each node has: reads the operator's topology files and Slurm's gres.conf, and says what it cannot tell."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from coloc_topology.errors import TopologyError
from coloc_topology.fit import fit_table
from coloc_topology.gres_conf import NodeGres, read_gres_conf
from coloc_topology.hostlist import expand, fold
from coloc_topology.shape import Level, Shape
from coloc_topology.slurm_conf import gpu_types
from coloc_topology.source import Source, decode, read_source
from coloc_topology.subsets import MAX_GPUS
from colocd.config import TopologyConfig
from colocd.errors import BadConfig
from colocd.network import NodeDomains, load_domains

_Fact = TypeVar("_Fact")

SLURM_CONF = "/etc/slurm/slurm.conf"
"""Where Slurm's packages have their configuration when none is named."""


class LoadedShapes(NamedTuple):
    """Shapes by name; per node the name of its shape, None: unknown, then nothing is guaranteed there; and why.

    `domains`: what joins a node with others (NVLink domain, leaf switch, block); nodes of which nothing is told are missing.
    """

    shapes: dict[str, Shape]
    nodes: dict[str, str | None]
    problems: tuple[str, ...]
    domains: dict[str, NodeDomains] = {}


def load_shapes(
    config: TopologyConfig, nodes: Sequence[tuple[str, int]], slurm_conf: str | None, show_topo: str | None = None
) -> LoadedShapes:
    """Shapes of the nodes (name, number of GPUs): from `config.sources` first, else from gres.conf.

    gres.conf is `config.gres_conf`, or lies beside `slurm_conf` (None: beside /etc/slurm/slurm.conf). Nodes with equal link
    matrices share one shape. `show_topo` is the output of `scontrol show topology`, for want of a topology file there. Raises
    `BadConfig` naming file and line when a file that is named, or gres.conf, cannot be read.
    """
    problems: list[str] = []
    told: dict[str, Shape] = {}
    nvlink: dict[str, str] = {}
    known = {name for name, _ in nodes}
    from_files = _sources(config, known, nvlink, problems)
    gres_nodes = [(name, gpus) for name, gpus in nodes if gpus and name not in from_files]
    from_gres = _gres_shapes(config, [name for name, _ in gres_nodes], slurm_conf, problems) if gres_nodes else {}
    refused: dict[str, list[str]] = {}
    for name, gpus in nodes:
        shape = from_files.get(name) or from_gres.get(name)
        if shape is None or gpus == 0:
            continue
        if shape.gpus != gpus:
            reason = f"its topology has {shape.gpus} GPUs but Slurm knows {gpus}"
        elif gpus > MAX_GPUS:
            reason = f"it has {gpus} GPUs and at most {MAX_GPUS} are supported"
        else:
            told[name] = shape
            continue
        refused.setdefault(reason, []).append(name)
    problems += [f"topology of {fold(names)} is not used: {reason}" for reason, names in refused.items()]
    shapes, names = _shared(told)
    domains = load_domains(slurm_conf or SLURM_CONF, [name for name, _ in nodes], nvlink, problems, show_topo)
    return LoadedShapes(shapes, {name: names.get(name) for name, _ in nodes}, tuple(problems), domains)


def _read(path: str) -> str:
    try:
        return decode(Path(path).read_bytes())
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror or 'cannot be read'}") from error


def _sources(config: TopologyConfig, known: set[str], nvlink: dict[str, str], problems: list[str]) -> dict[str, Shape]:
    """Shapes from the configured files; the first source that names a node counts. NVLink domains go into `nvlink`."""
    found: dict[str, Shape] = {}
    for number, source in enumerate(config.sources, start=1):
        try:
            names = expand(source.nodes)
        except TopologyError as error:
            raise BadConfig(f"topology source {number}: nodes is no host list: {error.reason}") from error
        try:
            read = read_source(_read(source.file), Path(source.file).stem)
        except TopologyError as error:
            raise BadConfig(f"{source.file}, {error}") from error
        strange = [name for name in names if name not in known]
        if strange:
            problems.append(f"topology file {source.file} is meant for {fold(strange)}, which Slurm does not have")
        twice = [name for name in names if name in found and found[name].links != read.shape.links]
        if twice:
            problems.append(f"topology file {source.file} is not used for {fold(twice)}: an earlier source names them")
        if read.pcie_only:
            problems.append(f"topology file {source.file} shows no NVLinks: it comes from `topo -mp`, give `topo -m`")
        problems += [f"topology file {source.file}: {note}" for note in _doubts(read)]
        if read.facts is not None and read.domain is not None:
            # Nodes of one type share a dump, but only the node that it was made on is known to be in its domain.
            its_own = [name for name in names if len(names) == 1 or name == read.facts.host]
            nvlink.update((name, read.domain) for name in its_own if name not in found)
        for name in names:
            found.setdefault(name, read.shape)
    return found


def _doubts(read: Source) -> list[str]:
    """What is uncertain in an NVML dump, and whether Slurm may number its GPUs in another order."""
    doubts = list(read.notes)
    minors = [number.minor for number in read.numbers if number.minor is not None]
    if read.facts is not None and read.facts.order is None and minors != sorted(minors):
        doubts.append("its minor numbers do not follow the PCI order; `coloc topo import` compares it with gres.conf")
    return doubts


def _gres_shapes(
    config: TopologyConfig, names: Sequence[str], slurm_conf: str | None, problems: list[str]
) -> dict[str, Shape]:
    """Shapes from gres.conf, named after type, count and islands; nodes without one are told in `problems`."""
    path = config.gres_conf or str(Path(slurm_conf or SLURM_CONF).with_name("gres.conf"))
    if config.gres_conf is None and not Path(path).exists():
        problems.append(f"topology of {fold(names)} is unknown: there is no {path} and no topology source names them")
        return {}
    found: dict[str, Shape] = {}
    notes: dict[tuple[bool, str], list[str]] = {}
    try:
        conf = read_gres_conf(_read(path))
        order = _type_order(slurm_conf)
        for name in names:
            gres = conf.node(name, order.get(name, ()))
            if name not in order and len({gpu.type for gpu in gres.gpus}) > 1:
                notes.setdefault((False, "slurm.conf does not tell the order of its GPU types"), []).append(name)
            if gres.note is not None:
                notes.setdefault((gres.shape is None, gres.note), []).append(name)
            if gres.shape is not None:
                found[name] = msgspec.structs.replace(gres.shape, name=_title(gres, gres.shape))
    except TopologyError as error:
        raise BadConfig(f"{path}, {error}") from error
    for (unknown, note), where in notes.items():
        problems.append(f"topology of {fold(where)} is {'unknown' if unknown else 'uncertain'}: {note}")
    return found


def _type_order(slurm_conf: str | None) -> dict[str, tuple[str, ...]]:
    """GPU types of the nodes as slurm.conf orders them; nodes it does not tell, or nothing if it cannot be read, are missing."""
    try:
        return gpu_types(_read(slurm_conf or SLURM_CONF))
    except (BadConfig, TopologyError):
        return {}


def _title(gres: NodeGres, shape: Shape) -> str:
    """A readable name: GPU type, number, and the islands at the best level that joins any two: `h100x8-2x4`."""
    types = {gpu.type.lower() for gpu in gres.gpus if gpu.type}
    kind = types.pop() if len(types) == 1 else "gpu"
    if shape.gpus < 2 or shape.gpus > MAX_GPUS:
        return f"{kind}x{shape.gpus}"
    table = fit_table(shape)
    for level in sorted(Level, reverse=True):
        sizes = sorted((island.bit_count() for island in table.islands(level)), reverse=True)
        if sizes[0] > 1:
            break
    equal = f"{len(sizes)}x{sizes[0]}" if len(set(sizes)) == 1 else "+".join(map(str, sizes))
    return f"{kind}x{shape.gpus}-{equal}"


def _shared(told: dict[str, Shape]) -> tuple[dict[str, Shape], dict[str, str]]:
    """One shape for each link matrix. A fact beside the matrix that its nodes do not agree on becomes None."""
    groups: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for node, shape in told.items():
        groups.setdefault(shape.links, []).append(node)
    shapes: dict[str, Shape] = {}
    names: dict[str, str] = {}
    for members in groups.values():
        first = told[members[0]]
        name, copy = first.name, 2
        while name in shapes:
            name, copy = f"{first.name}-{copy}", copy + 1
        numa = _agreed([told[node].numa for node in members])
        cores = _agreed([told[node].cores for node in members])
        shapes[name] = msgspec.structs.replace(first, name=name, numa=numa, cores=cores)
        names.update(dict.fromkeys(members, name))
    return shapes, names


def _agreed(facts: Iterable[tuple[_Fact | None, ...]]) -> tuple[_Fact | None, ...]:
    columns = zip(*facts, strict=True)
    return tuple(column[0] if len(set(column)) == 1 else None for column in columns)
