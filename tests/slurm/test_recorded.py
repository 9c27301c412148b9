"""Recorded answers of each release (tools/record_slurm.py), read again: the fields that changed between them do no harm."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from tests.slurm.replay import DATA, Replay

from coloc_topology import releases
from coloc_topology.releases import R22_05, R24_11, R26_05, TESTED
from colocd.asked import obstacle
from colocd.core.view import Held, Job, JobState
from colocd.slurm import nodes, rows
from colocd.slurm.port import Cluster

FOLDERS = [pytest.param(DATA / release.name, id=release.name) for release in TESTED]


def test_every_tested_release_is_recorded() -> None:
    assert sorted(folder.name for folder in DATA.iterdir()) == [release.name for release in TESTED]


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_read(folder: Path) -> None:
    """As it was when it was recorded and looked through."""
    wanted = msgspec.json.decode((folder / "read.json").read_bytes(), type=Cluster)
    found = Replay(folder).slurm().read()
    assert {job.ref: job for job in found.jobs} == {job.ref: job for job in wanted.jobs}
    assert found == wanted
    assert found.notes == ()
    assert releases.number(found.version) in {release.number for release in TESTED}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_scene(folder: Path) -> None:
    """What the recording script made, independent of how it was read then."""
    found = Replay(folder).slurm().read()
    jobs: dict[str, Job] = {job.ref: job for job in found.jobs}
    counts = {
        ref: {node: mask.bit_count() for node, mask in job.gpus.items()}
        for ref, job in jobs.items()
        if job.gpus is not None and job.state is JobState.RUNNING
    }
    assert counts == {
        "1": {"n1": 2},
        "2": {"n1": 3},
        "3": {"n2": 1, "n3": 1},
        "4": {"n2": 2},
        "5": {},
        "7_1": {"n2": 1},
        "7_2": {"n2": 1},
    }
    liar, dying = jobs["6"], next(job for job in found.jobs if job.name == "dies slowly")
    assert (liar.gpus, liar.time_limit, liar.checkpoint is not None) == (None, 5400.0, True)
    assert (dying.state, dying.gpus) == (JobState.COMPLETING, None)
    assert [jobs[ref].gpus_requested for ref in ("1", "2", "3", "4", "5", "6", "7_3", "10", "11")] == [
        *(2, 3, 2, 2, 0, 2, 1, 4, 1)
    ]
    assert [jobs[ref].held for ref in ("7_3", "10", "11", "12", "13", "14")] == [
        *(Held.NO, Held.USER, Held.NO, Held.ADMIN, Held.USER, Held.USER)
    ]
    requeued = next(job for job in found.jobs if job.name == "requeued")
    assert (requeued.state, requeued.held, requeued.restarts, requeued.gpus) == (JobState.PENDING, Held.ADMIN, 1, {})
    assert jobs["11"].request is not None
    inside = next(job for job in found.jobs if job.name == "in the fence")
    assert inside.reservation == "coloc-fence"
    assert [(n.name, n.up, n.fence, n.reserved) for n in found.nodes] == [
        ("n1", True, None, False),
        ("n2", True, None, False),
        ("n3", True, "coloc-fence", False),
        ("n4", False, None, True),
    ]
    assert found.nodes[3].used == 0, "an operator's reason cannot pass for GresUsed"
    assert {r.name: r.users for r in found.reservations} == {
        "coloc-fence": ("root",),
        "maintenance": ("root", "daemon"),
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_documented_defaults(folder: Path) -> None:
    answers = Replay(folder).answers
    config = answers["scontrol", "show", "config"]
    release = releases.habits(releases.number(folder.name))
    assert f"SLURM_VERSION           = {release.name}" in config
    assert ("MaxBatchRequeue" in config) == (release is not R22_05)
    records = answers["scontrol", "-a", "-d", "-o", "show", "job"]
    assert ("AllocTRES=" in records) == (release is not R22_05)
    assert ("SLUID=" in records) == (release is R26_05)


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_plain_job_asks_besides(folder: Path) -> None:
    """Nothing that hinders a place: each release says in its own words that a job does not want its node for itself."""
    told: dict[str, str | None] = {}
    for record in re.split(r"\n(?=JobId=)", Replay(folder).answers["scontrol", "-a", "-d", "-o", "show", "job"]):
        told.setdefault(record.split()[0].removeprefix("JobId="), obstacle(record, {"h100"}))
    assert {ref: told[ref] for ref in ("1", "3", "10", "11", "15")} == dict.fromkeys(("1", "3", "10", "11", "15"))
    assert "heterogeneous" in (told["13"] or "")


def test_columns_that_were_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a new column of squeue's does not ask for three Slurms at once."""
    monkeypatch.setattr(rows, "FIELDS", ("JobID", "Licenses", *(f for f in rows.FIELDS if f != "JobID")))
    found = Replay(DATA / "26.05").slurm().read()
    assert {job.ref for job in found.jobs} >= {"1", "7_1", "7_3"}


def test_nothing_of_the_recording_machine() -> None:
    for file in DATA.glob("*/*.json"):
        text = file.read_text()
        assert "coloc-slurm-" not in text
        assert "/home/" not in text
        assert "OS=Linux RealMemory" in text or file.name == "read.json"
        assert json.loads(text)


@pytest.mark.parametrize(
    ("said", "habits", "doubted"),
    [
        ("slurm 22.05.8", R22_05, False),
        ("24.05.2", R24_11, False),
        ("23.11.1", R22_05, False),
        ("slurm-wlm 24.11.5", R24_11, False),
        ("25.11.0", R24_11, False),
        ("26.05.5", R26_05, False),
        ("26.11.0", R26_05, True),
        ("27.05.1", R26_05, True),
        ("21.08.8", R22_05, True),
        ("", R22_05, True),
    ],
)
def test_habits(said: str, habits: releases.Release, doubted: bool) -> None:
    number = releases.number(said)
    assert releases.habits(number) is habits
    assert (releases.doubt(number) is not None) == doubted


def test_an_unknown_release_is_announced_and_read_with_care() -> None:
    replay = Replay(DATA / "26.05")
    replay.answers["scontrol", "--version"] = "slurm 27.11.0\n"
    key = ("scontrol", "-a", "-d", "-o", "show", "node")
    plain = replay.slurm().read()
    assert [node.up for node in plain.nodes] == [True, True, True, False]
    replay.answers[key] = replay.answers[key].replace("State=MIXED", "State=MIXED+QUANTUM", 1)
    found = replay.slurm().read()
    assert [node.up for node in found.nodes] == [False, True, True, False]
    (note,) = found.notes
    assert "27.11 is newer than 26.05" in note
    replay.answers["scontrol", "--version"] = "slurm 26.05.9\n"
    assert [node.up for node in replay.slurm().read().nodes] == [True, True, True, False]


@pytest.mark.parametrize("flag", ["COMPLETING", "PLANNED", "RESERVED", "CLOUD"])
def test_harmless_flags_are_harmless_on_any_release(flag: str) -> None:
    assert nodes.is_up(f"MIXED+{flag}", strict=True)
    assert not nodes.is_up("MIXED+DRAIN", strict=True)
