"""The demo's report: facts from the store, from Slurm and from the jobs' own journals, and what must hold of them."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from coloc_topology.fit import fit_table
from coloc_topology.shape import Level, Shape, mask_of
from colocd.store.records import Handover, HandoverState
from demo.sample import Sample, share

PLACED = (HandoverState.VERIFIED, HandoverState.RELEASED)
KEYS = (
    *("slurm", "nodes", "gpus", "seconds", "placements", "placements_in_island", "reclaims", "victims"),
    *("checkpoints_acknowledged", "steps_lost", "jobs_submitted", "jobs_completed", "jobs_lost"),
    *("own_overhead_s", "utilisation", "utilisation_services_only"),
)
RECLAIMS_NEEDED = 3


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One batch job of the backlog as it ended. `steps` is what it had to do; `folder` holds journal and done file."""

    ref: str
    user: str
    gpus: int
    steps: int
    folder: Path
    deaf: bool = False


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the report is made of. `seen`: job to (node, indices) as the driver read them in Slurm."""

    slurm: str
    nodes: int
    shape: Shape
    seconds: float
    handovers: Sequence[Handover]
    jobs: Sequence[JobRecord]
    samples: Sequence[Sample]
    seen: Mapping[str, tuple[str, frozenset[int]]]


def steps_lost(journal: Path) -> int:
    """Steps done more than once: lines of the journal beyond the first of each step. A torn last line counts as not done."""
    try:
        lines = journal.read_text().split("\n")[:-1]
    except FileNotFoundError:
        return 0
    done = [line.split()[1] for line in lines if len(line.split()) == 3]
    return len(done) - len(set(done))


def completed(job: JobRecord) -> bool:
    """True when the job's done file says exactly the steps it had to do, and its journal has each of them."""
    try:
        said = json.loads((job.folder / "done").read_text())
        lines = (job.folder / "journal").read_text().splitlines()
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return said["steps"] == job.steps and {line.split()[1] for line in lines} == {str(k + 1) for k in range(job.steps)}


def in_island(handover: Handover, shape: Shape, seen: Mapping[str, tuple[str, frozenset[int]]]) -> bool:
    """True when the GPUs Slurm gave reach NVLINK and are those coloc wrote down; Slurm as the driver read it decides."""
    if handover.got is None or handover.job is None:
        return False
    ((wanted, want),) = handover.places.items()
    node, found = seen.get(handover.job, (wanted, None))
    mask = handover.got.get(wanted, 0) if found is None else mask_of(found)
    same = node == wanted and handover.got == {wanted: mask}
    return same and mask.bit_count() == want.bit_count() and fit_table(shape).level_of(mask) >= Level.NVLINK


def overhead(handover: Handover) -> float | None:
    """Seconds that were coloc's own: decision to last victim told, and GPUs free to replica submitted. None: not noted.

    The time victims need to checkpoint and Slurm needs to free GPUs is not coloc's.
    """
    told, submitted = handover.data.get("told_at"), handover.data.get("submitted_at")
    freed = handover.data.get("t", {}).get(HandoverState.FREED.value)
    if told is None or submitted is None or freed is None:
        return None
    decided = float(handover.data.get("decided_at", handover.created_at))
    return max(0.0, float(told) - decided) + max(0.0, float(submitted) - float(freed))


def placed(handovers: Iterable[Handover]) -> list[Handover]:
    """Handovers that ended with a replica on GPUs which were read back."""
    return [h for h in handovers if h.state in PLACED]


def make(facts: Facts) -> dict[str, Any]:
    """The report, with exactly the keys `KEYS`."""
    total = facts.nodes * facts.shape.gpus
    good = placed(facts.handovers)
    reclaims = [h for h in good if h.victims]
    costs = [cost for h in reclaims if (cost := overhead(h)) is not None]
    done = sum(completed(job) for job in facts.jobs)
    use = {name: share(facts.samples, total, services_only=only) for name, only in (("all", False), ("services", True))}
    report = {
        "slurm": facts.slurm,
        "nodes": facts.nodes,
        "gpus": total,
        "seconds": round(facts.seconds, 1),
        "placements": len(good),
        "placements_in_island": sum(in_island(h, facts.shape, facts.seen) for h in good),
        "reclaims": len(reclaims),
        "victims": sum(len(h.victims) for h in reclaims),
        "checkpoints_acknowledged": sum(len(set(h.data.get("acked", ())) & set(h.victims)) for h in reclaims),
        "steps_lost": sum(steps_lost(job.folder / "journal") for job in facts.jobs),
        "jobs_submitted": len(facts.jobs),
        "jobs_completed": done,
        "jobs_lost": len(facts.jobs) - done,
        "own_overhead_s": {
            "median": round(statistics.median(costs), 3) if costs else None,
            "max": round(max(costs), 3) if costs else None,
        },
        "utilisation": _rounded(use["all"]),
        "utilisation_services_only": _rounded(use["services"]),
    }
    assert tuple(report) == KEYS
    return report


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def lost_though_acknowledged(facts: Facts) -> dict[str, int]:
    """Jobs that acknowledged each time they were asked and yet did steps twice: ref to steps."""
    silent = {ref for h in facts.handovers for ref in h.victims if ref not in h.data.get("acked", ())}
    asked = {ref for h in facts.handovers for ref in h.data.get("acked", ())} - silent
    lost = {job.ref: steps_lost(job.folder / "journal") for job in facts.jobs if job.ref in asked}
    return {ref: steps for ref, steps in lost.items() if steps}


def failures(facts: Facts, report: Mapping[str, Any]) -> list[str]:
    """What does not hold, one sentence each; empty: the demo passed."""
    found = []
    if report["placements_in_island"] != report["placements"]:
        outside = [h for h in placed(facts.handovers) if not in_island(h, facts.shape, facts.seen)]
        found.append(f"replicas outside of an NVLink island: handovers {', '.join(str(h.id) for h in outside)}")
    if report["jobs_lost"]:
        lost = [job.ref for job in facts.jobs if not completed(job)]
        found.append(f"{report['jobs_lost']} batch jobs are lost or did not end in time: {', '.join(lost)}")
    found += [f"job {ref} acknowledged and lost {n} steps" for ref, n in lost_though_acknowledged(facts).items()]
    if report["reclaims"] < RECLAIMS_NEEDED:
        found.append(f"only {report['reclaims']} reclaims, at least {RECLAIMS_NEEDED} must happen")
    return found
