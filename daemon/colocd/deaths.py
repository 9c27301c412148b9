"""Deaths on resume: runs after the first that end soon, not by coloc, and leave nothing new. After two a job is parked."""

import msgspec

from colocd.core.view import Job, JobState
from colocd.store.records import BatchJob, Run

MAX_DEATHS = 2
"""Runs in a row that end soon after a resume, with nothing new saved, before a job is parked."""
SOON = 600.0
"""Seconds within which the end of such a run counts as a death on resume."""


def after_run(row: BatchJob, job: Job, run: Run, now: float) -> BatchJob:
    """The row of a job after a run of its that was seen; one that went on for longer, or saved, or ended well, starts anew."""
    resumed = job.restarts >= 2 or (job.restarts >= 1 and job.state in (JobState.DONE, JobState.FAILED))
    if run.end == "evicted":
        return row
    length = max(0.0, (run.ended if run.ended is not None else run.started) - run.started)
    if run.end in ("requeued", str(JobState.FAILED)) and resumed and run.saved is None and length < SOON:
        return _died(row, 1, now)
    return msgspec.structs.replace(row, deaths=0)


def after_unseen(old: BatchJob | None, row: BatchJob, job: Job, runs: int, now: float) -> BatchJob:
    """The row of a job after resumes that began and ended between two looks at Slurm, so that only its restarts tell of them.

    `old`: the row at the last look. A checkpoint that is new since then is one that some of them made.
    """
    if runs <= 0 or job.state is JobState.DONE or old is None or row.saved != old.saved:
        return row
    return _died(row, runs, now)


def _died(row: BatchJob, times: int, now: float) -> BatchJob:
    deaths = row.deaths + times
    if deaths < MAX_DEATHS:
        return msgspec.structs.replace(row, deaths=deaths, last_seen=now)
    why = f"it ended {deaths} times in a row within {SOON:.0f} s of a resume, without saving anything new"
    return msgspec.structs.replace(row, deaths=deaths, parked=why, parked_at=now, last_seen=now)
