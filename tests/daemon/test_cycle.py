"""The closed loop in one process: fill, reclaim, scale down, and the bad days."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.helpers.daemon_rig import DaemonRig

from colocd.core.view import Held, JobState
from colocd.errors import NotFound, SlurmRefused, SlurmUnreachable, StoreUnavailable
from colocd.slurm.port import Submission


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DaemonRig]:
    rig = DaemonRig(tmp_path)
    yield rig
    rig.close()


def test_the_tide(rig: DaemonRig) -> None:
    rig.endpoint.value = 5.0
    rig.apply()
    refs = [rig.batch(f"train{i}", 2) for i in range(8)]
    rig.run(40)
    assert len(rig.jobs("coloc-chat")) == 1
    assert rig.daemon.answers.services()[0]["ready"] == 1
    assert len(rig.jobs("train")) == 7  # 16 GPUs, 2 serve
    rig.clock.advance(20)
    rig.endpoint.value = 33.0  # a peak nobody foresaw
    rig.run(40)
    assert len(rig.jobs("coloc-chat")) == 4
    assert rig.daemon.answers.services()[0]["ready"] == 4
    evicted = [r for r in refs if rig.slurm.jobs([r])[r].restarts]
    assert len(evicted) == 3
    assert all(rig.slurm.jobs([r])[r].held is Held.ADMIN for r in evicted)
    assert all(rig.slurm.work(r).lost == 0 for r in refs)
    assert {j.reservation for j in rig.jobs("coloc-chat")} == {None}
    assert rig.slurm.reservations() == ()
    rig.endpoint.value = 5.0  # the evening
    rig.run(120)
    assert len(rig.jobs("coloc-chat")) == 1
    assert len(rig.jobs("train")) == 7
    assert "is running" in rig.daemon.answers.explain(evicted[0])["now"]
    kinds = {d["kind"] for d in rig.daemon.answers.explain(evicted[0])["decisions"]}
    assert {"release", "evict"} <= kinds
    assert rig.daemon.answers.status()["gpus"] == {
        "total": 16, "serving": 2, "batch": 14, "free": 0, "failed": 0, "other": 0, "unknown": 0,
    }  # fmt: skip


def test_advise_touches_nothing_and_explains(tmp_path: Path) -> None:
    rig = DaemonRig(tmp_path, mode="advise")
    try:
        rig.endpoint.value = 15.0
        rig.apply()
        ref = rig.batch("train")
        before = len(rig.slurm.calls)
        sentence = rig.run(20)
        assert sentence.startswith("advice only: ")
        assert len(rig.slurm.calls) == before
        assert any(t.startswith("would place") for t in rig.decisions("advice"))
        assert len(rig.decisions("advice")) == len(set(rig.decisions("advice")))
        assert rig.store.handovers() == ()
        assert "waits" in rig.daemon.answers.explain(ref)["now"] or "release" in rig.daemon.answers.explain(ref)["now"]
    finally:
        rig.close()


@pytest.mark.parametrize(
    "body", ["<html>oops</html>", "", "vllm:num_requests_running NaN\n", "vllm:num_requests_running -5\n"]
)
def test_nonsense_metrics_open_no_valley(rig: DaemonRig, body: str) -> None:
    rig.endpoint.value = 25.0
    rig.apply()
    rig.run(60)
    assert len(rig.jobs("coloc-chat")) == 3
    rig.endpoint.body = body
    waiting = rig.batch("train", 2)
    for i in range(4):
        rig.batch(f"more{i}", 2)
    rig.run(200)
    assert len(rig.jobs("coloc-chat")) == 3, "nothing is drained"
    # Six replicas at most may be needed: 12 of 16 GPUs are theirs, two batch jobs fit beside them and no more.
    assert len(rig.jobs("train")) + len(rig.jobs("more")) == 2
    assert rig.daemon.answers.status()["cycle"]["problems"]
    assert waiting


def test_metrics_endpoint_down(rig: DaemonRig) -> None:
    rig.endpoint.value = 25.0
    rig.apply()
    rig.run(60)
    rig.endpoint.close()
    rig.run(200)
    assert len(rig.jobs("coloc-chat")) == 3


def test_replica_that_never_gets_ready(rig: DaemonRig) -> None:
    rig.endpoint.value, rig.endpoint.healthy = 5.0, False
    rig.apply()
    rig.run(120)
    assert any("not ready within 60 s" in t for t in rig.decisions("not-ready"))
    assert all(r["state"] != "ready" for r in rig.daemon.answers.services()[0]["replicas"])
    rig.endpoint.healthy = True
    rig.run(60)
    assert rig.daemon.answers.services()[0]["ready"] == 1


def test_replica_that_dies_is_replaced(rig: DaemonRig) -> None:
    rig.endpoint.value = 5.0
    rig.apply()
    rig.run(40)
    (job,) = rig.jobs("coloc-chat")
    rig.slurm.cancel([job.ref])
    rig.run(40)
    (other,) = rig.jobs("coloc-chat")
    assert other.ref != job.ref
    assert rig.decisions("replica-lost")


def test_slurmctld_down_says_one_sentence(rig: DaemonRig) -> None:
    rig.endpoint.value = 5.0
    rig.apply()
    rig.run(40)
    rig.slurm.down = True
    sentence = rig.run(20)
    assert sentence.startswith("nothing was done: ")
    assert "\n" not in sentence
    assert rig.daemon.answers.status()["cycle"]["problems"]
    rig.slurm.down = False
    assert not rig.run(10).startswith("nothing was done")
    assert rig.daemon.answers.status()["cycle"]["problems"] == []


def test_store_gone_says_one_sentence(rig: DaemonRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.apply()
    rig.run(10)

    def gone(*args: object, **kwargs: object) -> None:
        raise StoreUnavailable("the database is locked")

    monkeypatch.setattr(rig.store, "services", gone)
    calls = len(rig.slurm.calls)
    assert "locked" in rig.run(10)
    assert len(rig.slurm.calls) == calls
    monkeypatch.undo()
    assert "locked" not in rig.run(10)


def test_first_cycle_without_slurm(rig: DaemonRig) -> None:
    rig.slurm.down = True
    rig.run(5)
    status = rig.daemon.answers.status()
    assert status["gpus"] is None
    with pytest.raises(SlurmUnreachable):
        rig.daemon.answers.view()


def test_pause_finishes_what_is_open_and_starts_nothing(rig: DaemonRig) -> None:
    rig.endpoint.value = 5.0
    rig.apply()
    for i in range(8):
        rig.batch(f"train{i}", 2)
    rig.run(60)
    rig.endpoint.value = 25.0
    rig.daemon.cycle()
    assert rig.store.handovers(only_open=True)
    rig.daemon.answers.pause("maintenance of the rack")
    rig.run(60)
    assert rig.store.handovers(only_open=True) == ()
    assert rig.slurm.reservations() == ()
    count = len(rig.store.handovers())
    rig.endpoint.value = 60.0
    assert "maintenance of the rack" in rig.run(60)
    assert len(rig.store.handovers()) == count
    rig.daemon.answers.resume()
    rig.run(60)
    assert len(rig.store.handovers()) > count


def test_removed_service_drains_and_is_forgotten(rig: DaemonRig) -> None:
    rig.endpoint.value = 15.0
    rig.apply()
    rig.run(60)
    rig.daemon.answers.remove_service("chat")
    rig.run(60)
    assert rig.jobs("coloc-chat") == []
    assert rig.daemon.answers.services() == []
    with pytest.raises(NotFound):
        rig.daemon.answers.remove_service("chat")


def test_restart_keeps_everything(rig: DaemonRig) -> None:
    rig.endpoint.value = 15.0
    rig.apply()
    rig.batch("train", 2)
    rig.run(60)
    before = {j.ref for j in rig.jobs()}
    rig.restart()
    rig.run(30)
    assert {j.ref for j in rig.jobs()} == before


def test_leftovers_of_a_lost_database_are_swept(rig: DaemonRig) -> None:
    rig.slurm.reserve("coloc-h99-abcdef", ["n1"], ["root"], 60)
    rig.run(10)
    assert rig.slurm.reservations() == ()
    assert any("coloc-h99-abcdef" in t for t in rig.decisions("sweep"))


def test_a_users_and_an_administrators_hold_are_respected(rig: DaemonRig) -> None:
    ref, other = rig.batch("train"), rig.batch("other")
    rig.slurm.hold([other])  # an administrator's, before coloc ever saw the job
    rig.run(10)
    assert rig.slurm.jobs([ref])[ref].state is JobState.RUNNING
    assert rig.slurm.jobs([other])[other].held is Held.ADMIN
    rig.slurm.requeue([ref], hold=False)
    rig.clock.advance(0.05)
    rig.slurm.hold_by_user(ref)
    rig.run(30)
    assert rig.slurm.jobs([ref])[ref].held is Held.USER


def test_a_job_that_does_not_start_is_taken_back(rig: DaemonRig) -> None:
    ref = rig.batch("train", 2)
    rig.daemon.cycle()
    blockers = [
        rig.slurm.submit(
            Submission(name="quick", script="#!/bin/sh\n", partition="online", user="bob", gpus=8, nodes=(f"n{i}",))
        )
        for i in (1, 2)
    ]
    rig.run(40)
    assert rig.slurm.jobs([ref])[ref].held is Held.ADMIN
    assert any("taken back" in t for t in rig.decisions("hold"))
    rig.slurm.cancel(blockers)
    rig.run(60)
    assert rig.slurm.jobs([ref])[ref].state is JobState.RUNNING


def test_a_clock_that_jumps(rig: DaemonRig) -> None:
    rig.endpoint.value = 15.0
    rig.apply()
    rig.run(60)
    running = {j.ref for j in rig.jobs()}
    for jump in (7200.0, -14400.0):
        rig.clock.jump(jump)
        rig.run(30)
        assert {j.ref for j in rig.jobs()} == running


def test_metrics_text(rig: DaemonRig) -> None:
    rig.endpoint.value = 15.0
    rig.apply()
    rig.run(60)
    text = rig.daemon.answers.metrics().decode()
    assert 'coloc_handovers_total{outcome="released"} 2.0' in text
    assert 'coloc_gpus{use="serving"} 4.0' in text


def test_only_a_requeued_job_is_told_to_start_now(rig: DaemonRig) -> None:
    """A begin time that a user asked for is not coloc's to shorten; Slurm's delay after a requeue is."""
    rig.endpoint.value = 5.0
    rig.apply()
    refs = [rig.batch(f"train{i}", 2) for i in range(8)]
    rig.run(60)
    first = [c.args for c in rig.slurm.calls if c.name == "update" and c.args[0] in refs]
    assert first
    assert not any(change.start_now for _, change in first)
    rig.endpoint.value = 33.0
    rig.run(40)
    rig.endpoint.value = 5.0
    rig.run(90)
    again = [ref for ref, change in (c.args for c in rig.slurm.calls if c.name == "update") if change.start_now]
    assert again
    assert set(again) <= {r for r in refs if rig.slurm.jobs([r])[r].restarts}


def test_one_job_that_slurm_refuses_stops_nobody_else(rig: DaemonRig) -> None:
    refs = [rig.batch(f"train{i}", 1) for i in range(4)]
    refused = SlurmRefused("job is broken")
    rig.slurm.fault("release", refused, times=10_000, when=lambda args: refs[1] in args[0])
    rig.run(10)
    assert [rig.slurm.jobs([r])[r].state for r in refs].count(JobState.RUNNING) == 3
    assert sum(c.name == "release" and refs[1] in c.args[0] for c in rig.slurm.calls) == 2


def test_how_slurm_is_reached_is_told(rig: DaemonRig, monkeypatch: pytest.MonkeyPatch) -> None:
    read = rig.slurm.read
    note = "Slurm 27.05 is newer than 26.05"
    monkeypatch.setattr(rig.slurm, "read", lambda: msgspec.structs.replace(read(), adapter="pyslurm 1", notes=(note,)))
    rig.run(10)
    status = rig.daemon.answers.status()
    assert status["adapter"] == "pyslurm 1"
    assert note in status["cycle"]["problems"]
