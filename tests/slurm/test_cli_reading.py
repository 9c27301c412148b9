"""Reading a live Slurm: jobs of all kinds, nodes, fences."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from colocd.core.view import Held, JobState
from colocd.errors import SlurmRefused
from colocd.testcluster import PrivateCluster

if TYPE_CHECKING:
    from tests.conftest import Live

pytestmark = pytest.mark.slurm


def test_an_empty_cluster(live: Live) -> None:
    cluster = live.slurm.read()
    assert cluster.version.startswith(f"{live.cluster.spec.release[0]}.")
    assert [node.name for node in cluster.nodes] == ["n1", "n2", "n3", "n4"]
    assert all(node.up and node.used == 0 and node.gpus == 8 and node.types == ("h100",) * 8 for node in cluster.nodes)
    assert {(part.name, part.up, part.tier, part.preempt) for part in cluster.partitions} == {
        ("batch", True, 1, None),
        ("online", True, 10, None),
    }
    assert cluster.partitions[0].nodes == ("n1", "n2", "n3", "n4")
    assert cluster.reservations == ()


def test_read_and_jobs_agree_on_many_running_jobs(live: Live) -> None:
    refs = [live.start("--gres=gpu:h100:2", "-N2"), live.start("--gpus=1"), live.start("-n2", "--gpus-per-task=1")]
    refs += [
        live.start("--gres=gpu:3", "-w", "n3", "-t", "90"),
        live.start("-w", "n4"),
        live.start("--gres=gpu", "-w", "n4"),
    ]
    live.reach(JobState.RUNNING, refs)
    cluster = live.slurm.read()
    found = {job.ref: job for job in cluster.jobs}
    assert {ref: found[ref] for ref in refs} == live.slurm.jobs(refs)
    per_node = {ref: {node: mask.bit_count() for node, mask in (found[ref].gpus or {}).items()} for ref in refs}
    assert sorted(per_node[refs[0]].values()) == [2, 2]
    assert [sum(per_node[ref].values()) for ref in refs] == [4, 1, 2, 3, 0, 1]
    assert [found[ref].gpus_requested for ref in refs] == [4, 1, 2, 3, 0, 1]
    assert [found[ref].gpus_per_node for ref in refs] == [2, 1, 2, 3, 0, 1]
    for node in cluster.nodes:
        masks = [mask for job in found.values() for name, mask in (job.gpus or {}).items() if name == node.name]
        assert sum(masks) == node.used  # disjoint, and nothing is missing
    timed = found[refs[3]]
    assert (timed.time_limit, timed.required_nodes) == (5400.0, ("n3",))
    assert timed.started is not None
    assert timed.ends == timed.started + 5400
    assert abs(timed.started - live.clock.now()) < 120
    assert (found[refs[1]].time_limit, found[refs[1]].ends) == (None, None)
    assert (timed.user, timed.uid) == ("root", 0)


def test_waiting_jobs(live: Live) -> None:
    mark = "[coloc v=1 signal=USR1 to=batch interval=300]"
    held = live.start("--hold", f"--comment=mine {mark}", "--gpus-per-node=h100:2", "-N2", "-c3")
    admin = live.start("--begin=now+1hour")
    live.slurm.hold([admin])
    free = live.start("--begin=now+1hour", "--nice=7")
    found = live.slurm.jobs([held, admin, free])
    assert [found[ref].held for ref in (held, admin, free)] == [Held.USER, Held.ADMIN, Held.NO]
    job = found[held]
    assert job.comment == f"mine {mark}"
    assert job.checkpoint is not None
    assert (job.checkpoint.signal, job.checkpoint.interval) == ("USR1", 300.0)
    assert (job.gpus_requested, job.gpus_per_node, job.nodes_requested, job.cpus_requested) == (4, 2, 2, 6)
    assert (job.gpus, job.started, job.ends, job.time_limit, job.reservation) == ({}, None, None, None, None)


def test_array_tasks_one_by_one(live: Live) -> None:
    array = live.start("--array=1-4%2", "--gpus=1")
    refs = [f"{array}_{k}" for k in range(1, 5)]
    live.reach(JobState.RUNNING, refs[:2])
    found = live.slurm.jobs(refs)
    assert [found[ref].state for ref in refs] == [JobState.RUNNING] * 2 + [JobState.PENDING] * 2
    assert all(found[ref].gpus for ref in refs[:2])
    live.slurm.hold([refs[3]])
    live.slurm.requeue(refs[:2], hold=True)
    live.reach(JobState.RUNNING, [refs[2]])
    after = live.reach(JobState.PENDING, refs[:2])
    assert [after[ref].held for ref in refs[:2]] == [Held.ADMIN] * 2
    assert [after[ref].restarts for ref in refs[:2]] == [1, 1]
    assert live.job(refs[3]).held is Held.ADMIN
    live.slurm.cancel(refs)
    live.reach(JobState.FAILED, refs)


def test_parts_of_a_heterogeneous_job_have_usable_refs(live: Live) -> None:
    log = f"--output={live.cluster.work}/het"
    first = live.cluster.run("sbatch", "--parsable", log, "--hold", ":", text="#!/bin/sh\ntrue\n").stdout.strip()
    refs = {job.ref for job in live.slurm.read().jobs if job.state is JobState.PENDING}
    assert refs == {first, str(int(first) + 1)}
    assert all(job.order for job in live.slurm.read().jobs)


def test_ended_jobs_are_told_and_unknown_ones_are_missing(live: Live) -> None:
    good, bad = live.start(script="#!/bin/sh\ntrue\n"), live.start(script="#!/bin/sh\nexit 3\n")
    live.reach(JobState.DONE, [good])
    live.reach(JobState.FAILED, [bad])
    assert set(live.slurm.jobs([good, "4000000", bad])) == {good, bad}
    assert live.slurm.jobs(["4000000"]) == {}
    assert live.slurm.jobs(["4000000_7", "4000001"]) == {}
    assert live.slurm.jobs([]) == {}
    job = live.job(good)
    assert job.gpus == {}
    assert job.started is not None
    assert job.ends is not None


def test_a_completing_job_says_that_it_does_not_know(live: Live) -> None:
    stubborn = "#!/bin/bash\ntrap '' TERM\nwhile :; do sleep 0.2; done\n"
    refs = [live.start("--gres=gpu:2", "-N2", script=stubborn), live.start("--gres=gpu:1", "-w", "n1")]
    live.reach(JobState.RUNNING, refs)
    live.slurm.cancel(refs[:1])
    leaving = live.reach(JobState.COMPLETING, refs[:1])[refs[0]]
    # Slurm 22.05 blanks the indices although the processes are still there; later ones may show them.
    assert leaving.gpus is None or all(mask.bit_count() == 2 for mask in leaving.gpus.values())
    found = {job.ref: job for job in live.slurm.read().jobs}
    assert found[refs[0]].state is JobState.COMPLETING
    assert found[refs[1]].gpus, "its neighbour stays readable"


def test_nodes_that_take_no_jobs(live: Live) -> None:
    live.cluster.run("scontrol", "update", "nodename=n1", "state=drain", "reason=x State=IDLE GresUsed=gpu:8(IDX:0-7)")
    live.cluster.node_down("n2")
    nodes = {node.name: node for node in live.slurm.read().nodes}
    assert {name: node.up for name, node in nodes.items()} == {"n1": False, "n2": False, "n3": True, "n4": True}
    assert nodes["n1"].used == 0
    assert nodes["n1"].free == 0
    assert live.slurm.node("n2") == nodes["n2"]


def test_fences_and_reservations_of_others(live: Live) -> None:
    live.slurm.reserve("coloc-7", ["n1"], ["root", "daemon"], 5)
    live.cluster.run(
        "scontrol", "create", "reservation=theirs", "nodes=n2", "users=daemon", "starttime=now", "duration=5"
    )
    live.cluster.run(
        "scontrol", "create", "reservation=later", "nodes=n3", "users=daemon", "starttime=now+1hour", "duration=5"
    )
    cluster = live.slurm.read()
    assert [(node.name, node.fence, node.reserved) for node in cluster.nodes] == [
        ("n1", "coloc-7", False),
        ("n2", None, True),
        ("n3", None, False),
        ("n4", None, False),
    ]
    assert live.slurm.node("n1").fence == "coloc-7"
    fence = next(found for found in live.slurm.reservations() if found.name == "coloc-7")
    assert (fence.nodes, fence.users) == (("n1",), ("root", "daemon"))
    assert fence.starts is not None
    assert fence.ends == fence.starts + 300


def test_no_such_node(live: Live) -> None:
    for name in ("n9", "n1,n2", "-x", "n[1-2]"):
        with pytest.raises(SlurmRefused):
            live.slurm.node(name)


@pytest.fixture
def typed(cluster: PrivateCluster) -> Iterator[PrivateCluster]:
    """A cluster whose islands have gres types of their own."""
    with tempfile.TemporaryDirectory(prefix="coloc-t-") as folder:
        up = PrivateCluster(Path(folder) / "c", nodes=1, typed_islands=True, root=cluster.spec.root)
        with up:
            yield up


def test_gpu_types(typed: PrivateCluster, make_live: type[Live]) -> None:
    live = make_live(typed)
    refs = [live.submit(gpus=2, gpu_type="h100_b"), live.submit(gpus=3, gpu_type="h100_a"), live.submit(gpus=3)]
    jobs = live.reach(JobState.RUNNING, refs)
    assert [jobs[ref].gpus for ref in refs[:2]] == [{"n1": 0b110000}, {"n1": 0b111}]
    assert jobs[refs[2]].gpus == {"n1": 0b11001000}
    node = live.slurm.node("n1")
    assert node.types == ("h100_a",) * 4 + ("h100_b",) * 4
    assert node.used == 0xFF
    assert {job.ref: job.gpus for job in live.slurm.read().jobs} == {ref: jobs[ref].gpus for ref in refs}
