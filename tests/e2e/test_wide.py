"""A replica on two nodes of one leaf switch, from batch jobs of which one runs on both: a live Slurm with a tree topology."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo import files
from tests.helpers.live import LiveSite

from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
TREE = "SwitchName=a Nodes=n[1-2]\nSwitchName=b Nodes=n[3-4]\nSwitchName=top Switches=a,b\n"


@pytest.fixture
def tree() -> Iterator[PrivateCluster]:
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        settings, extra = ("TopologyPlugin=topology/tree",), {"topology.conf": TREE}
        with PrivateCluster(folder, nodes=4, kill_wait=2, settings=settings, files=extra) as up:
            yield up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wide_job(site: LiveSite, name: str, nodes: str) -> str:
    """A training job with four GPUs on each of two nodes."""
    words = ["--parsable", f"--job-name={name}", "--gpus-per-node=4", "--nodes=2", "--ntasks=2", f"--nodelist={nodes}"]
    words += [f"--output={site.jobs}/{name}.log", "--open-mode=append", "--signal=B:USR1", "--coloc-interval=1"]
    job = [str(files.HERE / "train_job.sh"), str(files.HERE / "train_job.py"), str(site.jobs / name), "100000"]
    env = {"COLOC_COMMAND": f"{sys.executable} -m coloc_cli.main", "COLOC_DEMO_PYTHON": site.python}
    words += ["--coloc-grace=15"]
    return site.run(
        "coloc_cli.sbatch_main", *words, *job, "--rate=20", "--every=3600", check=True, **env
    ).stdout.strip()


def test_a_replica_on_two_nodes_of_one_leaf(tree: PrivateCluster) -> None:
    service = {"gpus_per_replica": 4, "nodes": 2, "closeness": "leaf", "max_replicas": 1}
    with LiveSite(tree, service=service) as site:
        site.upgrade()
        site.start()
        names = ["both", *(f"one-{k}" for k in range(6))]
        refs = [wide_job(site, "both", "n1,n2")] + [site.submit(name, 4) for name in names[1:]]
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
