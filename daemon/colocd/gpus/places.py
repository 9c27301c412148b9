"""Which of a node's GPUs Slurm calls 0, 1 and so on: never guessed, because a wrong one would condemn a good GPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from coloc_topology.errors import TopologyError
from coloc_topology.gres_conf import GresConf, read_gres_conf
from coloc_topology.hostlist import expand
from coloc_topology.nvml_facts import NvmlFacts, NvmlGpu
from coloc_topology.nvml_shape import order_from_files, pci_order
from coloc_topology.source import read_source
from colocd.agent.wire import GpuInfo
from colocd.config import Config
from colocd.core.view import Node
from colocd.shapes import SLURM_CONF


class Places(NamedTuple):
    """`at[i]`: place of Slurm's GPU i in the reading; None: the reading does not have it. `why` says why `at` is None."""

    at: tuple[int | None, ...] | None
    why: str | None = None


class PlaceBook:
    """What the configured files say of the numbering; made anew after a reload."""

    def __init__(self, config: Config) -> None:
        self._minors: dict[str, tuple[int, ...]] = {}
        self._known: dict[str, tuple[tuple[int, tuple[str, ...]], tuple[GpuInfo, ...], Places]] = {}
        for source in config.topology.sources:
            self._source(source.nodes, source.file)
        path = config.topology.gres_conf or str(Path(config.slurm.conf or SLURM_CONF).with_name("gres.conf"))
        self._gres: GresConf | None = None
        try:
            self._gres = read_gres_conf(Path(path).read_bytes().decode("utf-8", "replace"), [])
        except (OSError, TopologyError):
            self._gres = None  # the topology says what is wrong with it

    def _source(self, nodes: str, file: str) -> None:
        try:
            found = read_source(Path(file).read_bytes().decode("utf-8", "replace"), "x")
            names = expand(nodes)
        except (OSError, TopologyError):
            return
        if found.facts is None or found.facts.order is None:
            return
        minors = tuple(number.minor for number in found.numbers if number.minor is not None)
        if len(minors) == found.shape.gpus:
            for name in names:
                self._minors.setdefault(name, minors)

    def places(self, node: Node, gpus: tuple[GpuInfo, ...]) -> Places:
        """Slurm's GPUs of a node in the order of a reading."""
        shape, old = (node.gpus, node.types), self._known.get(node.name)
        if old is None or old[0] != shape or old[1] != gpus:
            old = self._known[node.name] = (shape, gpus, self._places(node, gpus))
        return old[2]

    def _places(self, node: Node, gpus: Sequence[GpuInfo]) -> Places:
        if any(gpu.mig for gpu in gpus):
            return Places(None, "MIG is on, so Slurm's indices are not GPUs")
        minors = self._minors.get(node.name)
        if minors is None and self._gres is not None:
            types = tuple(dict.fromkeys(node.types))
            detects = (self._gres.autodetect(node.name) or ("off",))[-1] != "off"
            files = [gpu.file for gpu in self._gres.gpus(node.name, types)]
            if detects:
                return _by_bus(node.gpus, gpus)
            minors = _minors(files)
        if minors is None:
            return Places(None, "neither gres.conf nor an imported dump tells which device each index is")
        if len(minors) != node.gpus:
            return Places(None, f"the files tell of {len(minors)} devices, Slurm of {node.gpus}")
        by_minor = {gpu.minor: place for place, gpu in enumerate(gpus) if gpu.minor is not None}
        at = [by_minor.get(minor) for minor in minors]
        unnamed = [place for place, gpu in enumerate(gpus) if gpu.minor is None]
        if at.count(None) == 1 and len(unnamed) == 1:
            at[at.index(None)] = unnamed[0]  # a lost GPU tells no number; only one is left that it can be
        return Places(tuple(at))


def _minors(files: Sequence[str | None]) -> tuple[int, ...] | None:
    """Minor numbers of gres.conf's device files; None: some are no /dev/nvidiaN, or one is there twice."""
    count = len(files)
    numbers = [
        int(file.removeprefix("/dev/nvidia")) if file and file.removeprefix("/dev/nvidia").isdigit() else None
        for file in files
    ]
    facts = NvmlFacts(gpus=tuple(NvmlGpu(index=i, minor=minor) for i, minor in enumerate(numbers)))
    found = order_from_files(facts, files)
    if not count or found.order is None:
        return None
    return tuple(n for n in numbers if n is not None)


def _by_bus(count: int, gpus: Sequence[GpuInfo]) -> Places:
    """With AutoDetect, Slurm numbers GPUs by PCI bus id; only a reading of all of them tells which is which."""
    facts = NvmlFacts(gpus=tuple(NvmlGpu(index=i, bus_id=gpu.bus_id) for i, gpu in enumerate(gpus)))
    if len(gpus) != count or any(gpu.bus_id is None for gpu in gpus):
        return Places(None, f"{len(gpus)} GPUs with known PCI address were read, Slurm has {count}")
    return Places(pci_order(facts))
