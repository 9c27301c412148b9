"""Link levels and shapes: how the GPUs of one server type are joined."""

from collections.abc import Iterable
from enum import IntEnum

import msgspec


class Level(IntEnum):
    """How well a set of GPUs is joined, worst first; names follow `nvidia-smi topo -m`.

    `NVLINK`: every pair of the set has a direct NVLink (or all share an NVSwitch). `NVLINK_PARTIAL`: NVLinks connect
    the set, but not every pair directly (DGX-1's cube mesh). The others are PCIe and socket distances.
    """

    SYS = 0
    NODE = 1
    PHB = 2
    PXB = 3
    PIX = 4
    NVLINK_PARTIAL = 5
    NVLINK = 6


class Shape(msgspec.Struct, frozen=True):
    """The link matrix of one server type. GPU numbers are Slurm's indices (position in gres.conf).

    `links[i][j]` is nvidia-smi's word for the pair: `X` on the diagonal, `NV<n>` (n bonded NVLinks), `PIX`, `PXB`,
    `PHB`, `NODE` or `SYS`. `numa[i]` is GPU i's NUMA node, `cores[i]` the CPU list near it; None means unknown.
    """

    name: str
    links: tuple[tuple[str, ...], ...]
    numa: tuple[int | None, ...] = ()
    cores: tuple[str | None, ...] = ()

    @property
    def gpus(self) -> int:
        """Number of GPUs of a node of this shape."""
        return len(self.links)

    def pair_level(self, i: int, j: int) -> Level:
        """Level of the direct path between GPUs i and j (`NVLINK` for i = j)."""
        word = self.links[i][j]
        if i == j or word.startswith("NV"):
            return Level.NVLINK
        return Level[word]

    def pair_nvlinks(self, i: int, j: int) -> int:
        """Number of bonded NVLinks between GPUs i and j; 0 when the path is PCIe."""
        word = self.links[i][j]
        return int(word[2:]) if word.startswith("NV") else 0

    @property
    def all(self) -> int:
        """Bit mask of all GPUs."""
        return (1 << self.gpus) - 1


def bits(mask: int) -> tuple[int, ...]:
    """Indices of the set bits of a GPU mask, lowest first."""
    return tuple(i for i in range(mask.bit_length()) if mask >> i & 1)


def mask_of(indices: Iterable[int]) -> int:
    """Bit mask with the given indices set."""
    mask = 0
    for i in indices:
        mask |= 1 << i
    return mask


def idx(mask: int) -> str:
    """Slurm's notation of a GPU mask: `0-2,5`; `-` for none."""
    parts: list[str] = []
    run: list[int] = []
    for i in (*bits(mask), None):
        if i is not None and run and i == run[-1] + 1:
            run.append(i)
            continue
        if run:
            parts.append(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}")
        run = [] if i is None else [i]
    return ",".join(parts) or "-"


def quads(name: str = "quads") -> Shape:
    """Two islands of four fully NVLinked GPUs on two sockets, SYS between them: the demo's server."""
    links = tuple(tuple("X" if i == j else ("NV4" if i // 4 == j // 4 else "SYS") for j in range(8)) for i in range(8))
    return Shape(name, links, numa=(0,) * 4 + (1,) * 4, cores=("0-7",) * 4 + ("8-15",) * 4)
