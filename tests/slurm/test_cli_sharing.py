"""GPUs that are shared, and jobs that take more than they ask for: shards, `--exclusive`, CPU-only jobs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

if TYPE_CHECKING:
    from tests.conftest import Live

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def sharing() -> Iterator[PrivateCluster]:
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with PrivateCluster(folder, nodes=1, shards=32) as up:
            yield up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_gpu_of_which_a_share_is_in_use_is_not_free(sharing: PrivateCluster, make_live: type[Live]) -> None:
    live = make_live(sharing)
    shares = [live.start(f"--gres=shard:{count}") for count in (2, 3)]
    whole = live.start("--gres=gpu:2")
    live.reach(JobState.RUNNING, [*shares, whole])
    seen = live.slurm.read()
    node, jobs = seen.nodes[0], {job.ref: job for job in seen.jobs}
    assert all(jobs[ref].gpus for ref in (*shares, whole))
    assert sum((jobs[ref].gpus or {})["n1"] for ref in (*shares, whole)) == node.used
    left = node.free.bit_count()
    assert left == 4  # two GPUs of which a share is in use, and two whole ones
    # Slurm agrees: it gives out what coloc thinks free, and no more
    more = [live.start(f"--gres=gpu:{left}"), live.start("--gres=gpu:1")]
    live.reach(JobState.RUNNING, more[:1])
    assert live.job(more[1]).state is JobState.PENDING
    assert live.slurm.read().nodes[0].free == 0


def test_an_exclusive_job_holds_all_gpus(live: Live) -> None:
    ref = live.start("--exclusive", "-w", "n1")
    live.reach(JobState.RUNNING, [ref])
    assert live.job(ref).gpus == {"n1": 255}
    assert live.slurm.node("n1").free == 0


def test_cpus_of_a_job_without_gpus_count(live: Live) -> None:
    ref = live.start("-n1", "-c12", "-w", "n1")
    live.reach(JobState.RUNNING, [ref])
    job, node = live.job(ref), live.slurm.node("n1")
    assert (job.gpus, job.gpus_requested) == ({}, 0)
    assert (node.free.bit_count(), node.cpus, node.cpus_used) == (8, 16, 12)
