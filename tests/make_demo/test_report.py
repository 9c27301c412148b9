"""The report: counted right, and it fails the demo when it should."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from demo import curve, report, sample
from demo.report import Facts, JobRecord

from coloc_topology.shape import quads
from colocd.store.records import Handover, HandoverState

ACKED: dict[str, Any] = {"acked": ["1"], "told_at": 101.5, "submitted_at": 110.25, "t": {"freed": 110.0}}


def handover(**changes: Any) -> Handover:
    base = Handover(
        id=1,
        service="chat",
        slot=1,
        places={"n1": 0b1111},
        level="NVLINK",
        victims=("1",),
        state=HandoverState.RELEASED,
        job="50",
        got={"n1": 0b1111},
        created_at=100.0,
        updated_at=111.0,
        data=ACKED,
    )
    return msgspec.structs.replace(base, **changes)


def job(folder: Path, ref: str, steps: list[int], wanted: int, said: int | None) -> JobRecord:
    folder = folder / ref
    folder.mkdir()
    (folder / "journal").write_text("".join(f"0 {step} 1.0\n" for step in steps))
    if said is not None:
        (folder / "done").write_text(json.dumps({"steps": said, "starts": 1}))
    return JobRecord(ref=ref, user="nobody", gpus=1, steps=wanted, folder=folder)


def facts(folder: Path, **changes: Any) -> Facts:
    base = Facts(
        slurm="22.05.8",
        nodes=4,
        shape=quads(),
        seconds=200.0,
        handovers=[handover(id=k) for k in (1, 2, 3)],
        jobs=[job(folder, "1", [1, 2, 3], 3, 3)],
        samples=[],
        seen={"50": ("n1", frozenset({0, 1, 2, 3}))},
    )
    return msgspec.structs.replace(base, **changes)


def test_a_good_day(tmp_path: Path) -> None:
    samples = [sample.Sample(at=t, ready=8, starting=4, batch=16) for t in (0.0, 1.0, 2.0)]
    day = facts(tmp_path, samples=samples)
    said = report.make(day)
    assert list(said) == list(report.KEYS)
    assert said["placements"] == said["placements_in_island"] == said["reclaims"] == said["victims"] == 3
    assert said["checkpoints_acknowledged"] == 3
    assert said["own_overhead_s"] == {"median": 1.75, "max": 1.75}
    assert (said["utilisation"], said["utilisation_services_only"]) == (0.75, 0.25)
    assert (said["jobs_submitted"], said["jobs_completed"], said["jobs_lost"], said["steps_lost"]) == (1, 1, 0, 0)
    assert report.failures(day, said) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"got": {"n1": 0b11011}},
        {"got": {"n1": 0b11110}},
        {"got": {"n1": 0b111}},
        {"got": None},
        {"places": {"n2": 0b1111}},
    ],
)
def test_a_replica_elsewhere_fails(tmp_path: Path, changes: dict[str, Any]) -> None:
    day = facts(tmp_path, handovers=[handover(), handover(id=2), handover(id=3, **changes)])
    assert any("handovers 3" in text for text in report.failures(day, report.make(day)))


def test_slurms_word_counts_not_colocs(tmp_path: Path) -> None:
    """coloc wrote 0-3, the driver saw 2-5 in Slurm."""
    day = facts(tmp_path, seen={"50": ("n1", frozenset({2, 3, 4, 5}))})
    assert report.make(day)["placements_in_island"] == 0


def test_few_reclaims_fail(tmp_path: Path) -> None:
    day = facts(tmp_path, handovers=[handover(), handover(id=2), handover(id=3, victims=())])
    assert any("only 2 reclaims" in text for text in report.failures(day, report.make(day)))


@pytest.mark.parametrize(("steps", "said"), [([1, 2], 2), ([1, 3], 3), ([1, 2, 3], None)])
def test_a_job_that_did_not_do_its_steps_is_lost(tmp_path: Path, steps: list[int], said: int | None) -> None:
    day = msgspec.structs.replace(facts(tmp_path), jobs=[job(tmp_path, "9", steps, 3, said)])
    assert report.make(day)["jobs_lost"] == 1


def test_lost_steps_fail_only_for_jobs_that_acknowledged(tmp_path: Path) -> None:
    again = [1, 2, 3, 2, 3]
    silent = handover(id=4, victims=("2",), data={"acked": []})
    both = [job(tmp_path, "2", again, 3, 3)]
    day = facts(tmp_path, handovers=[handover(), handover(id=2), handover(id=3), silent])
    day = msgspec.structs.replace(day, jobs=[*day.jobs, *both])
    said = report.make(day)
    assert said["steps_lost"] == 2
    assert report.failures(day, said) == []
    loud = msgspec.structs.replace(
        day, handovers=[handover(victims=("2",), data={"acked": ["2"]}, id=k) for k in (1, 2, 3)]
    )
    assert "job 2 acknowledged and lost 2 steps" in report.failures(loud, report.make(loud))


def test_unknown_overhead_is_not_zero(tmp_path: Path) -> None:
    day = facts(tmp_path, handovers=[handover(data={"acked": ["1"]})])
    assert report.make(day)["own_overhead_s"] == {"median": None, "max": None}


def test_slurms_words_are_read() -> None:
    line = (
        "JobId=7 JobName=x UserId=root(0) JobState=RUNNING Reason=None Comment=[coloc-own key=a] "
        "JOB_GRES=gpu:h100:5 Nodes=n1 CPU_IDs=0-1 Mem=0 GRES=gpu:h100:3(IDX:0-1,5) "
        "Nodes=n2 CPU_IDs=0 Mem=0 GRES=gpu:a:2(IDX:0,7),gpu:b:0(IDX:) MinCPUsNode=1\n"
        "JobId=8 JobName=y JobState=PENDING Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:1(IDX:3)\n"
    )
    (found,) = sample.allocations(line)
    assert found.gpus == {"n1": frozenset({0, 1, 5}), "n2": frozenset({0, 7})}
    assert (found.job, found.ours, found.count) == ("7", True, 5)
    assert sample.sample(1.0, [found], {"7"}).ready == 5
    assert sample.sample(1.0, [found], set()).starting == 5


def test_the_day_has_what_it_promises() -> None:
    """Yesterday foretells the morning, and nothing of the surprise."""
    gap = {t: curve.load_at(curve.TODAY, t) - curve.load_at(curve.YESTERDAY, t) for t in range(int(curve.DAY))}
    assert all(gap[t] == 0 for t in range(69))
    assert gap[75] > 3 * curve.CAPACITY
    rows = curve.history(1000.0, days=2)
    assert rows[0][0] == 1000.0 - 2 * curve.DAY
    assert rows[-1][0] < 1000.0
    assert [t for t, _ in rows] == sorted({t for t, _ in rows})
    assert (curve.clock_face(0), curve.clock_face(curve.DAY / 2)) == ("00:00", "12:00")
