"""The single checks of `check`: each looks at one node type and says what it finds in one sentence."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from coloc_topology import cpulist
from coloc_topology.cores import slurm_cores
from coloc_topology.gres_conf import Gpu
from coloc_topology.nvml_shape import FileOrder, order_from_files, pci_order
from coloc_topology.shape import Shape, idx, mask_of
from coloc_topology.slurm_nodes import SlurmNode
from coloc_topology.source import Source

_NUMBER = re.compile(r"/dev/(?:nvidia|dri/renderD|dri/card)([0-9]{1,4})")


class Worth(NamedTuple):
    """A finding without its nodes."""

    severity: str
    code: str
    text: str


class Findings:
    """Findings of one node."""

    def __init__(self) -> None:
        self.all: list[Worth] = []

    def error(self, code: str, text: str) -> None:
        """Slurm or coloc work on wrong facts."""
        self.all.append(Worth("error", code, text))

    def warning(self, code: str, text: str) -> None:
        """Jobs get worse GPUs than the node has."""
        self.all.append(Worth("warning", code, text))

    def note(self, code: str, text: str) -> None:
        """Worth knowing, nothing to repair."""
        self.all.append(Worth("note", code, text))


class Subject(NamedTuple):
    """One node type: its GPUs in gres.conf, its AutoDetect values, what Slurm and a source say of it."""

    gpus: tuple[Gpu, ...]
    autodetect: tuple[str, ...]
    node: SlurmNode | None
    source: Source | None
    release: tuple[int, int] | None
    inverted: tuple[int, int]

    @property
    def detects(self) -> str | None:
        """How slurmd finds GPUs by itself; None: it does not."""
        last = self.autodetect[-1] if self.autodetect else None
        return None if last in (None, "off") else last

    @property
    def files(self) -> tuple[str | None, ...]:
        """The device files in Slurm's order."""
        return tuple(gpu.file for gpu in self.gpus)


def gres(s: Subject, found: Findings) -> None:
    """What gres.conf alone shows."""
    if len(s.autodetect) > 1:
        found.error("autodetect", f"gres.conf gives it AutoDetect={' and AutoDetect='.join(s.autodetect)}; keep one")
    if s.detects is not None:
        said = [key for key in ("links", "cores") if any(getattr(gpu, key) is not None for gpu in s.gpus)]
        if said:
            both = f"AutoDetect={s.detects} and lines with {' and '.join(k.title() for k in said)} both describe it"
            text = f"{both}; slurmd ignores a GPU whose line differs from what it finds, so keep one"
            found.warning("autodetect", text)
        return
    files = [file for file in s.files if file is not None]
    twice = next((file for file in files if files.count(file) > 1), None)
    if twice is not None:
        found.error("file-twice", f"{twice} stands for {files.count(twice)} of its GPUs")
    if s.gpus and len(files) < len(s.gpus):
        missing = idx(mask_of(gpu.index for gpu in s.gpus if gpu.file is None))
        if files:
            found.error(
                "file-missing", f"GPU {missing} has no File, but others have; slurmd refuses to start with that"
            )
        else:
            found.warning("file-missing", f"GPU {missing} has no File, so slurmd confines no job to its devices")
    untyped = [gpu.index for gpu in s.gpus if not gpu.type]
    if untyped and len(untyped) < len(s.gpus):
        text = f"GPU {idx(mask_of(untyped))} has no Type, but others have; slurmd refuses to start with that"
        found.error("types", text)
    some = [gpu.index for gpu in s.gpus if gpu.links is None]
    if some and len(some) < len(s.gpus):
        found.warning("links-missing", f"GPU {idx(mask_of(some))} has no Links, but others have")


