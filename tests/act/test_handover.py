"""The state machine on the virtual cluster: the good way, and the bad days."""

from pathlib import Path

import msgspec
import pytest
from tests.helpers.rig import SERVICE, Rig

from colocd.core.grace import grace_of
from colocd.core.policy import JobClass, Policy
from colocd.core.service import Mode
from colocd.core.view import Checkpoint, Held, JobState
from colocd.errors import SlurmUnreachable
from colocd.sim.program import Program
from colocd.slurm.port import JobUpdate, Submission
from colocd.store.records import HandoverState as S


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_reclaim_takes_the_wanted_gpus(rig: Rig) -> None:
    a, b = rig.batch("a", 4), rig.batch("b", 4)
    others = rig.others(10)
    want = 0b11 << (4 if rig.mask(a) == 0xF0 else 0)
    h = rig.drive(rig.start(want, (a,)))
    rig.assert_good(h, (a,))
    assert h.got == {"n1": want}
    assert rig.job(a).held is Held.ADMIN
    assert rig.job(b).state is JobState.RUNNING
    assert h.data["acked"] == [a]
    assert list(h.data["t"]) == [
        "planned", "fenced", "signalled", "checkpointed", "requeued", "freed", "placed", "verified", "released",
    ]  # fmt: skip
    rig.clock.advance(1)
    # The two GPUs of the victim that the replica did not need are the others' now, not before the fence was down.
    assert sum(rig.job(o).state is JobState.RUNNING for o in others) == 2
    assert rig.slurm.work(a).lost == 0


def test_free_gpus_need_no_victim(rig: Rig) -> None:
    h = rig.drive(rig.start(0b11))
    rig.assert_good(h)
    assert "plug" not in {i.kind for i in rig.store.intents(handover=h.id)} or h.got == {"n1": 0b11}


def test_scattered_free_gpus_are_plugged(rig: Rig) -> None:
    """GPUs 0 and 6 free, 2 and 3 wanted: Slurm alone would give 0 and something."""
    refs = {i: rig.batch(f"j{i}", 1) for i in range(8)}
    by_gpu = {rig.mask(ref).bit_length() - 1: ref for ref in refs.values()}
    rig.slurm.cancel([by_gpu[0], by_gpu[6]])
    rig.clock.advance(1)
    others = rig.others(10, node="n1")
    # Hold the others back until the fence stands; their turn comes as soon as GPUs are freed.
    rig.slurm.hold(others)
    h = rig.start(0b1100, (by_gpu[2], by_gpu[3]))
    h = rig.drive(h, until=lambda h: h.state is S.FENCED or h.state is S.SIGNALLED)
    rig.slurm.release(others)
    h = rig.drive(h)
    rig.assert_good(h, (by_gpu[2], by_gpu[3]))
    assert h.got == {"n1": 0b1100}


