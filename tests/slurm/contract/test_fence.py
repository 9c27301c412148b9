from tests.slurm.contract.harness import OTHER, USER, Harness

from colocd.core.view import JobState
from colocd.slurm.port import JobUpdate

R, P = JobState.RUNNING, JobState.PENDING
FENCE = "coloc-test"


def test_a_freed_gpu_goes_to_the_insider_alone(h: Harness) -> None:
    """The whole of a handover's protection: fence on a busy node, a backlog of ten, insider, detach, fence away."""
    victim, stays = h.start_all(4, 4)
    freed = h.mask(victim)
    backlog = [h.submit(gpus=1, nodes=("n1",), user=OTHER, partition="online") for _ in range(10)]
    h.slurm.reserve(FENCE, ["n1"], [USER, "root"], 5)
    assert h.slurm.node("n1").fence == FENCE
    assert not h.slurm.node("n1").reserved
    insider = h.submit(gpus=2, reservation=FENCE, partition="online")
    assert h.job(insider).reservation == FENCE
    h.slurm.requeue([victim], hold=True)
    h.until_state(R, insider)
    assert h.mask(insider) & ~freed == 0
    h.back.advance(2.1)
    assert h.states([stays, victim]) == [R, P]
    assert set(h.states(backlog)) == {P}
    assert h.slurm.node("n1").used == h.mask(stays) | h.mask(insider)
    h.slurm.update(insider, JobUpdate(reservation=""))
    assert h.job(insider).reservation is None
    h.slurm.unreserve(FENCE)
    assert h.slurm.reservations() == ()
    assert h.slurm.node("n1").fence is None
    h.until(lambda: h.states(backlog).count(R) == 2)
    assert h.states([insider, stays, victim]) == [R, R, P]


def test_plugs_choose_the_indices(h: Harness) -> None:
    """Two GPUs wanted, 1 and 2; 0 and 5 are free, too: plugs take these, and the replica can only get the wanted ones."""
    refs = {h.mask(ref): ref for ref in h.start_all(*[1] * 8)}
    h.slurm.reserve(FENCE, ["n1"], ["root", USER], 5)
    free = [refs[1 << 0], refs[1 << 5]]
    h.slurm.requeue(free, hold=True)
    h.until_state(P, *free)
    plugs = h.start_all(1, 1, user=None, reservation=FENCE, partition="online")
    assert {h.mask(plug) for plug in plugs} == {1 << 0, 1 << 5}
    replica = h.submit(gpus=2, nodes=("n1",), reservation=FENCE, partition="online")
    h.slurm.requeue([refs[1 << 1], refs[1 << 2]], hold=True)
    h.until_state(R, replica)
    assert h.mask(replica) == 0b110
    h.slurm.update(replica, JobUpdate(reservation=""))
    h.slurm.cancel(plugs)
    h.until_state(JobState.FAILED, *plugs)
    h.slurm.unreserve(FENCE)
    assert h.states([replica]) == [R]


def test_the_reservation_as_it_is_told(h: Harness) -> None:
    before = h.back.now()
    h.slurm.reserve("maintenance", ["n2"], ["root"], 7)
    (resv,) = h.slurm.reservations()
    assert (resv.name, resv.nodes, resv.users) == ("maintenance", ("n2",), ("root",))
    assert resv.starts is not None
    assert resv.ends is not None
    assert before - 61 <= resv.starts <= h.back.now()
    assert resv.ends == resv.starts + 420
    cluster = h.slurm.read()
    assert cluster.reservations == (resv,)
    assert [node.name for node in cluster.nodes if node.reserved] == ["n2"]
    assert {node.fence for node in cluster.nodes} == {None}


def test_what_is_refused(h: Harness) -> None:
    h.slurm.reserve(FENCE, ["n1"], [USER], 5)
    for name, node, user in (
        (FENCE, "n2", USER),
        ("coloc-over", "n1", USER),
        ("coloc-x", "n99", USER),
        ("coloc-x", "n2", "no-such-user"),
    ):
        with h.refused():
            h.slurm.reserve(name, [node], [user], 5)
    with h.refused():
        h.submit(reservation=FENCE, user=OTHER)


def test_in_use_and_not_there(h: Harness) -> None:
    h.slurm.reserve(FENCE, ["n1"], [USER], 5)
    inside = h.start(gpus=1, reservation=FENCE)
    with h.refused():
        h.slurm.unreserve(FENCE)
    h.slurm.cancel([inside])
    h.until_state(JobState.FAILED, inside)
    h.slurm.unreserve(FENCE)
    h.slurm.unreserve(FENCE)
    assert h.slurm.reservations() == ()


def test_a_waiting_job_moves_into_a_fence(h: Harness) -> None:
    """It also keeps the fence in use until it is taken out again."""
    ref = h.submit(gpus=8, held=True)
    h.slurm.reserve(FENCE, ["n2"], [USER], 5)
    h.slurm.update(ref, JobUpdate(reservation=FENCE))
    with h.refused():
        h.slurm.unreserve(FENCE)
    h.slurm.release([ref])
    h.until_state(R, ref)
    assert h.mask(ref, "n2") == 0xFF


def test_one_reservation_closes_several_nodes_for_one_job_on_all_of_them(h: Harness) -> None:
    """A replica on two nodes: the fence is there whole or not at all, and the insider gets the same nodes in it."""
    h.slurm.reserve("maintenance", ["n3"], ["root"], 5)
    with h.refused():
        h.slurm.reserve(FENCE, ["n2", "n3"], [USER, "root"], 5)
    assert h.slurm.node("n2").fence is None
    h.slurm.unreserve("maintenance")
    h.slurm.reserve(FENCE, ["n2", "n3"], [USER, "root"], 5)
    nodes = h.slurm.nodes(["n3", "n1", "n2"])
    assert {name: node.fence for name, node in nodes.items()} == {"n3": FENCE, "n1": None, "n2": FENCE}
    outsider = h.submit(gpus=1, nodes=("n3",), user=OTHER, partition="online")
    insider = h.submit(gpus=4, nodes=("n2", "n3"), reservation=FENCE, partition="online")
    h.until_state(R, insider)
    job = h.job(insider)
    assert {name: mask.bit_count() for name, mask in (job.gpus or {}).items()} == {"n2": 4, "n3": 4}
    assert (job.nodes_requested, job.gpus_per_node) == (2, 4)
    assert h.states([outsider]) == [P]
    h.slurm.update(insider, JobUpdate(reservation=""))
    h.slurm.unreserve(FENCE)
    h.until_state(R, outsider)
