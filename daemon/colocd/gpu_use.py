"""Who holds the GPUs of a view."""

from colocd.core.readings import NodeReadings
from colocd.core.view import JobState, Node, View

_HOLDS = (JobState.RUNNING, JobState.SUSPENDED, JobState.COMPLETING, JobState.CONFIGURING)


def gpu_use(view: View) -> dict[str, int]:
    """GPUs by use: `total, serving, batch, free, failed, other, unknown`.

    `failed`: in nobody's hands and not given out. `other`: jobs that are not coloc's, and free GPUs of nodes that are not up.
    `unknown`: nodes whose use is not readable.
    """
    replicas = {r.job for s in view.services for r in s.replicas if r.job is not None}
    held = {"serving": 0, "batch": 0}
    for job in view.jobs:
        if job.state in _HOLDS and job.gpus:
            use = "serving" if job.ref in replicas else "batch" if job.checkpoint is not None else None
            if use is not None:
                held[use] += sum(mask.bit_count() for mask in job.gpus.values())
    total = sum(n.gpus for n in view.nodes)
    unknown = sum(n.gpus for n in view.nodes if n.used is None)
    free = sum(n.free.bit_count() for n in view.nodes)
    failed = sum((n.failed & ~n.used).bit_count() for n in view.nodes if n.used is not None)
    other = max(0, total - unknown - free - failed - held["serving"] - held["batch"])
    return {"total": total, **held, "free": free, "failed": failed, "other": other, "unknown": unknown}


def gpu_busy(view: View) -> dict[str, float]:
    """How busy the GPUs with fresh readings are, 0 to 1, by `serving`, `batch` and `other` (foreign jobs, and nobody).

    A use of which no GPU was read is missing.
    """
    replicas = {r.job for s in view.services for r in s.replicas if r.job is not None}
    held: dict[str, dict[str, int]] = {"serving": {}, "batch": {}}
    for job in view.jobs:
        use = "serving" if job.ref in replicas else "batch" if job.checkpoint is not None else None
        if use is not None and job.state in _HOLDS:
            for node, mask in (job.gpus or {}).items():
                held[use][node] = held[use].get(node, 0) | mask
    told: dict[str, list[int]] = {}
    for node, read in view.gpus.items():
        serving, batch = held["serving"].get(node, 0), held["batch"].get(node, 0)
        for gpu, sm in enumerate(read.sm):
            if sm is not None:
                use = "serving" if serving >> gpu & 1 else "batch" if batch >> gpu & 1 else "other"
                told.setdefault(use, []).append(sm)
    return {use: sum(shares) / len(shares) / 100 for use, shares in told.items()}


def node_sentences(node: Node, read: NodeReadings | None, now: float) -> list[str]:
    """What is known of a node's GPUs beside Slurm, for people."""
    told = [f"GPU {bad.gpu} has failed and is not given out: {bad.why}" for bad in node.unfit]
    if read is not None:
        gpus = ", ".join(_one(i, read) for i in range(len(read.sm)))
        told.append(f"busy {max(0.0, now - read.at):.0f} s ago: {gpus}")
    return told


def _one(gpu: int, read: NodeReadings) -> str:
    """`GPU 3 60 % (40 GiB, 310 W)`; what is not told is left out."""
    sm, used, power = read.sm[gpu], read.used[gpu], read.power[gpu]
    more = ([] if used is None else [f"{used / 1024:.3g} GiB"]) + ([] if power is None else [f"{power:.0f} W"])
    behind = f" ({', '.join(more)})" if more else ""
    return f"GPU {gpu} {'unknown' if sm is None else f'{sm} %'}{behind}"
