"""GPUs on nodes, `{"n1": 0b1111, "n2": 0b1111}`: how coloc speaks of where a replica sits."""

import re
from collections.abc import Iterable, Mapping

from coloc_topology.hostlist import fold
from coloc_topology.shape import bits, idx

_PIECES = re.compile(r"([0-9]+)")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Node names in Slurm's own order, numbers by value (n2 before n10). The first runs a job's batch script."""
    return tuple(sorted(names, key=lambda n: ([int(p) if p.isdigit() else p for p in _PIECES.split(n)], n)))


def gpus_words(mask: int) -> str:
    """GPUs for people: `GPUs 0-3`."""
    return f"GPU{'s' if len(bits(mask)) != 1 else ''} {idx(mask) or 'none'}"


def words(places: Mapping[str, int]) -> str:
    """Places for people: `GPUs 0-3 of n1`, `GPUs 0-7 of n[1-4]`, `GPUs 0-3 of n1 and GPUs 4-7 of n2`."""
    same: dict[int, list[str]] = {}
    for name in in_order(places):
        same.setdefault(places[name], []).append(name)
    return " and ".join(f"{gpus_words(mask)} of {fold(names)}" for mask, names in same.items()) or "no GPUs"
