"""Server types as the stand-in for NVML describes them, one fact a line."""

from collections.abc import Sequence

GIB = 1 << 30
HYBRID_CUBE_MESH = (
    "X NV1 NV1 NV2 NV2 SYS SYS SYS|NV1 X NV2 NV1 SYS NV2 SYS SYS|NV1 NV2 X NV2 SYS SYS NV1 SYS|NV2 NV1 NV2 X SYS SYS SYS NV1"
    "|NV2 SYS SYS SYS X NV1 NV1 NV2|SYS NV2 SYS SYS NV1 X NV2 NV1|SYS SYS NV1 SYS NV1 NV2 X NV2|SYS SYS SYS NV1 NV2 NV1 NV2 X"
)
CLUSTER = "0123456789abcdef0123456789abcdef"


def bus(number: int) -> str:
    return f"00000000:{number:02X}:00.0"


def gpus(
    count: int, name: str, *, minors: Sequence[int] | None = None, half: int | None = None, smt: bool = True
) -> str:
    """`count` GPUs on buses 10, 20…; the second half on NUMA node 1; two sockets of 8 cores, with two threads each."""
    half = count if half is None else half
    lines = []
    for i in range(count):
        far = i >= half
        cpus = ("8-15" if far else "0-7") + (",24-31" if far else ",16-23") * smt
        lines += [
            f"gpu {i} uuid GPU-{i:08x}-0000-0000-0000-000000000000",
            f"gpu {i} name {name}",
            f"gpu {i} bus {bus(0x10 * (i + 1))}",
            f"gpu {i} minor {i if minors is None else minors[i]}",
            f"gpu {i} memory {80 * GIB}",
            f"gpu {i} numa {int(far)}",
            f"gpu {i} cpus {cpus}",
        ]
    return "\n".join(lines) + "\n"


def paths(count: int, half: int, near: int = 30, far: int = 50, peers: int = 5) -> str:
    """PCIe paths: `near` within a half, `far` between them; and the same NVLink peer status for all pairs."""
    lines = []
    for i in range(count):
        for j in range(i + 1, count):
            lines += [f"path {i} {j} {near if (i < half) == (j < half) else far}", f"peer {i} {j} {peers}"]
    return "\n".join(lines) + "\n"


def matrix(words: str) -> str:
    """Direct NVLinks of a matrix: each GPU's links numbered in the order of the row; peers over NVLink are ok."""
    lines = []
    for i, row in enumerate(words.split("|")):
        link = 0
        for j, word in enumerate(row.split()):
            for _ in range(int(word[2:]) if word.startswith("NV") else 0):
                lines += [f"link {i} {link} gpu {bus(0x10 * (j + 1))}", f"peer {i} {j} 0"]
                link += 1
    return "\n".join(lines) + "\n"


def switch(count: int, links: int, kind: str = "switch", where: str | None = None) -> str:
    """All links of all GPUs lead into NVSwitches."""
    there = where or bus(0xC5)
    lines = [f"link {i} {link} {kind} {there}" for i in range(count) for link in range(links)]
    lines += [f"peer {i} {j} 0" for i in range(count) for j in range(i + 1, count)]
    return "\n".join(lines) + "\n"


def fabric(count: int, cluster: str, clique: int, state: int = 3) -> str:
    return "".join(f"fabric {i} {state} {clique} {cluster}\n" for i in range(count))


DGX1 = gpus(8, "Tesla V100-SXM2-16GB", half=4) + paths(8, 4) + matrix(HYBRID_CUBE_MESH)
HGX_H100 = gpus(8, "NVIDIA H100 80GB HBM3", half=4) + paths(8, 4, 40) + switch(8, 18) + fabric(8, "0" * 32, 0)
HGX_A100 = gpus(8, "NVIDIA A100-SXM4-80GB", half=4) + paths(8, 4, 20) + switch(8, 12)
BRIDGES = (
    gpus(4, "NVIDIA A100 80GB PCIe", half=2)
    + paths(4, 2, 40)
    + matrix("X SYS NV12 SYS|SYS X SYS NV12|NV12 SYS X SYS|SYS NV12 SYS X")
)
FLAT = gpus(4, "NVIDIA L40S", half=2) + paths(4, 2, 40)
ONE = gpus(1, "NVIDIA H200", smt=False)
GB200 = (
    gpus(4, "NVIDIA GB200", half=2, smt=False)
    + "".join(f"gpu {i} own_numa {2 + 8 * i}\n" for i in range(4))
    + paths(4, 2, 40)
    + switch(4, 18, "switch", bus(0))
    + fabric(4, CLUSTER, 7)
)
_QUAD_LINKS = paths(8, 4) + matrix(
    "|".join(" ".join("X" if i == j else "NV4" if i // 4 == j // 4 else "SYS" for j in range(8)) for i in range(8))
)
QUADS = gpus(8, "NVIDIA H100 80GB HBM3", half=4) + _QUAD_LINKS
QUADS_SWAPPED = gpus(8, "NVIDIA H100 80GB HBM3", half=4, minors=(4, 5, 6, 7, 0, 1, 2, 3)) + _QUAD_LINKS
SERVERS = {
    "dgx1": DGX1,
    "hgx_h100": HGX_H100,
    "hgx_a100": HGX_A100,
    "bridges": BRIDGES,
    "flat": FLAT,
    "one": ONE,
    "gb200": GB200,
    "quads": QUADS,
    "quads_swapped": QUADS_SWAPPED,
}
