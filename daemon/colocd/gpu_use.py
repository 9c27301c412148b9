"""Who holds the GPUs of a view."""

from colocd.core.view import JobState, View

_HOLDS = (JobState.RUNNING, JobState.SUSPENDED, JobState.COMPLETING, JobState.CONFIGURING)


def gpu_use(view: View) -> dict[str, int]:
    """GPUs by use: `total, serving, batch, free, other, unknown`.

    `other`: jobs that are not coloc's, and free GPUs of nodes that are not up. `unknown`: nodes whose use is not readable.
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
    other = max(0, total - unknown - free - held["serving"] - held["batch"])
    return {"total": total, **held, "free": free, "other": other, "unknown": unknown}
