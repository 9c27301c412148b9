"""An eviction is counted once, also when colocd dies between the note of it and the requeue, on a clock as fine as a real one."""

from pathlib import Path

import pytest
from tests.helpers.rig import Rig

from colocd.core.view import JobState


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("fraction", [0.0, 0.1234567, 0.9999996, 0.5000004, 0.3333333])
def test_counted_once(tmp_path: Path, fraction: float) -> None:
    rig = Rig(tmp_path)
    rig.clock.advance(fraction)
    victim = rig.batch("train", 4)
    h = rig.start(0b0011, (victim,))

    def die(name: str, args: object) -> None:
        if name == "requeue":
            raise Crash

    rig.slurm.on_call = die
    with pytest.raises(Crash):
        rig.drive(h)
    rig.slurm.on_call = None
    rig.restart()
    rig.drive(h)
    (row,) = rig.store.jobs()
    assert (row.evictions, row.ours) == (1, True)
    assert rig.job(victim).state is JobState.PENDING