def slurm(s: Subject, found: Findings) -> None:
    """What gres.conf and Slurm's own counts say of each other."""
    if s.node is None:
        return
    count = s.node.gpus
    if not s.gpus:
        if count and s.detects is None:
            found.error("gpus-missing", f"Slurm gives it {count} GPUs, but gres.conf has none for it")
        return
    if s.detects is None and count != len(s.gpus):
        found.error("count", f"gres.conf lists {len(s.gpus)} GPUs, but Slurm gives it {count}")
    far = [gpu for gpu in s.gpus if beyond(s.node, gpu.cores)]
    if far:
        text = f"Cores={far[0].cores} of GPU {far[0].index} is beyond the {s.node.all_cores} cores that Slurm counts"
        found.error("cores-range", f"{text}; Slurm takes that for an error")
    kinds = {kind for kind, _ in s.node.types}
    known = {gpu.type.lower() for gpu in s.gpus}
    strange = sorted(kind for kind in kinds if kind.lower() not in known)
    if kinds and "" not in kinds and strange and s.detects is None:
        found.error("types", f"Slurm expects GPUs of type {', '.join(strange)}, but gres.conf has none of them")


def beyond(node: SlurmNode | None, cores: str | None) -> bool:
    """Whether a core list names cores that Slurm does not count on the node."""
    known = cpulist.ranges(cores or "")
    return known is not None and node is not None and node.all_cores is not None and known[-1][1] >= node.all_cores


def numbering(s: Subject) -> FileOrder:
    """Which of the source's GPUs each of Slurm's is; only a dump tells minor numbers, else Files must be ascending."""
    source = s.source
    assert source is not None
    if s.detects is not None or not s.gpus:
        order = pci_order(source.facts) if source.facts is not None else tuple(range(source.shape.gpus))
        return FileOrder(order, ())
    if source.facts is not None:
        return order_from_files(source.facts, s.files)
    minors = [int(m[1]) if file is not None and (m := _NUMBER.fullmatch(file)) else None for file in s.files]
    known = [minor for minor in minors if minor is not None]
    if len(s.gpus) != source.shape.gpus:
        return FileOrder(None, (f"gres.conf lists {len(s.gpus)} GPUs, {source.kind} shows {source.shape.gpus}",))
    if len(known) != len(minors) or known != sorted(set(known)):
        why = (
            "Files are not in ascending order and nvidia-smi tells no device numbers; give a dump of `coloc topo dump`"
        )
        return FileOrder(None, (why,))
    return FileOrder(tuple(range(len(minors))), ())


def devices(s: Subject, found: Findings) -> None:
    """Which device each index is, and whether that is the PCI order."""
    source = s.source
    assert source is not None
    for note in source.notes:
        found.note("facts", note)
    if s.node is not None and s.node.gpus != source.shape.gpus:
        found.error("count", f"the server has {source.shape.gpus} GPUs, but Slurm gives it {s.node.gpus}")
    order, wrong = numbering(s)
    kind = "file" if source.facts is not None else "order-unknown"
    for text in wrong:
        (found.error if source.facts is not None else found.warning)(kind, text)
    if order is None or source.facts is None:
        return
    pci = list(pci_order(source.facts))
    ranked = [pci.index(nvml) for nvml in order]
    if ranked != sorted(ranked):
        first = next(i for i, place in enumerate(ranked) if place != i)
        text = (
            f"Slurm's GPU {first} is {s.files[first]}, which is number {ranked[first]} in PCI order: Slurm's indices are not "
            "those of NVML, nvidia-smi and CUDA_DEVICE_ORDER=PCI_BUS_ID"
        )
        found.warning("order", text)


def in_slurms_order(s: Subject) -> Shape | None:
    """The source's shape in Slurm's present order; None: the order is not known."""
    order = numbering(s).order
    return None if order is None or s.source is None else reordered(base(s.source), order)


def base(source: Source) -> Shape:
    """The source's shape in NVML's own order."""
    back = sorted(source.numbers, key=lambda number: number.nvml)
    return reordered(source.shape, [number.slurm for number in back]) if back else source.shape


def reordered(shape: Shape, order: Sequence[int]) -> Shape:
    """The shape with GPU `order[i]` as number i."""
    numa = tuple(shape.numa[i] for i in order) if shape.numa else ()
    cores = tuple(shape.cores[i] for i in order) if shape.cores else ()
    return Shape(shape.name, tuple(tuple(shape.links[i][j] for j in order) for i in order), numa, cores)


