"""Other people's jobs that ask for a place: coloc as a topology-aware preemptor for any Slurm job."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.daemon_rig import DaemonRig

from coloc_topology.fit import fit_table
from coloc_topology.shape import quads
from colocd.core.view import Held, JobState
from colocd.errors import NotFound, SlurmRefused
from colocd.slurm.port import JobUpdate, Submission


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DaemonRig]:
    rig = DaemonRig(tmp_path)
    yield rig
    rig.close()


def wish(rig: DaemonRig, gpus: int = 2, words: str = "", **changes: object) -> str:
    facts: dict[str, object] = {
        "name": "infer",
        "script": "#!/bin/sh\n",
        "partition": "online",
        "user": "bob",
        "gpus": gpus,
        "requeue": True,
        "comment": f"mine [coloc-place v=1{words}]",
    }
    return rig.slurm.submit(Submission(**{**facts, **changes}))  # type: ignore[arg-type]


def fill(rig: DaemonRig, count: int = 16) -> list[str]:
    refs = [rig.batch(f"train{i}", 1) for i in range(count)]
    rig.run(30)
    assert len(rig.jobs("train")) == count
    return refs


def assert_placed(rig: DaemonRig, ref: str, gpus: int = 2) -> None:
    job = rig.slurm.jobs([ref])[ref]
    assert job.state is JobState.RUNNING
    ((_, mask),) = (job.gpus or {}).items()
    assert mask.bit_count() == gpus
    assert fit_table(quads()).level_of(mask).name == "NVLINK"
    assert job.reservation is None
    assert rig.slurm.reservations() == ()
    assert not rig.jobs("coloc-plug")


def test_a_wish_on_two_nodes_of_one_leaf(tmp_path: Path) -> None:
    """Its nodes are freed together, in one fence, and it is let in on both; without GPUs a node it is left to Slurm."""
    rig = DaemonRig(tmp_path, nodes=4)
    rig.slurm.network = "SwitchName=a Nodes=n[1-2]\nSwitchName=b Nodes=n[3-4]\nSwitchName=top Switches=a,b\n"
    try:
        fill(rig, 32)
        ref = wish(rig, 2, " level=NVLINK near=leaf", options=("--nodes=2",))
        rig.run(40)
        job = rig.slurm.jobs([ref])[ref]
        assert job.state is JobState.RUNNING
        assert set(job.gpus or {}) in ({"n1", "n2"}, {"n3", "n4"})
        assert all(fit_table(quads()).level_of(mask).name == "NVLINK" for mask in (job.gpus or {}).values())
        assert job.reservation is None
        assert rig.slurm.reservations() == ()
        assert any("nodes in" in text and "(leaf)" in text for text in rig.decisions("reclaim"))
    finally:
        rig.close()


@pytest.mark.parametrize("held", [False, True])
def test_a_wish_gets_an_island_by_reclaim(rig: DaemonRig, held: bool) -> None:
    refs = fill(rig)
    ref = wish(rig, 4, held=held)
    rig.run(30)
    assert_placed(rig, ref, 4)
    assert sum(rig.slurm.jobs([r])[r].restarts for r in refs) == 4
    assert all(rig.slurm.work(r).lost == 0 for r in refs)
    told = rig.daemon.answers.explain(ref)
    assert any(d["kind"] == "reclaim" for d in told["decisions"])
    assert "job:" not in rig.daemon.answers.metrics().decode()
    assert rig.daemon.answers.services() == []


def test_a_wish_that_cannot_be_granted_waits_and_is_explained(rig: DaemonRig) -> None:
    blockers = [
        rig.slurm.submit(
            Submission(name="fixed", script="#!/bin/sh\n", partition="online", user="eve", gpus=8, nodes=(n,))
        )
        for n in ("n1", "n2")
    ]
    rig.clock.advance(1)
    ref = wish(rig)
    rig.run(20)
    assert rig.slurm.jobs([ref])[ref].state is JobState.PENDING
    assert "not submitted through coloc" in rig.daemon.answers.explain(ref)["now"]
    rig.slurm.cancel(blockers[:1])
    rig.run(20)
    assert_placed(rig, ref)


def test_what_coloc_does_not_place_is_left_to_slurm(rig: DaemonRig) -> None:
    refs = [
        wish(rig, partition="batch"),
        wish(rig, nodes=("n2",)),
        wish(rig, comment="[coloc-place v=1 level=WARP]"),
    ]
    rig.run(10)
    assert rig.store.handovers() == ()
    assert all(rig.slurm.jobs([r])[r].state is JobState.RUNNING for r in refs)
    waiting = wish(rig, partition="batch", held=True)
    rig.run(5)
    assert "batch is not in policy.online_partitions" in rig.daemon.answers.explain(waiting)["now"]
    running = rig.daemon.answers.explain(refs[2])["now"]
    assert "its request for a place cannot be read, so Slurm alone places it: level=WARP is none of NVLINK" in running
    both = wish(rig, held=True, comment="[coloc-place v=1] [coloc v=1]")
    rig.run(5)
    assert "a batch job in coloc's care" in rig.daemon.answers.explain(both)["now"]


def test_the_tasks_of_an_array_are_jobs_of_their_own(rig: DaemonRig) -> None:
    fill(rig)
    ref = wish(rig, options=("--array=1-2",))
    rig.run(60)
    for task in (f"{ref}_1", f"{ref}_2"):
        assert_placed(rig, task)
        assert "asks for a place" in str(rig.daemon.answers.explain(task)["decisions"])
    for word in (ref, f"{ref}_[1-2%1]"):
        told = rig.daemon.answers.explain(word)
        assert told["subject"] == f"job:{ref}"
        assert told["now"].startswith("is an array; of its tasks that Slurm still knows 2 running")
        assert told["now"].endswith(f"`coloc explain {ref}_1` tells of one of them")
    with pytest.raises(NotFound):
        rig.daemon.answers.explain(f"{ref}_7")
    assert rig.daemon.answers.owner(ref) == rig.daemon.answers.owner(f"{ref}_1")


def test_a_job_that_starts_by_itself_ends_the_handover(rig: DaemonRig) -> None:
    """Between the reading and the hold Slurm found it a place."""
    ref = wish(rig, held=False)
    rig.slurm.on_call = lambda name, args: rig.clock.advance(1.0) if name == "hold" and args[0] == (ref,) else None
    rig.daemon.cycle()
    rig.slurm.on_call = None
    rig.run(30)
    assert rig.slurm.jobs([ref])[ref].state is JobState.RUNNING
    assert rig.store.handovers(only_open=True) == ()
    assert rig.slurm.reservations() == ()


@pytest.mark.parametrize(("submitted_held", "mode", "held"), [(False, "guaranteed", True), (True, "guaranteed", True),
    (False, "best-effort", False), (True, "best-effort", True)])  # fmt: skip
def test_after_a_failed_handover_no_worse_place_is_taken(
    rig: DaemonRig, submitted_held: bool, mode: str, held: bool
) -> None:
    fill(rig)
    ref = wish(rig, words=f" mode={mode}", held=submitted_held)
    rig.slurm.fault("requeue", SlurmRefused("not allowed"), times=10_000)
    rig.run(30)
    assert any(h.state == "failed" for h in rig.store.handovers())
    job = rig.slurm.jobs([ref])[ref]
    assert job.state is JobState.PENDING
    assert (job.held is not Held.NO) == held
    assert job.reservation is None
    assert job.required_nodes == ()
    assert rig.slurm.reservations() == ()
    rig.slurm._faults.clear()
    rig.run(60)
    assert_placed(rig, ref)


def test_wrong_gpus_are_sent_back_not_cancelled(tmp_path: Path) -> None:
    rig = DaemonRig(tmp_path)
    try:
        refs = fill(rig)
        ref = wish(rig)
        done: list[str] = []

        def meddle(name: str, args: tuple[object, ...]) -> None:
            """Just before the job is let in, GPUs of the other island become free and the plugs are too late."""
            if (
                name == "update"
                and args[0] == ref
                and isinstance(args[1], JobUpdate)
                and args[1].reservation
                and not done
            ):
                handover = rig.store.handovers(only_open=True)[0]
                ((node, want),) = handover.places.items()
                low = want & 0x0F
                mine = {r: (rig.slurm.jobs([r])[r].gpus or {}).get(node, 0) for r in refs}
                other = [r for r, m in mine.items() if m and bool(m & 0x0F) != bool(low)][:2]
                done.extend(other)
                rig.slurm.on_call = None
                rig.slurm.cancel(other)
                rig.clock.advance(6.0)

        rig.slurm.on_call = meddle
        rig.run(60)
        assert done
        assert_placed(rig, ref)
    finally:
        rig.close()


def test_an_administrators_hold_is_respected(rig: DaemonRig) -> None:
    ref = wish(rig, held=True)
    rig.slurm.hold([ref])
    rig.run(20)
    assert rig.slurm.jobs([ref])[ref].held is Held.ADMIN
    assert rig.store.handovers() == ()


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("hook", ["on_call", "after_call"])
def test_crash_around_every_call(tmp_path: Path, hook: str) -> None:
    strike = 0
    while True:
        strike += 1
        folder = tmp_path / str(strike)
        folder.mkdir()
        rig = DaemonRig(folder)
        try:
            refs = fill(rig)
            ref = wish(rig)
            seen = 0

            def point(name: str, args: tuple[object, ...], strike: int = strike) -> None:
                nonlocal seen
                seen += 1
                if seen == strike:
                    raise Crash

            setattr(rig.slurm, hook, point)
            try:
                rig.run(20)
            except Crash:
                setattr(rig.slurm, hook, None)
                rig.restart()
                rig.run(30)
            else:
                assert strike > 8
                return
            assert_placed(rig, ref)
            assert sorted(rig.slurm.jobs([r])[r].restarts for r in refs)[-3:] == [0, 1, 1]
            assert all(rig.slurm.work(r).lost == 0 for r in refs)
        finally:
            rig.close()


def test_nobody_is_evicted_for_a_wish_that_could_not_start(rig: DaemonRig) -> None:
    """It is held, so Slurm's reason tells neither its dependency nor its begin time."""
    refs = fill(rig)
    after = wish(rig, held=True, options=(f"--dependency=afterany:{refs[0]}",))
    later = wish(rig, held=True, options=("--begin=now+200",))
    rig.run(60)
    assert len([job for job in rig.jobs("train") if job.state is JobState.RUNNING]) == len(refs)
    assert rig.store.handovers() == ()
    rig.slurm.cancel([refs[0]])
    rig.run(60)
    assert_placed(rig, after)
    assert rig.slurm.jobs([later])[later].state is JobState.PENDING
    rig.run(180)
    assert_placed(rig, later)
