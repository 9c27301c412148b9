"""Bad days, made by jobs and by load: deaf victims, replicas that never get ready, unreadable metrics."""

from collections.abc import Iterator

import pytest
from tests.helpers.daemon_rig import Endpoint
from tests.helpers.live import LiveSite
from tests.helpers.live_small import fill, released, small_cluster

from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    with small_cluster() as up:
        yield up


def test_deaf_victims_go_after_their_grace_and_kill_wait(site: LiveSite) -> None:
    """They ignore the signal, and TERM, too: Slurm kills them after its KillWait (2 s here), which is part of coloc's times."""
    refs = fill(site, deaf=True, stubborn=True, grace=2)
    assert "Slurm's KillWait of 2 s" in site.ask("explain", "chat")["now"]
    site.load(15)
    site.until(lambda: site.ready() == 2, "the second replica")
    assert any("did not acknowledge within 2 s" in text for text in site.decisions("grace-expired"))
    assert released(site) == 2
    assert sorted(job.restarts for job in site.slurm.jobs(refs).values())[-1] == 1
    with site.store() as store:
        (reclaim,) = [h for h in store.handovers() if h.victims]
    assert reclaim.data["kill_wait"] == 2.0
    assert reclaim.data["t"]["freed"] - reclaim.data["t"]["requeued"] > 1.0
    site.until(lambda: not site.leftovers(), "the end of the fence")


def test_a_victim_that_ends_by_itself(site: LiveSite) -> None:
    fill(site, steps=240, deaf=True, grace=60, policy={"grace": 60.0})
    site.load(15)
    site.until(lambda: site.ready() == 2, "the second replica")
    with site.store() as store:
        (reclaim,) = [h for h in store.handovers() if h.victims]
    assert reclaim.state == "released"
    name = site.job(reclaim.victims[0]).name
    assert (site.jobs / name / "done").exists()
    assert site.decisions("grace-expired") == []
    assert site.lost(name) == 0


def test_a_replica_that_is_never_ready(site: LiveSite) -> None:
    site.write_service(ready="/never")
    site.load(5)
    site.begin()
    site.until(lambda: site.decisions("not-ready"), "the end of the ready check's patience")
    first = len(site.decisions("place"))
    site.until(lambda: len(site.decisions("place")) > first, "the next try")
    site.write_service()
    site.coloc("service", "apply", str(site.base / "chat.toml"))
    site.until(lambda: site.ready() == 1, "a ready replica")
    assert len(site.replicas()) == 1


def test_a_replica_that_ends_at_once(site: LiveSite) -> None:
    site.write_service()
    text = (site.base / "chat.toml").read_text()
    (site.base / "chat.toml").write_text(text.replace("exec ", "exit 3 # "))
    site.load(5)
    site.begin()
    site.until(lambda: site.decisions("replica-lost") or site.decisions("rolled-back"), "the loss of the replica")
    site.until(lambda: len(site.decisions("place")) >= 2, "the next try")
    (site.base / "chat.toml").write_text(text)
    site.coloc("service", "apply", str(site.base / "chat.toml"))
    site.until(lambda: site.ready() == 1, "a ready replica")
    assert len(site.replicas()) == 1


def test_metrics_that_cannot_be_read_open_no_valley(site: LiveSite) -> None:
    endpoint = Endpoint()
    try:
        endpoint.value = 25
        site.settings["policy"] |= {"stale_after": 2.0}
        site.write_config("act")
        site.service |= {"max_replicas": 4}
        site.write_service(load_url=f"http://127.0.0.1:{endpoint.port}/metrics")
        site.begin()
        site.until(lambda: site.ready() == 3, "three replicas")
        before = {job.ref for job in site.replicas()}
        for body in ("<html>moved</html>", "vllm:num_requests_running NaN\n", "", None):
            if body is None:
                endpoint.close()
            endpoint.body = body
            nothing_is_given_away(site)
            assert {job.ref for job in site.replicas()} == before, body
            if body is not None:
                endpoint.body = None
                site.until(lambda: site.status()["services"][0]["load"] == 25, "a known load")
    finally:
        endpoint.close()


def nothing_is_given_away(site: LiveSite) -> None:
    """With an unknown load no held job starts, and coloc says why."""
    site.until(lambda: site.status()["services"][0]["load"] is None, "an unknown load")
    ref = site.submit("train", 4)
    colocd = site.colocd
    assert colocd is not None
    cycles = len(colocd.status())
    site.until(lambda: len(colocd.status()) > cycles + 4, "cycles without a load")
    assert site.job(ref).state is JobState.PENDING
    assert "unknown" in site.ask("explain", ref)["now"]
    site.cluster.run("scancel", ref)