def test_plugs_that_wait_do_not_take_what_the_replica_is_to_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm starts half of the plugs, the rest fits already; the other half starts before the replica would."""
    rig = Rig(tmp_path, spread_single=False)
    submit, waiting = rig.slurm.submit, list[str]()

    def slow(job: Submission) -> str:
        plug = job.name == "coloc-plug"
        if not plug:
            rig.slurm.release([ref for ref in waiting if rig.job(ref).state is JobState.PENDING])
        ref = submit(job)
        if plug and ref not in waiting:
            waiting.append(ref)
            if len(waiting) > 4:
                rig.slurm.hold([ref])
        return ref

    monkeypatch.setattr(rig.slurm, "submit", slow)
    h = rig.drive(rig.start(0b11))
    rig.assert_good(h)
    assert len(waiting) == 8
    assert h.data["t"]["released"] - h.created_at < rig.tools.policy.start_timeout / 2


def test_silent_victim_is_requeued_after_its_grace(rig: Rig) -> None:
    a = rig.batch("a", 8, program=Program(signal="USR1", ignores=True))
    h = rig.drive(rig.start(0b11, (a,)))
    rig.assert_good(h, (a,))
    assert "grace-expired" in h.data["t"]
    assert h.data["t"]["grace-expired"] - h.data["told_at"] >= 30.0
    assert sum(c.name == "signal" for c in rig.slurm.calls) == 2  # told, and reminded once


def test_the_grace_is_the_jobs_the_classs_and_the_sites(rig: Rig) -> None:
    rig.tools.policy = Policy(grace=60.0, classes=(JobClass(name="short", partitions=("batch",), grace=5.0),))
    job = msgspec.structs.replace(rig.job(rig.batch("a", 1)), state=JobState.RUNNING)
    for asks, partition, grace in (
        (None, "batch", 5.0),
        (2.0, "batch", 2.0),
        (30.0, "other", 30.0),
        (None, "other", 60.0),
    ):
        one = msgspec.structs.replace(job, partition=partition, checkpoint=Checkpoint(signal="USR1", grace=asks))
        assert grace_of([one], rig.tools.policy, emergency=False) == grace
    blind = msgspec.structs.replace(job, checkpoint=Checkpoint())
    assert grace_of([blind], rig.tools.policy, emergency=False) == 0.0


def test_lost_signal_is_repeated(rig: Rig) -> None:
    a = rig.batch("a", 8, program=Program(signal="USR1", ignores=True))
    h = rig.drive(rig.start(0b11, (a,)), until=lambda h: bool(h.data.get("repeated")))
    rig.slurm.update(a, JobUpdate(comment="[coloc v=1 signal=USR1 to=batch saved=5 yielded=5]"))
    h = rig.drive(h)
    assert h.data["acked"] == [a]
    assert "checkpointed" in h.data["t"]


def test_victim_that_ends_by_itself_is_no_eviction(rig: Rig) -> None:
    a = rig.batch("a", 8, program=Program(signal="USR1", exits_on_signal=True, duration=1e6))
    h = rig.drive(rig.start(0b11, (a,)))
    assert h.state is S.RELEASED
    assert rig.job(a).state in (JobState.DONE, JobState.FAILED)
    assert rig.store.jobs() == () or rig.store.jobs()[0].evictions == 0


def test_victim_that_requeues_itself_is_held_at_once_and_not_requeued_again(rig: Rig) -> None:
    a = rig.batch("a", 2, program=Program(signal="USR1", ignores=True))
    b = rig.batch("b", 2, program=Program(signal="USR1", acks_after=20.0))
    h = rig.drive(rig.start(rig.mask(a) | rig.mask(b), (a, b)), until=lambda h: h.state is S.SIGNALLED)
    rig.slurm.requeue([a], hold=False)
    rig.clock.advance(0.2)
    h = rig.step(h.id)
    assert h.state is S.SIGNALLED
    assert (h.data["acked"], h.data["evicted"]) == ([a], [a])
    assert rig.job(a).held is Held.ADMIN  # before Slurm's pause after a requeue is over
    h = rig.drive(h)
    rig.assert_good(h, (a, b))
    assert [c.args for c in rig.slurm.calls if c.name == "requeue"] == [((a,), False), ((b,), True)]
    assert {row.ref: (row.evictions, row.ours) for row in rig.store.jobs()} == {a: (1, True), b: (1, True)}


def test_victim_that_requeued_itself_and_runs_elsewhere_again_is_left_alone(rig: Rig) -> None:
    """colocd was away for longer than Slurm's pause: the job has given way already."""
    a = rig.batch("a", 2, program=Program(signal="USR1", ignores=True))
    h = rig.drive(rig.start(0b11, (a,)), until=lambda h: h.state is S.SIGNALLED)
    rig.slurm.requeue([a], hold=False)
    rig.slurm.update(a, JobUpdate(nodes=("n2",)))
    rig.clock.advance(20)
    assert rig.job(a).state is JobState.RUNNING
    h = rig.drive(h)
    assert h.state is S.RELEASED, h.data
    assert (rig.job(a).state, rig.job(a).restarts) == (JobState.RUNNING, 1)


def test_job_without_signal_is_requeued_at_once(rig: Rig) -> None:
    a = rig.batch("a", 8, signal=None)
    h = rig.drive(rig.start(0b11, (a,)))
    rig.assert_good(h, (a,))
    assert h.data["t"]["requeued"] - h.data["told_at"] < 1.0


def test_gpus_taken_before_the_fence_roll_the_handover_back(rig: Rig) -> None:
    a = rig.batch("a", 4)
    free = 0xFF & ~rig.mask(a)
    rig.others(4, node="n1")
    rig.clock.advance(1)
    h = rig.drive(rig.start(free & -free | rig.mask(a) & -rig.mask(a), (a,)))
    assert h.state is S.ROLLED_BACK
    assert "taken before the fence" in h.data["abort"]
    assert rig.job(a).state is JobState.RUNNING
    assert rig.leftovers() == []


def test_node_dies_during_the_grace(rig: Rig) -> None:
    a = rig.batch("a", 8)
    h = rig.drive(rig.start(0b11, (a,)), until=lambda h: h.state is S.SIGNALLED)
    rig.slurm.fail_node("n1")
    h = rig.drive(h)
    assert h.state in (S.FAILED, S.ROLLED_BACK)
    assert "n1 is" in h.data["abort"]
    assert rig.leftovers() == []
    assert rig.job(a).state is JobState.PENDING


