"""The gres.conf lines that would be right for a node type, as far as enough is known to write them."""

from collections.abc import Sequence

from coloc_topology.check_facts import Subject, base, beyond, numbering, reordered, right_cores, uneven
from coloc_topology.errors import TopologyError
from coloc_topology.gres_write import write_gres_conf
from coloc_topology.nvml_shape import pci_order
from coloc_topology.shape import Shape


def correct(subject: Subject, names: Sequence[str]) -> str:
    """Lines for these nodes, `Links` only where they do good on this release; empty: too little is known to write any."""
    order = right_order(subject)
    if order is None:
        return ""
    shape, files, types = order
    links = subject.release is not None and subject.release < subject.inverted and uneven(shape)
    flags = {",".join(gpu.flags) for gpu in subject.gpus}
    try:
        return write_gres_conf(names, shape, files, types, links=links, flags=flags.pop() if len(flags) == 1 else "")
    except TopologyError:
        return ""


def right_order(s: Subject) -> tuple[Shape, list[str], list[str]] | None:
    """Shape, files and types as lines should have them: PCI order within the order of the types; None: not known."""
    source = s.source
    if source is None:
        return _as_it_is(s)
    now = numbering(s).order
    if source.facts is not None:
        if any(gpu.minor is None for gpu in source.facts.gpus):
            return None
        order = list(pci_order(source.facts))
        file = {gpu.index: f"/dev/nvidia{gpu.minor}" for gpu in source.facts.gpus}
    elif now is not None and len(now) == len(s.files) and s.gpus and None not in s.files:
        order, file = list(now), {nvml: str(name) for nvml, name in zip(now, s.files, strict=True)}
    else:
        return None
    types = _types(s, now, len(order))
    if types is None:
        return None
    kinds = [kind for kind, _ in s.node.types] if s.node is not None else []
    order.sort(key=lambda nvml: kinds.index(types[nvml]) if types[nvml] in kinds else len(kinds))
    shape = reordered(base(source), order)
    shape = Shape(shape.name, shape.links, shape.numa, _cores(s, shape, order, now))
    return shape, [file[nvml] for nvml in order], [types[nvml] for nvml in order]


def _cores(s: Subject, shape: Shape, order: Sequence[int], now: Sequence[int] | None) -> tuple[str | None, ...]:
    """`Cores` in the new order; where the right ones cannot be told, those that gres.conf has."""
    had: dict[int, str | None] = {}
    if now is not None and s.detects is None and len(s.gpus) == len(now):
        had = {n: gpu.cores for n, gpu in zip(now, s.gpus, strict=True) if not beyond(s.node, gpu.cores)}
    return tuple(
        right or had.get(nvml) for nvml, right in zip(order, right_cores(s, shape) or [None] * len(order), strict=True)
    )


def _types(s: Subject, now: Sequence[int] | None, count: int) -> list[str] | None:
    """The type of each of the source's GPUs; None: not known."""
    if now is not None and len(s.gpus) == count:
        by_gpu = {nvml: gpu.type for nvml, gpu in zip(now, s.gpus, strict=True)}
        return [by_gpu[nvml] for nvml in range(count)]
    told = {gpu.type for gpu in s.gpus} or {kind for kind, _ in (s.node.types if s.node is not None else ())} or {""}
    return [told.pop()] * count if len(told) == 1 else None


def _as_it_is(s: Subject) -> tuple[Shape, list[str], list[str]] | None:
    """gres.conf's own order and cores, for a release on which its Links have to go."""
    count = len(s.gpus)
    if s.detects is not None or not count or None in s.files or len(set(s.files)) != count:
        return None
    if s.release is None or s.release < s.inverted:
        return None
    links = tuple(tuple("X" if i == j else "SYS" for j in range(count)) for i in range(count))
    files = [file for file in s.files if file is not None]
    return Shape("gres", links, (), tuple(gpu.cores for gpu in s.gpus)), files, [gpu.type for gpu in s.gpus]
