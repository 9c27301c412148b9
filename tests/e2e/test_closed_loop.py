"""The closed loop: valley, fill, surprise, reclaim, checkpoints, drain, resume to the end."""

import pytest
from tests.helpers.live import LiveSite
from tests.helpers.private_postgres import PrivatePostgres

from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
SIZES = (4, 4, 4, 4, 4, 2, 2, 4)
STEPS = 400


def live_through_a_day(site: LiveSite) -> None:
    """32 GPUs: one replica, batch jobs on the other 28, a surprise for three replicas, its end, the jobs' end."""
    site.load(5)
    site.begin()
    site.until(lambda: site.ready() == 1, "the first replica")
    names = [f"train-{k}" for k in range(len(SIZES))]
    refs = [site.submit(name, gpus, STEPS) for name, gpus in zip(names, SIZES, strict=True)]
    site.until(lambda: site.states(refs) == {JobState.RUNNING}, "the start of all batch jobs")
    assert sum(a.count for a in site.running()) == 32

    site.load(25)
    site.until(lambda: site.ready() == 3, "three ready replicas")
    replicas = site.replicas()
    assert len(replicas) == 3
    assert all(site.in_island(job) and job.reservation is None for job in replicas)
    held = [a for a in site.running() if a.ours]
    assert sorted(a.count for a in held) == [4, 4, 4]
    site.until(lambda: not site.leftovers(), "the end of fences and plugs")
    with site.store() as store:
        reclaims = [h for h in store.handovers() if h.victims]
    victims = {ref for h in reclaims for ref in h.victims}
    assert len(reclaims) >= 2
    assert {h.state for h in reclaims} == {"released"}
    assert all(sorted(h.data["acked"]) == sorted(h.victims) for h in reclaims)
    story = site.ask("explain", sorted(victims)[0])["decisions"]
    assert {"evict", "release"} <= {d["kind"] for d in story}

    site.load(5)
    site.until(lambda: len(site.replicas()) == 1, "the drain of two replicas")
    site.until(lambda: all((site.jobs / n / "done").exists() for n in names), "the end of all batch jobs", 150)
    assert site.lost(*names) == 0
    for name in names:
        steps = [line.split()[1] for line in (site.jobs / name / "journal").read_text().splitlines()]
        assert steps == [str(k + 1) for k in range(STEPS)], name
    site.until(lambda: site.ask("queue") == [], "the end of the queue")


def test_on_sqlite(site: LiveSite) -> None:
    live_through_a_day(site)


@pytest.mark.service
def test_on_postgresql(clean_cluster: PrivateCluster) -> None:
    with PrivatePostgres() as server, LiveSite(clean_cluster, database=server.url()) as site:
        live_through_a_day(site)
