"""What a job that asks for a place asks of Slurm besides: what coloc cannot keep is told, and Slurm alone places the job.

Nobody is evicted for a job that could not start there anyway. Slurm's record of a job is asked for when it is first seen, and
again when it was held, released or requeued.
"""

import re
from collections.abc import Collection, Sequence

import msgspec

from colocd.core.view import Held, Job, JobState, Node
from colocd.slurm.port import SlurmPort

AT_ONCE = 8
"""Records that are asked for in one cycle; the other jobs wait for the next."""
LATER = "coloc has not read yet what else it asks of Slurm"
_TYPE = re.compile(r"\bgpu[:/]([^\s:,=(]*[^\s:,=(0-9][^\s:,=(]*)")
_NONE = ("", "(null)", "N/A", "0")


class Asked:
    """Remembers what was read of each job."""

    def __init__(self, slurm: SlurmPort) -> None:
        self._slurm = slurm
        self._read: dict[tuple[str, Held, int], str] = {}
        self._marked: dict[str, tuple[Job, str | None, Job]] = {}

    def look(self, jobs: tuple[Job, ...], nodes: Sequence[Node]) -> tuple[Job, ...]:
        """The jobs, with `unplaced` where a job that waits for a place asks for something else, too. Raises Slurm's errors."""
        waiting = [j for j in jobs if j.request is not None and j.checkpoint is None and j.state is JobState.PENDING]
        if not waiting:
            self._read, self._marked = {}, {}
            return jobs
        # Held anew (as after a handover that failed) or requeued: it may have been changed meanwhile, so it is read again.
        keys = {(job.ref, job.held, job.restarts): job for job in waiting}
        self._read = {key: text for key, text in self._read.items() if key in keys}
        for key in [key for key in keys if key not in self._read][:AT_ONCE]:
            self._read[key] = self._slurm.record(key[0])
        told = {
            job.ref: obstacle(self._read[key], _types(job, nodes)) if key in self._read else LATER
            for key, job in keys.items()
        }
        self._marked = {job.ref: self._mark(job, told[job.ref]) for job in waiting}
        return tuple(self._marked[job.ref][2] if job.ref in told else job for job in jobs)

    def _mark(self, job: Job, why: str | None) -> tuple[Job, str | None, Job]:
        """The same object again while nothing changed: the planner keeps its arrays by it."""
        old = self._marked.get(job.ref)
        if old is not None and old[0] is job and old[1] == why:
            return old
        return job, why, job if why is None else msgspec.structs.replace(job, unplaced=why)


def _types(job: Job, nodes: Sequence[Node]) -> set[str]:
    return {kind.lower() for node in nodes if job.partition in node.partitions for kind in node.types}


def obstacle(record: str, types: Collection[str]) -> str | None:
    """Why coloc cannot place a job with this record of `scontrol -o show job`; None: it can.

    `types`: GPU types of the nodes in its partition. A fact that is missing, or stands there twice (users choose names and
    comments), counts as an obstacle: only the job's own user can have put it there.
    """
    if re.search(r"(^|\s)HetJobId=", record):
        return "it asks for a place as a part of a heterogeneous job"
    found = {}
    for key in ("ExcNodeList", "Features", "OverSubscribe"):
        values = re.findall(rf"(?:^|\s){key}=(\S*)", record)
        if len(values) != 1:
            return f"it asks for a place, and Slurm's record of it does not tell {key} for certain"
        found[key] = values[0]
    if found["ExcNodeList"] not in _NONE:
        return f"it asks for a place and excludes nodes itself ({found['ExcNodeList'][:60]})"
    if found["Features"] not in _NONE:
        return f"it asks for a place and for nodes with {found['Features'][:60]} (--constraint)"
    # From 26.05 on `Exclusive=` follows, and OverSubscribe=NO is any job's; before, NO was what --exclusive gave.
    exclusive = re.search(r"\sOverSubscribe=\S*\s+Exclusive=(\S*)", record)
    if (exclusive[1] != "NO") if exclusive else (found["OverSubscribe"] not in ("OK", "YES")):
        return "it asks for a place and to be alone on its node (--exclusive)"
    asked = {kind.lower() for text in re.findall(r"\sTresPer\w+=(\S*)", record) for kind in _TYPE.findall(text)}
    strange = sorted(asked) if asked and set(types) - asked else []
    if strange:
        return f"it asks for a place and for GPUs of type {', '.join(strange)}, and its partition has others, too"
    return None
