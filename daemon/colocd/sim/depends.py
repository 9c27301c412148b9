"""Dependencies of virtual jobs: what `--dependency` asks, and what of it has come true."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from colocd.core.view import JobState
from colocd.errors import SlurmRefused
from colocd.sim.model import ENDED, VJob

_REF = re.compile(r"(\d+)(?:_(\d+))?(?:\+(\d+))?")
_KINDS = ("after", "afterany", "afterok", "afternotok")
_WAITS = (JobState.PENDING, JobState.CONFIGURING)


class Wanted(NamedTuple):
    """One condition as Slurm tells it (`afterok:17`), with its kind and the job it is on; an array's number is all its tasks."""

    text: str
    kind: str
    number: int = 0
    task: int | None = None
    minutes: int = 0


def conditions(text: str) -> tuple[tuple[Wanted, ...], bool]:
    """The conditions of `afterok:17:18_2,singleton`, and whether one of them is enough (`?`). Raises `SlurmRefused`."""
    either = "?" in text
    found: list[Wanted] = []
    for part in text.split("?" if either else ","):
        kind, *refs = part.split(":")
        if part == "singleton":
            found.append(Wanted(part, part))
            continue
        for ref in refs:
            match = _REF.fullmatch(ref)
            if match is None or kind not in _KINDS:
                raise SlurmRefused("sbatch: Batch job submission failed: Job dependency problem")
            number, task, minutes = match.groups()
            found.append(
                Wanted(f"{kind}:{ref}", kind, int(number), None if task is None else int(task), int(minutes or 0))
            )
    return tuple(found), either


def settle(job: VJob, numbers: Mapping[int, Sequence[VJob]], wall: float) -> None:
    """Work out anew what a job still waits for. As Slurm does, forget what has come true, and all of it with one of `?`."""
    left: list[tuple[Wanted, str]] = []
    for one in job.wanted:
        word = _word(one, job, numbers, wall)
        if not word and job.either:
            left = []
            break
        if word:
            left.append((one, word))
    job.wanted = tuple(one for one, _ in left)
    sep = "?" if job.either else ","
    job.dependency = sep.join(sorted(f"{one.text}({word})" for one, word in left)) or None
    words = [word == "failed" for _, word in left]
    job.hopeless = bool(words) and (all(words) if job.either else any(words))


def _word(one: Wanted, job: VJob, numbers: Mapping[int, Sequence[VJob]], wall: float) -> str:
    """`unfulfilled`, `failed`, or nothing: it has come true, or nobody knows the job any more."""
    if one.kind == "singleton":
        alike = [o for jobs in numbers.values() for o in jobs if (o.user, o.sub.name) == (job.user, job.sub.name)]
        before = [o for o in alike if o.state not in ENDED and o.number != job.number]
        return "unfulfilled" if any(o.state is not JobState.PENDING or o.order < job.order for o in before) else ""
    others = [o for o in numbers.get(one.number, ()) if one.task is None or o.ref.endswith(f"_{one.task}")]
    if one.kind == "after":
        late = [o for o in others if o.state in _WAITS or (o.started or wall) + 60 * one.minutes > wall]
        return "unfulfilled" if late else ""
    good = {"afterok": (JobState.DONE,), "afternotok": (JobState.FAILED,)}.get(one.kind, tuple(ENDED))
    if any(o.state in ENDED and o.state not in good for o in others):
        return "failed"
    return "unfulfilled" if any(o.state not in ENDED for o in others) else ""
