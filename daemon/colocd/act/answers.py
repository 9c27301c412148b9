"""What a victim's behaviour says of its word: it answered when it was told to save, was silent, or neither can be said."""

import msgspec

from colocd.core.grace import grace_of
from colocd.core.policy import Policy
from colocd.core.view import Job
from colocd.store.records import BatchJob

Marks = dict[str, float | int | None] | None


def with_answer(
    row: BatchJob, job: Job, before: Marks, told_at: float, grace: float, policy: Policy, now: float
) -> BatchJob:
    """The row of a victim that is about to be requeued, its answer (or silence) counted.

    `before`: its marks when it was told; None: unknown. It answered if it requeued itself, or said that it gives way *and*
    that it has saved since. It was silent if it said nothing although it had the grace that it asks for: what is cut short by an
    emergency proves nothing. An answer takes as long as its own clock says, within what ours has seen.
    """
    mark = job.checkpoint
    if before is None or mark is None or mark.signal is None:
        return row
    seen = max(0.0, now - told_at)
    if job.restarts != before["restarts"]:
        return msgspec.structs.replace(row, answered=row.answered + 1, took=round(seen, 3))
    if mark.yielded is not None and mark.yielded != before["yielded"]:
        if mark.saved is None or mark.saved == before.get("saved"):
            return row
        took = min(seen, max(0.0, mark.yielded + 1.0 - told_at))  # the job tells whole seconds, rounded down
        return msgspec.structs.replace(row, answered=row.answered + 1, took=round(took, 3))
    if grace < grace_of([job], policy, emergency=False):
        return row
    return msgspec.structs.replace(row, silent=row.silent + 1, took=None)
