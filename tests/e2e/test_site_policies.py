"""coloc where the site has rules of its own: Slurm's preemption switched on, as an operator left it or as a safety net."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.live import LiveSite
from tests.helpers.release import slurm_root

from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]

NET = {
    "settings": (
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "SlurmctldParameters=preempt_send_user_signal",
    ),
    "partitions": (
        "batch PriorityTier=1 Default=YES PreemptMode=REQUEUE GraceTime=5",
        "online PriorityTier=1 PreemptMode=OFF",
        "emergency PriorityTier=10 PreemptMode=OFF",
    ),
}
"""The setting of docs/site-policies.md."""


@contextmanager
def small(site: Any = None, **options: Any) -> Iterator[LiveSite]:
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        options = {"root": slurm_root(), **options}
        with PrivateCluster(folder, nodes=1, kill_wait=2, **options) as up, LiveSite(up, **(site or {})) as live:
            yield live
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def peak(site: LiveSite) -> list[str]:
    """One replica and two batch jobs of 2 GPUs; then the load needs two replicas."""
    site.load(5)
    site.begin()
    site.until(lambda: site.ready() == 1, "the first replica")
    refs = [site.submit(f"train-{k}", 2) for k in range(2)]
    site.until(lambda: site.states(refs) == {JobState.RUNNING}, "the start of the batch jobs")
    site.load(15)
    site.until(lambda: site.ready() == 2, "the second replica")
    assert all(site.in_island(job) for job in site.replicas())
    assert "2 acknowledged" in site.decisions("released")[0]
    return refs


def findings(site: LiveSite) -> list[str]:
    return [f["text"] for f in site.ask("config", "check", "--live")["live"]["findings"]]


def test_preemption_left_on_is_told_and_replicas_are_placed_all_the_same() -> None:
    with small(preempt=True) as site:
        (told,) = findings(site)
        assert "blind to NVLink" in told
        peak(site)
        assert any("blind to NVLink" in text for text in site.decisions("setup"))
        assert site.lost("train-0", "train-1") == 0


def test_preemption_as_a_safety_net() -> None:
    with small(**NET) as site:
        assert findings(site) == []
        refs = peak(site)
        site.load(5)
        site.until(lambda: site.ready() == 1, "the drain")
        site.until(lambda: site.states(refs) == {JobState.RUNNING}, "the batch jobs' second start")
        words = ["--parsable", "--partition=emergency", "--gres=gpu:4", "--output=/dev/null", "--wrap=sleep 600"]
        urgent = site.cluster.run("sbatch", *words).stdout.strip()
        site.until(lambda: site.job(urgent).state is JobState.RUNNING, "the emergency")
        assert site.states(refs) == {JobState.PENDING}
        assert site.ready() == 1  # Slurm took from the batch jobs, not from the service
        site.cluster.run("scancel", urgent)
        site.until(lambda: site.states(refs) == {JobState.RUNNING}, "the batch jobs' third start")
        assert site.lost("train-0", "train-1") == 0


def test_a_site_that_coloc_cannot_serve_is_refused(tmp_path: Path) -> None:
    with small(partitions=("batch PriorityTier=1 Default=YES", "elsewhere PriorityTier=10")) as site:
        done = site.coloc("config", "check", "--live", check=False)
        assert done.returncode == 78
        assert "policy.online_partitions names online, and Slurm has no such partition" in done.stdout
        assert "next: " in done.stdout
        site.upgrade()
        site.start()
        site.until(lambda: site.status()["paused"], "the pause")
        assert "no such partition" in site.status()["paused"]


def test_slurm_wakes_coloc_when_a_job_ends(tmp_path: Path) -> None:
    hook = tmp_path / "wake.sh"
    hook.write_text(f"#!/bin/sh\nexec touch {tmp_path}/wake\n")
    hook.chmod(0o755)
    often = {"period": 60.0, "cycle": {"wake_file": f"{tmp_path}/wake"}, "policy": {"stale_after": 300.0}}
    with small(often, settings=(f"EpilogSlurmctld={hook}",)) as site:
        site.upgrade()
        first, second = site.submit("train-0", 8, steps=100_000), site.submit("train-1", 8)
        site.start()
        site.until(lambda: site.states([first]) == {JobState.RUNNING}, "the first job")
        assert site.states([second]) == {JobState.PENDING}
        site.coloc("history")  # a cycle has passed, the next one is a minute away
        site.cluster.run("scancel", first)
        site.until(lambda: site.states([second]) == {JobState.RUNNING}, "the second job", seconds=30)


def test_a_node_whose_cpus_are_held_by_others_costs_nobody_his_gpus() -> None:
    with small({"service": {"cpus_per_replica": 6}}) as site:
        site.begin()  # no load: the service wants one replica all the same
        site.until(lambda: site.ready() == 1, "the first replica")
        (ref,) = (site.submit("train-0", 4),)
        site.until(lambda: site.states([ref]) == {JobState.RUNNING}, "the batch job")
        hog = site.cluster.run("sbatch", "--parsable", "-c8", "--output=/dev/null", "--wrap=sleep 600").stdout.strip()
        site.until(lambda: site.job(hog).state is JobState.RUNNING, "a job without GPUs")
        site.load(15)
        site.until(lambda: any("too few CPUs" in text for text in site.decisions("short")), "the reason")
        assert site.states([ref]) == {JobState.RUNNING}
        site.cluster.run("scancel", hog)
        site.until(lambda: site.ready() == 2, "the second replica")
        assert site.lost("train-0") == 0