def test_replica_that_dies_at_once_is_given_up(rig: Rig) -> None:
    rig.programs["coloc-chat-0"] = Program(duration=0.0, exit_code=1)
    a = rig.batch("a", 8)
    h = rig.drive(rig.start(0b11, (a,)))
    assert h.state is S.FAILED
    assert "ended as soon as it started" in h.data["abort"]
    assert rig.leftovers() == []
    assert float(rig.store.setting("retry-at:chat") or 0) > rig.clock.now()
    assert any("gave up" in d.text for d in rig.store.decisions(f"handover:{h.id}"))


def test_wrong_gpus_are_never_left_serving(tmp_path: Path) -> None:
    """An extra GPU becomes free between look and start, and Slurm gives it: found by reading back, ended, tried again."""
    rig = Rig(tmp_path, links_inverted=True)
    refs = [rig.batch(f"j{i}", 1) for i in range(8)]
    by_gpu = {rig.mask(r).bit_length() - 1: r for r in refs}

    def meddle(name: str, args: tuple[object, ...]) -> None:
        if name == "submit" and getattr(args[0], "name", "").startswith("coloc-chat") and by_gpu.get(0):
            rig.slurm.on_call = None
            rig.slurm.cancel([by_gpu.pop(0)])
            rig.clock.advance(0.05)

    rig.slurm.on_call = meddle
    h = rig.drive(rig.start(0b1100_0000, (by_gpu[6], by_gpu[7])))
    rig.assert_good(h)
    assert any(d.kind == "misplaced" for d in rig.store.decisions(f"handover:{h.id}"))


def test_best_effort_takes_what_it_gets(tmp_path: Path) -> None:
    rig = Rig(tmp_path, msgspec.structs.replace(SERVICE, mode=Mode.BEST_EFFORT))
    refs = [rig.batch(f"j{i}", 1) for i in range(8)]
    by_gpu = {rig.mask(r).bit_length() - 1: r for r in refs}
    h = rig.drive(rig.start(0b1_0001, (by_gpu[0], by_gpu[4]), level="SYS"))
    assert h.state is S.RELEASED
    assert h.data["level_got"] == "SYS"


def test_slurmctld_down_in_the_middle(rig: Rig) -> None:
    a = rig.batch("a", 8)
    h = rig.drive(rig.start(0b11, (a,)), until=lambda h: h.state is S.SIGNALLED)
    rig.slurm.down = True
    with pytest.raises(SlurmUnreachable):
        rig.step(h.id)
    rig.clock.advance(20)
    rig.slurm.down = False
    rig.assert_good(rig.drive(h), (a,))


def test_clock_jump_cuts_no_grace_short(rig: Rig) -> None:
    a = rig.batch("a", 8, program=Program(signal="USR1", acks_after=10.0))
    h = rig.drive(rig.start(0b11, (a,)), until=lambda h: h.state is S.SIGNALLED)
    rig.step(h.id)
    rig.clock.jump(3600)
    h = rig.drive(h)
    rig.assert_good(h, (a,))
    assert "checkpointed" in h.data["t"]


def test_removed_service_rolls_back(rig: Rig) -> None:
    a = rig.batch("a", 8)
    h = rig.drive(rig.start(0b11, (a,)), until=lambda h: h.state is S.SIGNALLED)
    rig.service = None
    h = rig.drive(h)
    assert h.state is S.FAILED
    assert rig.job(a).state is JobState.PENDING  # told, so it waits for its requeue: it is not left hanging
    assert rig.leftovers() == []
    assert rig.replicas() == []


def test_typed_islands_need_no_plugs(tmp_path: Path) -> None:
    types = {f"n{i}": ("a",) * 4 + ("b",) * 4 for i in range(1, 5)}
    rig = Rig(tmp_path, types=types)
    h = rig.start(0b11_0000)
    rig.store.save_handover(msgspec.structs.replace(h, gpu_type="b"))
    h = rig.drive(h)
    rig.assert_good(h)
    assert (h.got or {})["n1"] & 0x0F == 0
    assert "plug" not in {i.kind for i in rig.store.intents(handover=h.id)}


def test_kill_wait_is_no_failure(tmp_path: Path) -> None:
    """A victim that ignores TERM holds its GPUs for KillWait, longer than `start_timeout`: the handover waits for it."""
    rig = Rig(tmp_path, kill_wait=90.0)
    rig.tools.kill_wait = 90.0
    a = rig.batch("a", 8, program=Program(signal="USR1", ignores=True, dies_after=1e9))
    h = rig.drive(rig.start(0b11, (a,)))
    assert (h.state, h.data["kill_wait"]) == (S.RELEASED, 90.0)
    assert h.data["t"]["freed"] - h.data["t"]["requeued"] > rig.tools.policy.start_timeout
    rig.store.close()
