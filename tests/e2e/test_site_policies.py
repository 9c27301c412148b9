"""coloc where the site has rules of its own: Slurm's preemption switched on, as an operator left it or as a safety net."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.helpers.live import LiveSite

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
def small(**options: object) -> Iterator[LiveSite]:
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with (
            PrivateCluster(folder, nodes=1, kill_wait=2, **options) as up,  # type: ignore[arg-type]
            LiveSite(up) as site,
        ):
            yield site
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
