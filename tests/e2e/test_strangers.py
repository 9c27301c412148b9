"""Jobs that are not coloc's wait for GPUs in the same partitions, and Slurm's own choice of GPUs is a bad one."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.helpers.live import LiveSite
from tests.helpers.release import slurm_root

from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


@contextmanager
def small(**options: bool) -> Iterator[PrivateCluster]:
    """A cluster of one node; of another release where COLOC_TEST_SLURM_ROOT names a folder with one."""
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with PrivateCluster(folder, nodes=1, kill_wait=2, root=slurm_root(), **options) as up:  # type: ignore[arg-type]
            yield up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(site: LiveSite, sizes: tuple[int, ...]) -> list[str]:
    """One replica, and batch jobs of these sizes beside it."""
    site.load(5)
    site.begin()
    site.until(lambda: site.ready() == 1, "the first replica")
    names = [f"train-{k}" for k in range(len(sizes))]
    refs = [site.submit(name, gpus) for name, gpus in zip(names, sizes, strict=True)]
    site.until(lambda: site.states(refs) == {JobState.RUNNING}, "the start of all batch jobs")
    return names


def surprise(site: LiveSite, load: float, replicas: int) -> None:
    """More load; strangers' jobs must not run at any time until all replicas are ready."""
    site.load(load)

    def placed() -> bool:
        names = site.cluster.run("squeue", "-h", "-t", "R", "-o", "%j").stdout.split()
        assert "other" not in names, "somebody else got a freed GPU"
        return site.ready() == replicas

    site.until(placed, f"{replicas} ready replicas")
    jobs = site.replicas()
    assert len(jobs) == replicas
    assert all(site.in_island(job) for job in jobs)


def test_a_backlog_gets_no_freed_gpu(site: LiveSite) -> None:
    names = fill(site, (4,) * 7)
    strangers = site.strangers(10, "online") + site.strangers(10, "batch")
    surprise(site, 35, 4)
    assert site.states(strangers) == {JobState.PENDING}
    assert site.lost(*names) == 0


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_slurm_chooses_badly(links: bool) -> None:
    """One-GPU victims all over the node, no cores to go by: only fence and plugs bring the right GPUs."""
    service = {"gpus_per_replica": 2, "max_replicas": 4}
    with small(links=links, cores=False) as cluster, LiveSite(cluster, service=service) as site:
        names = fill(site, (1,) * 6)
        site.strangers(10, "online")
        surprise(site, 35, 4)
        assert site.lost(*names) == 0
        site.until(lambda: not site.leftovers(), "the end of fences and plugs")
        with site.store() as store:
            ended = {h.id: (h.state.value, h.data.get("abort")) for h in store.handovers()}
            assert {state for state, _why in ended.values()} == {"released"}, f"{ended}\n{site.tail(200)}"


def test_a_type_per_island() -> None:
    """The exact type is asked for, so no plug is needed, though a GPU of the other island is free."""
    service = {"gpus_per_replica": 2, "max_replicas": 3}
    with small(typed_islands=True, cores=False) as cluster, LiveSite(cluster, service=service) as site:
        fill(site, (1, 1, 1, 1, 1))
        surprise(site, 25, 3)
        site.until(lambda: not site.leftovers(), "the end of fences")
        with site.store() as store:
            handovers = store.handovers()
            plugs = [i for i in store.intents() if i.kind == "plug"]
        assert any(h.victims for h in handovers)
        types = {0b1111: "h100_a", 0b1111_0000: "h100_b"}
        for h in handovers:
            (got,) = (h.got or {}).values()
            assert h.gpu_type == next(name for mask, name in types.items() if not got & ~mask)
        assert plugs == []
