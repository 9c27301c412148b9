"""From NVML's facts to a shape in Slurm's order, and the numbers by which Slurm, the kernel, PCI and CUDA call each GPU."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from coloc_topology.errors import TopologyError
from coloc_topology.nvml_facts import Fabric, NvmlFacts, NvmlGpu, NvmlPair, bus
from coloc_topology.nvml_links import LinkReader
from coloc_topology.shape import Shape, idx, mask_of

_FILE = re.compile(r"/dev/nvidia([0-9]{1,4})")


class GpuNumbers(NamedTuple):
    """One GPU's names: Slurm's index, NVML's (and CUDA's with CUDA_DEVICE_ORDER=PCI_BUS_ID), /dev/nvidiaN, PCI bus id."""

    slurm: int
    nvml: int
    minor: int | None
    bus_id: str | None
    uuid: str | None


class NvmlShape(NamedTuple):
    """A shape in Slurm's order, the numbers of its GPUs by Slurm's index, and what is uncertain, one sentence each."""

    shape: Shape
    numbers: tuple[GpuNumbers, ...]
    notes: tuple[str, ...]


def shape_from_nvml(facts: NvmlFacts, name: str = "nvml", order: Sequence[int] | None = None) -> NvmlShape:
    """The shape of a server. `order[i]` is the NVML index of Slurm's GPU i; None: as the dump says, else PCI order.

    Bonded NVLinks are counted per pair; GPUs on one NVSwitch are all `NV<n>`; else the PCIe path counts. A path that NVML
    does not tell is SYS, the floor, and said in `notes`. Raises `TopologyError` when a GPU could not be read at all.
    """
    if not facts.gpus:
        raise TopologyError("the NVML dump has no GPU")
    lost = next((gpu for gpu in facts.gpus if gpu.lost is not None), None)
    if lost is not None:
        raise TopologyError(
            f"GPU {lost.index} of the NVML dump could not be read ({lost.lost}); dump again when it can"
        )
    if order is None:
        order = facts.order if facts.order is not None else pci_order(facts)
    if sorted(order) != list(range(len(facts.gpus))):
        raise TopologyError(f"the order of the GPUs does not name each of the {len(facts.gpus)} GPUs once")
    reader = LinkReader(facts)
    links = tuple(tuple(reader.word(a, b) for b in order) for a in order)
    gpus = [facts.gpus[index] for index in order]
    shape = Shape(
        name,
        links,
        tuple(gpu.numa[0] if gpu.numa is not None and len(gpu.numa) == 1 else None for gpu in gpus),
        tuple(gpu.cpus for gpu in gpus),
    )
    numbers = tuple(GpuNumbers(i, gpu.index, gpu.minor, bus(gpu.bus_id), gpu.uuid) for i, gpu in enumerate(gpus))
    mig = mask_of(i for i, gpu in enumerate(gpus) if gpu.mig)
    notes = [*reader.notes()]
    if mig:
        notes.append(
            f"MIG is on on GPU {idx(mig)}: its instances have no NVLink, and Slurm's indices may count instances"
        )
    return NvmlShape(shape, numbers, tuple(notes))


def pci_order(facts: NvmlFacts) -> tuple[int, ...]:
    """NVML indices in the order of their PCI bus ids, which is Slurm's with AutoDetect; NVML's own if one is unknown."""
    places = [_place(gpu) for gpu in facts.gpus]
    if None in places:
        return tuple(range(len(places)))
    return tuple(sorted(range(len(places)), key=lambda i: (places[i] or (), i)))


def _place(gpu: NvmlGpu) -> tuple[int, ...] | None:
    known = bus(gpu.bus_id)
    return None if known is None else tuple(int(part, 16) for part in re.split("[:.]", known))


class FileOrder(NamedTuple):
    """gres.conf's GPUs as NVML's: `order[i]` is the NVML index of Slurm's GPU i; None where `mismatches` say why."""

    order: tuple[int, ...] | None
    mismatches: tuple[str, ...]


def order_from_files(facts: NvmlFacts, files: Sequence[str | None]) -> FileOrder:
    """Which GPU each `File=` of gres.conf is, in Slurm's order, by the minor number N of /dev/nvidiaN."""
    by_minor = {gpu.minor: gpu.index for gpu in facts.gpus if gpu.minor is not None}
    wrong: list[str] = []
    order: list[int] = []
    for index, file in enumerate(files):
        found = None if file is None else _FILE.fullmatch(file)
        if file is None:
            wrong.append(f"GPU {index} has no File, so nothing tells which device it is")
        elif found is None:
            wrong.append(f"GPU {index} is {file}, which is no /dev/nvidiaN")
        elif int(found[1]) not in by_minor:
            wrong.append(f"GPU {index} is {file}, but NVML knows no GPU with minor number {int(found[1])}")
        elif by_minor[int(found[1])] in order:
            wrong.append(f"GPU {index} is {file}, as GPU {order.index(by_minor[int(found[1])])} is")
        else:
            order.append(by_minor[int(found[1])])
    if not wrong:
        missing = [gpu for gpu in facts.gpus if gpu.index not in order]
        wrong += [f"NVML's GPU {gpu.index} ({bus(gpu.bus_id) or gpu.uuid}) is missing" for gpu in missing]
    return FileOrder(None if wrong else tuple(order), tuple(wrong))


def pair_of(facts: NvmlFacts, a: int, b: int) -> NvmlPair | None:
    """What the dump says of two GPUs; None: nothing."""
    return next((pair for pair in facts.pairs if {pair.a, pair.b} == {a, b}), None)


def nvlink_domain(facts: NvmlFacts) -> str | None:
    """Name of the NVLink domain above the node, `cluster uuid.clique`; None: there is none, or it is not known for all GPUs."""
    found = {_domain(gpu.fabric) for gpu in facts.gpus}
    return found.pop() if len(found) == 1 else None


def _domain(fabric: Fabric | None) -> str | None:
    if fabric is None or fabric.state != "completed" or fabric.cluster is None or fabric.clique is None:
        return None
    return f"{fabric.cluster}.{fabric.clique}"
