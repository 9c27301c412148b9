"""Slurm's core numbers of this machine: what `Cores=` of gres.conf counts, which is not what the kernel counts."""

import re
from pathlib import Path

from coloc_topology import cpulist

SYSTEM = "/sys/devices/system/cpu"


def read_cores(folder: str = SYSTEM) -> tuple[str, ...] | None:
    """CPUs of the operating system for each of Slurm's cores; None: the kernel does not tell.

    Slurm numbers cores socket by socket, sockets and cores by their lowest CPU.
    """
    cores: dict[str, tuple[int, int]] = {}
    sockets: dict[int, int] = {}
    for cpu in sorted(
        (int(found[1]), path) for path in _folders(folder) if (found := re.fullmatch(r"cpu([0-9]{1,6})", path.name))
    ):
        number, path = cpu
        try:
            socket = int((path / "topology/physical_package_id").read_text())
            siblings = _siblings(path)
        except (OSError, ValueError):
            continue  # an offline CPU has no topology
        sockets.setdefault(socket, number)
        cores.setdefault(siblings, (socket, number))
    if not cores or any(cpulist.ranges(threads) is None for threads in cores):
        return None
    return tuple(sorted(cores, key=lambda threads: (sockets[cores[threads][0]], cores[threads][1])))


def _folders(folder: str) -> list[Path]:
    try:
        return list(Path(folder).iterdir())
    except OSError:
        return []


def _siblings(path: Path) -> str:
    try:
        return (path / "topology/core_cpus_list").read_text().strip()
    except OSError:
        return (path / "topology/thread_siblings_list").read_text().strip()
