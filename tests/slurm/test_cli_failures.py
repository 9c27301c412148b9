"""Slurm that does not answer: which error, and that nothing is thought done that may not be, nor the other way round."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from colocd.clock import SystemClock
from colocd.config import SlurmConfig
from colocd.core.view import JobState
from colocd.errors import SlurmUnknown, SlurmUnreachable
from colocd.slurm import open_slurm

if TYPE_CHECKING:
    from tests.conftest import Live

pytestmark = pytest.mark.slurm


@pytest.fixture
def hasty(live: Live, make_live: type[Live]) -> Iterator[Live]:
    """A time-out shorter than Slurm's own; whatever the test stops goes on afterwards."""
    yield make_live(live.cluster, timeout=1.0)
    if live.cluster.daemons.pid("slurmctld") is not None:
        live.cluster.resume_controller()
    live.cluster.start_munge()
    live.cluster.start_controller()
    live.cluster.clean()


def test_frozen_controller(hasty: Live) -> None:
    ref = hasty.submit(held=True)
    token = "[coloc-own key=frozen]"
    hasty.cluster.pause_controller()
    with pytest.raises(SlurmUnreachable):
        hasty.slurm.read()
    with pytest.raises(SlurmUnreachable):
        hasty.slurm.jobs([ref])
    with pytest.raises(SlurmUnknown):
        hasty.submit(held=True, comment=token)
    with pytest.raises(SlurmUnknown):
        hasty.slurm.cancel([ref])
    hasty.cluster.resume_controller()
    # Unknown it was: both were carried out.
    hasty.until(lambda: len(hasty.slurm.find(token)) == 1, "the submission")
    hasty.reach(JobState.FAILED, [ref])


def test_slurms_own_time_out_counts_as_unknown(hasty: Live, make_live: type[Live]) -> None:
    patient = make_live(hasty.cluster, timeout=30.0)
    hasty.cluster.pause_controller()
    with pytest.raises(SlurmUnknown, match="timed out"):
        patient.submit(held=True)
    hasty.cluster.resume_controller()


def test_stopped_controller(hasty: Live, make_live: type[Live]) -> None:
    patient = make_live(hasty.cluster, timeout=30.0)
    hasty.cluster.stop_controller()
    with pytest.raises(SlurmUnreachable):
        hasty.slurm.read()
    with pytest.raises(SlurmUnreachable, match="connect failure"):
        patient.submit(held=True)
    hasty.cluster.start_controller()
    assert not [job for job in hasty.slurm.read().jobs if job.state is JobState.PENDING]


def test_munge_is_down(hasty: Live, make_live: type[Live]) -> None:
    patient = make_live(hasty.cluster, timeout=30.0)
    ref = hasty.submit(held=True)
    hasty.cluster.stop_munge()
    with pytest.raises(SlurmUnreachable, match=r"[Mm]unge|auth"):
        patient.slurm.node("n1")
    for call in (
        lambda: patient.submit(held=True),
        lambda: patient.slurm.requeue([ref], hold=True),
        lambda: patient.slurm.cancel([ref]),
    ):
        with pytest.raises(SlurmUnreachable):
            call()
    with pytest.raises(SlurmUnreachable):
        patient.slurm.reserve("coloc-m", ["n1"], ["root"], 5)
    hasty.cluster.start_munge()
    assert hasty.slurm.reservations() == ()
    assert [job.ref for job in hasty.slurm.read().jobs if job.state is JobState.PENDING] == [ref]


def test_no_commands_and_no_configuration(tmp_path: Path) -> None:
    for config in (SlurmConfig(bin_dir=str(tmp_path)), SlurmConfig(conf=str(tmp_path / "none"))):
        slurm = open_slurm(config, SystemClock())
        with pytest.raises(SlurmUnreachable):
            slurm.read()
        with pytest.raises(SlurmUnreachable):
            slurm.cancel(["1"])


def test_an_answer_that_makes_no_sense(tmp_path: Path) -> None:
    for name, text in (("squeue", "echo garbage"), ("sbatch", "echo Submitted"), ("scontrol", "echo")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = open_slurm(SlurmConfig(bin_dir=str(tmp_path)), SystemClock())
    with pytest.raises(SlurmUnreachable, match="cannot be read"):
        slurm.jobs(["1"])
