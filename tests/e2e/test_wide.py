"""A replica on two nodes of one leaf, and a pair near each other, from batch jobs: a live Slurm with a tree topology."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.live import LiveSite
from tests.helpers.release import slurm_root

from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
TREE = "SwitchName=a Nodes=n[1-2]\nSwitchName=b Nodes=n[3-4]\nSwitchName=top Switches=a,b\n"


@pytest.fixture
def tree() -> Iterator[PrivateCluster]:
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        settings, extra = ("TopologyPlugin=topology/tree",), {"topology.conf": TREE}
        with PrivateCluster(folder, nodes=4, kill_wait=2, settings=settings, files=extra, root=slurm_root()) as up:
            yield up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def steps(site: LiveSite, name: str) -> int:
    """Steps in a job's journal."""
    return (site.jobs / name / "journal").read_text().count("\n")


def test_a_replica_on_two_nodes_of_one_leaf(tree: PrivateCluster) -> None:
    service = {"gpus_per_replica": 4, "nodes": 2, "closeness": "leaf", "max_replicas": 1}
    with LiveSite(tree, service=service) as site:
        site.upgrade()
        site.start()
        # Each job is on both nodes of its leaf, so that whoever is chosen is on two.
        names = ["a1", "a2", "b1", "b2"]
        refs = [site.submit(name, 4, nodes="n1,n2" if name < "b" else "n3,n4", across=2) for name in names]
        site.until(lambda: site.states(refs) == {JobState.RUNNING}, "the start of all batch jobs")
        site.until(lambda: all((site.jobs / name / "journal").exists() for name in names), "their first steps")
        strangers = site.strangers(8, "online")
        site.load(5)
        site.coloc("service", "apply", str(site.base / "chat.toml"))

        def placed() -> bool:
            running = site.cluster.run("squeue", "-h", "-t", "R", "-o", "%j").stdout.split()
            assert "other" not in running, "somebody else got a freed GPU"
            with site.store() as store:
                return any(h.state == "released" for h in store.handovers())

        site.until(placed, "the replica")
        (replica,) = site.replicas()
        assert set(replica.gpus or {}) in ({"n1", "n2"}, {"n3", "n4"})
        assert site.in_island(replica)
        assert replica.reservation is None
        (row,) = next(s["replicas"] for s in site.status()["services"])
        assert set(row["places"]) == set(replica.gpus or {})
        # Slurm runs the script on the node that coloc takes for the first: there its load is read.
        host = (
            site.cluster.run("scontrol", "-o", "show", "job", replica.ref).stdout.partition("BatchHost=")[2].split()[0]
        )
        assert row["node"] == host
        site.until(lambda: site.ready() == 1, "the ready check")
        assert site.leftovers() == []
        assert site.lost(*names) == 0
        assert site.states(strangers) == {JobState.PENDING}
        assert "leaf" in site.coloc("explain", "chat").stdout
        with site.store() as store:
            (victim,) = [row.ref for row in store.jobs() if row.evictions]
        name = names[refs.index(victim)]
        assert site.states([ref for ref in refs if ref != victim]) == {JobState.RUNNING}
        # With room on its nodes again it goes on where it stopped.
        before = steps(site, name)
        neighbour = next(refs[k] for k, other in enumerate(names) if other[0] == name[0] and other != name)
        site.cluster.run("scancel", *strangers)
        site.cluster.run("scancel", neighbour)
        site.until(lambda: steps(site, name) > before + 5, "the return of the job on two nodes")
        assert site.job(victim).state is JobState.RUNNING
        assert site.lost(name) == 0


def test_a_pair_on_one_leaf(tree: PrivateCluster) -> None:
    """Prefill and decode, each wants half a node: both are placed in one go, within one leaf, and nobody loses a step."""
    with LiveSite(tree, service={"beside": "decode", "max_replicas": 1}) as site:
        text = (site.base / "chat.toml").read_text()
        decode = text.replace('name = "chat"', 'name = "decode"').replace('beside = "decode"', 'beside = "chat"')
        decode = decode.replace(f"port_base = {site.port}", f"port_base = {site.port + 5}")
        (site.base / "decode.toml").write_text(decode)
        site.upgrade()
        site.start()
        names = [f"one-{k}" for k in range(8)]
        refs = [site.submit(name, 4) for name in names]
        site.until(lambda: site.states(refs) == {JobState.RUNNING}, "the start of all batch jobs")
        site.until(lambda: all((site.jobs / name / "journal").exists() for name in names), "their first steps")
        strangers = site.strangers(8, "online")
        # Both are known before either is placed.
        site.coloc("pause", "the pair is applied")
        site.coloc("service", "apply", str(site.base / "chat.toml"))
        site.coloc("service", "apply", str(site.base / "decode.toml"))
        site.coloc("resume")

        def placed() -> bool:
            running = site.cluster.run("squeue", "-h", "-t", "R", "-o", "%j").stdout.split()
            assert "other" not in running, "somebody else got a freed GPU"
            with site.store() as store:
                return [h.state for h in store.handovers()] == ["released", "released"]

        site.until(placed, "both replicas")
        pair = [
            job
            for job in site.slurm.read().jobs
            if job.name.startswith(("coloc-chat-", "coloc-decode-")) and job.state is JobState.RUNNING
        ]
        assert sorted(job.name.split("-")[1] for job in pair) == ["chat", "decode"]
        nodes = {node for job in pair for node in job.gpus or {}}
        assert nodes <= {"n1", "n2"} or nodes <= {"n3", "n4"}, "on one leaf"
        assert all(site.in_island(job) and job.reservation is None for job in pair)
        site.until(lambda: site.ready() == 2, "the ready checks")
        with site.store() as store:
            victims = [row.ref for row in store.jobs() if row.evictions]
            assert sum("lead" in h.data for h in store.handovers()) == 1, "one decision, one fence"
        assert len(victims) == 2
        assert set(victims) <= set(refs)
        assert site.leftovers() == []
        assert site.lost(*names) == 0
        assert site.states(strangers) == {JobState.PENDING}
