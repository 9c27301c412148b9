"""Slurm's core numbers and the operating system's CPU numbers: `Cores=` counts cores, affinities count CPUs."""

from collections.abc import Sequence

from coloc_topology import cpulist
from coloc_topology.shape import idx, mask_of
from coloc_topology.slurm_nodes import SlurmNode

MAX_CPUS = 4096


def numbers(text: str | None) -> frozenset[int] | None:
    """The numbers of a list; None: unknown, no list, or beyond belief."""
    found = None if text is None else cpulist.ranges(text)
    if found is None or found[-1][1] >= MAX_CPUS:
        return None
    return frozenset(number for low, high in found for number in range(low, high + 1))


def slurm_cores(cpus: str | None, cores: Sequence[str] | None, node: SlurmNode | None) -> str | None:
    """Slurm's cores for a list of CPUs; None: that cannot be told for certain.

    `cores[i]`: CPUs of Slurm's core i, as read on the node. Without it the usual numbering is taken (first threads of all
    cores, then the second ones), if Slurm's counts of sockets, cores and threads fit the list.
    """
    wanted = numbers(cpus)
    if wanted is None:
        return None
    total = None if node is None else node.all_cores
    if cores is not None:
        if total is not None and total != len(cores):
            return None
        threads = [numbers(text) or frozenset() for text in cores]
        return idx(mask_of(i for i, core in enumerate(threads) if core & wanted)) if wanted else None
    if node is None or total is None or node.threads is None:
        return None
    first = frozenset(cpu for cpu in wanted if cpu < total)
    if wanted != frozenset(cpu + total * thread for cpu in first for thread in range(node.threads)):
        return None
    return idx(mask_of(first))