def uneven(shape: Shape) -> bool:
    """Whether the pairs have different numbers of NVLinks, so that Slurm's `Links` make a difference."""
    count = shape.gpus
    return len({shape.pair_nvlinks(i, j) for i in range(count) for j in range(i)}) > 1


def links(s: Subject, found: Findings) -> None:
    """`Links` against the real ones."""
    real = in_slurms_order(s)
    told = {gpu.index: gpu.links for gpu in s.gpus if gpu.links is not None and len(gpu.links) == len(s.gpus)}
    if real is None or s.detects is not None or not told or real.gpus != len(s.gpus):
        return
    values = {number for i, row in told.items() for j, number in enumerate(row) if i != j}
    if not uneven(real) and len(values) < 2:
        return  # all pairs alike, here and there: whatever the number, it makes no difference
    wrong = [(i, j) for i, row in told.items() for j, n in enumerate(row) if i != j and n != real.pair_nvlinks(i, j)]
    if wrong:
        i, j = wrong[0]
        many = f" ({len(wrong)} numbers are wrong)" if len(wrong) > 1 else ""
        text = f"Links says {told[i][j]} NVLinks between GPU {i} and {j}, but there are {real.pair_nvlinks(i, j)}{many}"
        found.error("links-wrong", text)


def right_cores(s: Subject, shape: Shape) -> list[str | None]:
    """`Cores` as they should be, in the order of the shape."""
    facts = s.source.facts if s.source is not None else None
    return [slurm_cores(cpus, facts.cores if facts is not None else None, s.node) for cpus in shape.cores]


def cores(s: Subject, found: Findings) -> None:
    """`Cores` against the real affinity."""
    real = in_slurms_order(s)
    if real is None or s.detects is not None or real.gpus != len(s.gpus) or None in real.cores or not real.cores:
        return
    near = [cpulist.ranges(text or "") for text in real.cores]
    missing = [gpu.index for gpu in s.gpus if gpu.cores is None]
    if missing:
        if len(set(near)) > 1:
            text = f"GPU {idx(mask_of(missing))} has no Cores, so Slurm does not know which GPUs are near a job's cores"
            found.warning("cores-missing", text)
        return
    said = [cpulist.ranges(gpu.cores or "") for gpu in s.gpus]
    right = right_cores(s, real)
    wrong = [i for i, text in enumerate(right) if text is not None and cpulist.ranges(text) != said[i]]
    if wrong:
        i = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        text = f"Cores={s.gpus[i].cores} of GPU {i} should be {right[i]}, the cores near it{more}"
        found.warning("cores-wrong", text)
    elif any((said[i] == said[j]) != (near[i] == near[j]) for i in range(len(said)) for j in range(i)):
        found.warning("cores-wrong", "Cores group the GPUs otherwise than their real CPU affinity does")


def sorting(s: Subject, found: Findings) -> None:
    """What this release makes of the links."""
    if s.detects is not None:
        shape = in_slurms_order(s) if s.detects == "nvml" and s.source is not None else None
        used = shape is not None and uneven(shape)
        how = f"AutoDetect={s.detects} gives Slurm"
    else:
        rows = [gpu.links for gpu in s.gpus if gpu.links is not None]
        used = len({n for row in rows for n in row if n >= 0}) > 1
        how = "its Links are"
    if used:
        text = f"{how} {'unequal links' if s.detects is not None else 'not all equal'}, and "
        if s.release is None:
            found.note(
                "release", text + "Slurm 24.05 and later would take the worst-linked GPUs; its release is not known"
            )
        elif s.release >= s.inverted:
            number = f"{s.release[0]}.{s.release[1]:02d}"
            text += f"Slurm {number} takes the worst-linked GPUs for --gres and --gpus-per-node; leave Links out"
            found.warning("links-inverted", text)
    elif s.detects is None and s.gpus and s.source is not None and not any(gpu.links for gpu in s.gpus):
        real = in_slurms_order(s)
        if s.release is not None and s.release < s.inverted and real is not None and uneven(real):
            text = "no Links, so Slurm takes the lowest free indices and not GPUs that are linked with each other"
            found.warning("links-missing", text)
