"""What an agent sees on a busy server, as the stand-in for NVML describes it."""

from tests.nvml.servers import DGX1, FLAT, GIB, HGX_H100, ONE

MIB = 1 << 20


def busy(count: int, *, sm: int = 60) -> str:
    """Utilisation, memory, power, clocks, NVLink counters and error counts of `count` GPUs."""
    return "".join(
        f"gpu {i} {fact} {value}\n"
        for i in range(count)
        for fact, value in {
            "sm": sm,
            "membusy": sm // 2,
            "used": (i + 1) * GIB,
            "power": 300_000 + i,
            "clock": 1980,
            "mclock": 2619,
            "tx": 1000 + i,
            "rx": 2000 + i,
            "linkerr": 0,
            "ecc": 0,
            "corrected": 0,
            "remap": 0,
        }.items()
    )


H100 = HGX_H100 + busy(8)
V100 = DGX1 + busy(8).replace("remap 0", "remap -1")
L40S = FLAT + busy(4).replace("tx 100", "tx -1 ").replace("rx 200", "rx -1 ")
BARE = ONE
"""A GPU whose driver tells next to nothing."""
