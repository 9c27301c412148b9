"""Jobs that ask for a place and for something else that coloc cannot keep: left to Slurm before anybody is evicted."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.daemon.test_wishes import fill, wish
from tests.helpers.daemon_rig import DaemonRig

from colocd.asked import LATER, Asked, obstacle
from colocd.core.view import Held


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DaemonRig]:
    rig = DaemonRig(tmp_path)
    yield rig
    rig.close()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--exclude=n1", "excludes nodes itself (n1)"),
        ("--exclusive", "to be alone on its node"),
        ("--constraint=fast", "for nodes with fast (--constraint)"),
    ],
)
def test_nobody_is_evicted_for_a_job_that_asks_for_more(rig: DaemonRig, option: str, told: str) -> None:
    refs = fill(rig)
    ref = wish(rig, options=(option,))
    rig.run(60)
    assert rig.store.handovers() == ()
    assert all(rig.slurm.jobs([r])[r].restarts == 0 for r in refs)
    assert told in rig.daemon.answers.explain(ref)["now"]


RECORD = "JobId=7 JobName=x ExcNodeList=(null) Features=(null) OverSubscribe=OK TresPerNode=gres:gpu:2"


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (RECORD, None),
        (RECORD.replace("gpu:2", "gpu:a:2"), "GPUs of type a, and its partition has others"),
        (RECORD.replace("gres:gpu:2", "gres/gpu:a,gres/gpu=2"), "GPUs of type a"),
        (RECORD.replace("JobId=7", "JobId=7 HetJobId=6 HetJobOffset=1"), "a heterogeneous job"),
        (RECORD.replace("JobName=x", "JobName=x ExcNodeList=n1"), "does not tell ExcNodeList for certain"),
        ("", "does not tell ExcNodeList for certain"),
        (RECORD.replace("=OK", "=USER"), "to be alone"),
        (RECORD.replace("=OK", "=NO"), "to be alone"),
        (RECORD.replace("=OK", "=NO Exclusive=NO"), None),
        (RECORD.replace("=OK", "=NO Exclusive=NODE"), "to be alone"),
        (RECORD.replace("=OK", "=YES Exclusive=USER"), "to be alone"),
        (RECORD.replace("=OK", "=NO TresPerNode=gres:gpu:2 Comment=Exclusive=NO"), "to be alone"),
    ],
)
def test_what_slurm_tells_of_a_wish(record: str, told: str | None) -> None:
    found = obstacle(record, {"a", "b"})
    assert (found is None) == (told is None)
    assert told is None or told in (found or "")
    assert obstacle(RECORD.replace("gpu:2", "gpu:A:2"), {"a"}) is None


def test_a_record_is_asked_for_once_until_the_job_is_held_or_requeued(
    rig: DaemonRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(rig.slurm)
    refs = [wish(rig, partition="batch", held=True) for _ in range(10)]
    jobs = tuple(rig.slurm.jobs(refs).values())
    calls: list[str] = []
    whole = rig.slurm.record

    def record(ref: str) -> str:
        calls.append(ref)
        return whole(ref)

    monkeypatch.setattr(rig.slurm, "record", record)
    first = asked.look(jobs, ())
    assert (len(calls), [job.unplaced for job in first].count(LATER)) == (8, 2)
    second = asked.look(jobs, ())
    assert (len(calls), {job.unplaced for job in second}) == (10, {None})
    assert all(new is old for new, old in zip(asked.look(jobs, ()), second, strict=True))
    released = tuple(msgspec.structs.replace(job, held=Held.NO) for job in jobs[:1]) + jobs[1:]
    asked.look(released, ())
    assert calls[10:] == [jobs[0].ref]
