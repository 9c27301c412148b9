"""What a victim did when it was told to save is counted once, whatever dies meanwhile, and stands in for jobs like it."""

from pathlib import Path

import msgspec
import pytest
from tests.helpers.rig import Rig
from tests.helpers.views import AT, batch

from colocd.act.answers import with_answer
from colocd.core.policy import Policy
from colocd.core.view import Checkpoint, JobState
from colocd.habits import Habit, Habits
from colocd.memory import facts_of
from colocd.sim.program import Program
from colocd.store.records import BatchJob

ROW = BatchJob(ref="1", user="ann", name="train-1", first_seen=AT, last_seen=AT)
BEFORE = {"yielded": None, "restarts": 0, "saved": AT - 50}


def after(given: float = 120.0, restarts: int = 0, **mark: object) -> Habit:
    told = Checkpoint(**{"signal": "USR1", "saved": AT - 50, **mark})  # type: ignore[arg-type]
    job = batch(1, {"n1": 1}, checkpoint=told, restarts=restarts)
    row = with_answer(ROW, job, BEFORE, AT, given, Policy(grace=120.0), AT + 40)
    return Habit(row.answered, row.silent, row.took)


def test_what_counts_as_an_answer_and_what_as_silence() -> None:
    assert after(yielded=AT + 7, saved=AT + 7) == Habit(1, 0, 8.0)
    assert after(yielded=AT + 9e9, saved=AT + 7) == Habit(1, 0, 40.0), "no longer than our own clock says"
    assert after(yielded=AT + 7) == Habit(), "it gave way, but saved nothing"
    assert after(restarts=1) == Habit(1, 0, 40.0)
    assert after() == Habit(0, 1, None)
    assert after(given=60.0) == Habit(), "an emergency: it did not have its time"
    assert after(given=60.0, grace=45.0) == Habit(0, 1, None), "it had what it asks for"
    assert after(signal=None) == Habit()


@pytest.mark.parametrize("crash", [False, True])
def test_answers_and_silence_are_counted_once(tmp_path: Path, crash: bool) -> None:
    rig = Rig(tmp_path)
    good = rig.batch("good", 1, program=Program(signal="USR1", acks_after=4.0))
    bad = rig.batch("bad", 1, program=Program(signal="USR1", ignores=True))
    h = rig.start(0b0011, (good, bad))

    class Crash(BaseException):
        pass

    def die(name: str, args: object) -> None:
        if crash and name == "requeue":
            raise Crash

    rig.slurm.on_call = die
    if crash:
        with pytest.raises(Crash):
            rig.drive(h)
        rig.slurm.on_call = None
        rig.restart()
    rig.drive(h)
    rows = {r.ref: r for r in rig.store.jobs()}
    assert (rows[good].answered, rows[good].silent) == (1, 0)
    assert rows[good].took == pytest.approx(4.5, abs=1.0)
    assert (rows[bad].answered, rows[bad].silent, rows[bad].took) == (0, 1, None)
    assert {rig.job(ref).state for ref in (good, bad)} == {JobState.PENDING}


def test_a_job_that_was_never_told_is_judged_by_its_users_jobs_of_its_kind() -> None:
    def told(ref: str, at: float, **habit: object) -> BatchJob:
        return msgspec.structs.replace(ROW, ref=ref, name=f"train-{ref}", evicted_at=at, **habit)

    rows = [
        told("3", AT + 3, silent=1),
        told("2", AT + 2, answered=2, took=9.0),
        told("4", AT + 9, answered=1, took=5.0),
    ]
    ahead, back = Habits(), Habits()
    ahead.note([*rows, msgspec.structs.replace(ROW, ref="5")])
    for row in reversed(rows):
        back.note([row])
    assert ahead.of("ann", "train-77") == back.of("ann", "train-77") == Habit(3, 1, 5.0)
    assert ahead.of("bob", "train-77") is ahead.of("ann", "eval") is None
    fresh = facts_of(ROW, 0.0, None, ahead.of("ann", "train-1"))
    assert (fresh.answered, fresh.silent, fresh.took, fresh.alike) == (3, 1, 5.0, True)
    own = facts_of(rows[0], 0.0, None, ahead.of("ann", "train-3"))
    assert (own.answered, own.silent, own.took, own.alike) == (0, 1, None, False)
    ahead.note([told(str(n), AT + n, answered=1, took=1.0) for n in range(100, 200)])
    assert ahead.of("ann", "train-1") == Habit(64, 0, 1.0), "only the newest count"
