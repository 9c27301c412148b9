"""Bad days, made by machines and daemons, in the middle of a handover: each time the cycle goes on and the handover ends."""

import sqlite3
from collections.abc import Iterator

import pytest
from tests.helpers.live import LiveSite
from tests.helpers.live_small import NAMES, fill, small_cluster
from tests.helpers.private_postgres import PrivatePostgres

from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
OUTAGE = 4.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    with small_cluster() as up:
        yield up


def handover_on(site: LiveSite) -> str:
    """Wait until a handover is under way; its node."""
    nodes: list[str] = []

    def open_one() -> bool:
        nodes[:] = [name for h in site.status()["handovers"] for name in h["places"]]
        return bool(nodes)

    site.until(open_one, "the begin of a handover")
    return nodes[0]


def ends_well(site: LiveSite, replicas: int = 2) -> None:
    """All replicas in their islands, nothing left over, no step lost unless a grace expired."""
    site.until(lambda: site.ready() == replicas, f"{replicas} ready replicas")
    site.until(lambda: not site.leftovers(), "the end of fences and plugs")
    assert len(site.replicas()) == replicas
    assert all(site.in_island(job) for job in site.replicas())
    if not site.decisions("grace-expired"):
        assert site.lost(*NAMES) == 0


def test_slurm_goes_away(site: LiveSite) -> None:
    """Three handovers, three troubles."""
    site.settings["slurm"]["timeout"] = 2.0
    fill(site)
    troubles = {
        "frozen controller": (site.cluster.pause_controller, site.cluster.resume_controller),
        "stopped controller": (site.cluster.stop_controller, site.cluster.start_controller),
        "no munge": (site.cluster.stop_munge, site.cluster.start_munge),
    }
    colocd = site.colocd
    assert colocd is not None
    for replicas, (trouble, (stop, start)) in enumerate(troubles.items(), 2):
        site.load(10 * replicas - 5)
        handover_on(site)
        stop()
        try:
            site.until(lambda: "nothing was done" in colocd.status()[-1], f"a cycle that says what is wrong: {trouble}")
            before = colocd.said("WATCHDOG=1")
            site.until(lambda b=before: colocd.said("WATCHDOG=1") > b, "one more such cycle")  # type: ignore[misc]
            assert site.status()["cycle"]["problems"], trouble
        finally:
            start()
        ends_well(site, replicas)
    said = [line for line in site.tail(10_000).splitlines() if "nothing was done" in line]
    assert len(troubles) <= len(said) <= 4 * len(troubles), said


def test_the_node_dies(site: LiveSite) -> None:
    fill(site, deaf=True, grace=6)
    site.load(15)
    node = handover_on(site)
    site.cluster.node_down(node)
    try:
        site.until(lambda: site.ready() == 2 and len(site.replicas()) == 2, "two replicas on the other node")
        assert node not in {name for job in site.replicas() for name in job.gpus or {}}
        with site.store() as store:
            broken = [h for h in store.handovers() if node in h.places and "abort" in h.data]
        assert broken
        site.until(lambda: not site.leftovers(), "the end of the fences")
    finally:
        site.cluster.node_up(node)


def test_the_store_is_locked(site: LiveSite) -> None:
    fill(site)
    site.load(15)
    handover_on(site)
    other = sqlite3.connect(site.base / "coloc.db", isolation_level=None, timeout=30)
    colocd = site.colocd
    assert colocd is not None
    other.execute("BEGIN IMMEDIATE")
    try:
        site.until(lambda: "nothing was done" in colocd.status()[-1], "a cycle that says what is wrong")
        site.clock.sleep(OUTAGE)
    finally:
        other.rollback()
        other.close()
    ends_well(site)


@pytest.mark.service
def test_postgresql_goes_away(cluster: PrivateCluster) -> None:
    cluster.clean()
    with PrivatePostgres() as server, LiveSite(cluster, database=server.url()) as site:
        fill(site)
        site.load(15)
        handover_on(site)
        colocd = site.colocd
        assert colocd is not None
        server.stop()
        site.until(lambda: "nothing was done" in colocd.status()[-1], "a cycle that says what is wrong")
        site.clock.sleep(OUTAGE)
        server.start()
        ends_well(site)
    cluster.clean()
