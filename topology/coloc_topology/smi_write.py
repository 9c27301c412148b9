"""Writes a shape the way `nvidia-smi topo -m` prints it; what `nvidia_smi` reads back."""

from collections.abc import Sequence

from coloc_topology.nvidia_smi import Nic
from coloc_topology.shape import Shape


def write_topo(shape: Shape, nics: Sequence[Nic] = (), title: str = "") -> str:
    """The matrix with CPU and NUMA affinity, and NICs with their kernel names; `title` becomes a line above it."""
    count = shape.gpus
    names = [f"GPU{i}" for i in range(count)] + [f"NIC{i}" for i in range(len(nics))]
    rows = ["\t".join(["", *names, "CPU Affinity", "NUMA Affinity"])]
    for i, words in enumerate(shape.links):
        near = [nic.links[i] or "" for nic in nics]
        cores = shape.cores[i] if i < len(shape.cores) else None
        numa = shape.numa[i] if i < len(shape.numa) else None
        facts = [cores or "N/A", "N/A" if numa is None else str(numa)]
        rows.append("\t".join([f"GPU{i}", *words, *near, *facts]))
    for n, nic in enumerate(nics):
        rows.append(
            "\t".join([f"NIC{n}", *(word or "" for word in nic.links), *("X" if m == n else "" for m in range(n + 1))])
        )
    legend = ["", "Legend:", "", "  X    = Self"]
    if nics:
        legend += ["", "NIC Legend:", "", *(f"  NIC{n}: {nic.device or nic.name}" for n, nic in enumerate(nics))]
    head = [f"# {title}"] if title else []
    return "\n".join([*head, *rows, *legend]) + "\n"
