"""A job of somebody else asks for a place in its comment: coloc is a topology-aware preemptor for it, live."""

import getpass

import pytest
from tests.e2e.test_strangers import fill, small
from tests.helpers.live import LiveSite
from tests.helpers.live_files import STRANGER

from colocd.core.view import JobState

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


@pytest.mark.parametrize("held", [False, True], ids=["waiting", "held"])
def test_a_strangers_job_gets_an_island(held: bool) -> None:
    service = {"gpus_per_replica": 2, "max_replicas": 1}
    with small(links=True, cores=False) as cluster, LiveSite(cluster, service=service) as site:
        names = fill(site, (1,) * 6)
        strangers = site.strangers(10, "online")
        words = [
            "--parsable",
            "--partition=online",
            "--output=/dev/null",
            "--gpus-per-node=2",
            "--nodes=1",
            "--requeue",
        ]
        words += ["--comment=mine [coloc-place v=1 level=NVLINK]", *(["--hold"] if held else [])]
        ref = cluster.run("sbatch", *words, "--wrap=sleep 3600", user=STRANGER).stdout.strip()

        def placed() -> bool:
            running = cluster.run("squeue", "-h", "-t", "R", "-o", "%j").stdout.split()
            assert "other" not in running, "somebody else got a freed GPU"
            with site.store() as store:
                ended = [h for h in store.handovers() if h.service == f"job:{ref}" and h.state.value == "released"]
            return bool(ended) and site.slurm.jobs([ref])[ref].state is JobState.RUNNING

        site.until(placed, "the place")
        job = site.slurm.jobs([ref])[ref]
        assert site.in_island(job)
        assert job.user == (STRANGER or getpass.getuser())
        assert job.reservation is None
        assert not site.leftovers()
        assert site.lost(*names) == 0
        assert "asks for a place" in site.coloc("explain", ref).stdout
        assert site.states(strangers) == {JobState.PENDING}
