"""Readings to send and to look at."""

from colocd.agent.wire import VERSION, Batch, GpuInfo, GpuSample, Sample


def infos(count: int = 8) -> tuple[GpuInfo, ...]:
    return tuple(
        GpuInfo(
            index=i, minor=i, uuid=f"GPU-{i:08x}", bus_id=f"00000000:{16 * (i + 1):02X}:00.0", name="H100", memory=81920
        )
        for i in range(count)
    )


def gpus(count: int = 8, **facts: object) -> tuple[GpuSample, ...]:
    told = {"sm": 50, "used": 1024, "power": 300_000, "jobs": (), **facts}
    return tuple(GpuSample(**told) for _ in range(count))  # type: ignore[arg-type]


def batch(node: str = "n1", run: str = "run-0001", first: int = 0, count: int = 2, **changes: object) -> Batch:
    samples = tuple(Sample(first + i, 5.0 * (count - 1 - i), gpus()) for i in range(count))
    facts = {
        "version": VERSION,
        "node": node,
        "run": run,
        "period": 5.0,
        "gpus": infos(),
        "samples": samples,
        **changes,
    }
    return Batch(**facts)  # type: ignore[arg-type]
