from tests.slurm.contract.harness import NODES, OTHER, USER, Harness

from colocd.asked import obstacle
from colocd.core.view import Checkpoint, Held, JobState
from colocd.sim.program import Program


def test_an_empty_cluster(h: Harness) -> None:
    cluster = h.slurm.read()
    assert cluster.version == "22.05.8" or cluster.version[0].isdigit()
    assert [node.name for node in cluster.nodes] == list(NODES)
    for node in cluster.nodes:
        assert node.up
        assert (node.gpus, node.used, node.free) == (8, 0, 0xFF)
        assert node.types == ("h100",) * 8
        assert (node.cpus, node.cpus_used) == (16, 0)
        assert set(node.partitions) == {"batch", "online"}
        assert node.address
        assert node.fence is None
        assert not node.reserved
    tiers = {p.name: (p.tier, p.up, p.nodes, p.preempt) for p in cluster.partitions}
    assert tiers == {"batch": (1, True, NODES, None), "online": (10, True, NODES, None)}
    assert cluster.reservations == ()
    assert not [job for job in cluster.jobs if job.state not in (JobState.DONE, JobState.FAILED)]


def test_a_running_job(h: Harness) -> None:
    before = h.back.now()
    mark = "mine [coloc v=1 signal=USR1 to=batch interval=300]"
    ref = h.start(gpus=3, cpus=4, name="train it", time_limit=90.0, comment=mark, nodes=("n2",))
    job = h.job(ref)
    assert (job.ref, job.user, job.name, job.partition) == (ref, USER, "train it", "batch")
    assert job.gpus is not None
    assert {node: mask.bit_count() for node, mask in job.gpus.items()} == {"n2": 3}
    assert (job.gpus_requested, job.gpus_per_node, job.nodes_requested, job.cpus_requested) == (3, 3, 1, 4)
    assert job.submitted is not None
    assert job.started is not None
    assert before - 1 <= job.submitted <= job.started <= h.back.now()
    assert job.time_limit == 120.0
    assert job.ends == job.started + 120.0
    assert (job.restarts, job.held, job.required_nodes, job.reservation) == (0, Held.NO, ("n2",), None)
    assert job.comment == mark
    assert job.checkpoint == Checkpoint(signal="USR1", interval=300.0)
    assert job.uid is not None
    assert job in h.slurm.read().jobs
    assert h.slurm.node("n2").cpus_used == 4


def test_no_limit_is_none(h: Harness) -> None:
    job = h.job(h.start())
    assert (job.time_limit, job.ends) == (None, None)
    assert (job.gpus, job.gpus_requested, job.gpus_per_node, job.checkpoint) == ({}, 0, 0, None)


def test_a_waiting_job(h: Harness) -> None:
    first = h.start(gpus=8, nodes=("n1",))
    ref = h.submit(gpus=1, nodes=("n1",))
    h.until(lambda: h.job(ref).reason)
    job = h.job(ref)
    assert (job.state, job.gpus, job.gpus_requested, job.started, job.ends) == (JobState.PENDING, {}, 1, None, None)
    assert (job.held, job.restarts) == (Held.NO, 0)
    h.slurm.cancel([first])
    h.until_state(JobState.RUNNING, ref)


def test_indices_are_disjoint_and_add_up_to_the_node(h: Harness) -> None:
    """Which ones: the measured habit where gres.conf names the cores near each GPU."""
    refs = h.start_all(1, 1, 2, 4)
    assert [h.mask(ref) for ref in refs] == [0b1, 0b1_0000, 0b110, 0b1110_1000]
    assert h.slurm.node("n1").used == 0xFF
    h.slurm.cancel([refs[2]])
    h.until(lambda: h.slurm.node("n1").used == 0xFF & ~0b110)
    assert h.slurm.node("n1").free == 0b110


def test_ends(h: Harness) -> None:
    good, bad = h.submit(Program(duration=0.2)), h.submit(Program(duration=0.2, exit_code=7))
    h.until_state(JobState.DONE, good)
    h.until_state(JobState.FAILED, bad)
    done = h.job(good)
    assert done.started is not None
    assert done.ends is not None
    assert done.started <= done.ends <= h.back.now()
    assert done.gpus == {}
    assert {good, bad} <= {job.ref for job in h.slurm.read().jobs}


def test_unknown_things(h: Harness) -> None:
    ref = h.submit(held=True)
    assert set(h.slurm.jobs([ref, "99999", "99998_7"])) == {ref}
    assert h.slurm.jobs([]) == {}
    assert h.slurm.jobs(["99999"]) == {}
    with h.refused():
        h.slurm.node("n99")
    with h.refused():
        h.slurm.nodes(["n1", "n99"])
    assert h.slurm.nodes([]) == {}
    assert list(h.slurm.nodes(["n2", "n1"])) == ["n2", "n1"]
    assert h.slurm.topology() == "", "a flat network"


def test_find_by_token(h: Harness) -> None:
    token = f"[coloc-own key=k{h.back.now():.0f}]"
    ended = h.submit(Program(duration=0.0), comment=f"x {token}")
    waiting = h.submit(comment=token, held=True)
    h.submit(comment="[coloc-own key=other]", held=True, user=OTHER)
    h.until_state(JobState.DONE, ended)
    assert {job.ref for job in h.slurm.find(token)} == {ended, waiting}
    assert h.slurm.find("[coloc-own key=nobody's]") == ()


def test_what_else_a_job_asks(h: Harness) -> None:
    """Enough of Slurm's own record to know whether coloc could place the job at all."""
    plain, apart, alone = (
        h.submit(gpus=1, held=True, options=options) for options in ((), ("--exclude=n2",), ("--exclusive",))
    )
    assert obstacle(h.slurm.record(plain), {"h100"}) is None
    assert "excludes nodes itself (n2)" in (obstacle(h.slurm.record(apart), {"h100"}) or "")
    assert "alone on its node" in (obstacle(h.slurm.record(alone), {"h100"}) or "")
