"""What Slurm says about its GPUs, read by the demo itself and not through coloc: the report must not rest on coloc's word."""

import re
from collections.abc import Iterable
from itertools import pairwise

import msgspec

GPU = re.compile(r"gpu[^,\s(]*\(IDX:([^)]*)\)")
DETAIL = re.compile(r"\bNodes=(\S+) CPU_IDs=\S+ Mem=\S+ GRES=(\S*)")


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """A running job and its GPUs: node to set of indices. `ours`: coloc submitted it (a replica, or a plug)."""

    job: str
    gpus: dict[str, frozenset[int]]
    ours: bool

    @property
    def count(self) -> int:
        """GPUs held."""
        return sum(len(indices) for indices in self.gpus.values())


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """GPUs in use at a time. `ready`: GPUs of ready replicas; `starting`: of other jobs of coloc's; `batch`: of batch jobs."""

    at: float
    ready: int
    starting: int
    batch: int


def indices(text: str) -> frozenset[int]:
    """Slurm's index list (`0-3,6`); empty for `` and `N/A`."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def allocations(text: str) -> tuple[Allocation, ...]:
    """Running jobs with GPUs in the output of `scontrol -d -o show job`."""
    found = []
    for line in text.splitlines():
        if " JobState=RUNNING " not in line:
            continue
        gpus: dict[str, frozenset[int]] = {}
        for node, gres in DETAIL.findall(line):
            gpus[node] = frozenset().union(*(indices(part) for part in GPU.findall(gres)))
        number = re.match(r"JobId=(\d+)", line)
        if number is not None and any(gpus.values()):
            found.append(Allocation(job=number.group(1), gpus=gpus, ours="[coloc-own " in line))
    return tuple(found)


def sample(at: float, running: Iterable[Allocation], ready_jobs: set[str]) -> Sample:
    """Count the GPUs; `ready_jobs` are the Slurm jobs of replicas that answer their ready check."""
    ready = starting = batch = 0
    for job in running:
        if job.job in ready_jobs:
            ready += job.count
        elif job.ours:
            starting += job.count
        else:
            batch += job.count
    return Sample(at=at, ready=ready, starting=starting, batch=batch)


def share(samples: Iterable[Sample], total: int, *, services_only: bool = False) -> float | None:
    """GPU-seconds in use over all there were between first and last sample (each counts until the next); None: too few."""
    rows = sorted(samples, key=lambda row: row.at)
    if len(rows) < 2 or rows[-1].at <= rows[0].at:
        return None
    used = 0.0
    for row, after in pairwise(rows):
        used += (row.ready + (0 if services_only else row.batch)) * (after.at - row.at)
    return used / (total * (rows[-1].at - rows[0].at))
