"""The guarantee on each release of Slurm, with and without its inverted Links: a replica's GPUs are taken back from batch jobs
while other people's jobs wait in both partitions. `make test-slurm` runs it on every release (COLOC_TEST_SLURM_ROOT)."""

import pytest
from tests.e2e.test_strangers import fill, small, surprise
from tests.helpers.live import LiveSite

from colocd.core.view import JobState

pytestmark = [pytest.mark.slurm, pytest.mark.releases, pytest.mark.timeout(240)]


@pytest.mark.parametrize("gres", ["links", "cores", "plain"])
def test_a_guarantee_is_kept(gres: str) -> None:
    """One-GPU victims all over the node; gres.conf as sites write it: with `Links=`, with `Cores=`, with nothing but `File=`."""
    service = {"gpus_per_replica": 2, "max_replicas": 4}
    with (
        small(links=gres == "links", cores=gres == "cores") as cluster,
        LiveSite(cluster, service=service) as site,
    ):
        names = fill(site, (1,) * 6)
        strangers = site.strangers(5, "online") + site.strangers(5, "batch")
        surprise(site, 35, 4)
        assert site.states(strangers) == {JobState.PENDING}
        assert site.lost(*names) == 0
        site.until(lambda: not site.leftovers(), "the end of fences and plugs")
        with site.store() as store:
            assert {h.state.value for h in store.handovers()} == {"released"}
        status = site.status()
        assert status["slurm"].startswith(f"{cluster.spec.release[0]}.")
