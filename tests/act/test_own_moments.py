"""Victims that go before the others, each at its own moment, while the fence stands."""

from pathlib import Path

import msgspec
import pytest
from tests.helpers.rig import OBEDIENT, Rig
from tests.helpers.views import view

from colocd.act.tools import waits_until
from colocd.answers_job import job_story
from colocd.core.actions import Hasten, Plan
from colocd.core.view import JobFacts, JobState
from colocd.errors import SlurmRefused
from colocd.learning import remember_start
from colocd.sim.program import Program
from colocd.slurm.port import JobUpdate
from colocd.store.records import Handover
from colocd.store.records import HandoverState as S

LATEST = 60.0


class Scene:
    """Node n1 is full of jobs of one GPU; two of them are wanted: `soon` goes at once, `late` when its moment has come."""

    def __init__(
        self, folder: Path, moment: float = 40.0, mark: str = "[coloc v=1 interval=30 saved=1759999980]"
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.rig = rig = Rig(folder)
        asked = "signal" in mark
        refs = [rig.batch(f"j{i}", 1, program=OBEDIENT if asked else Program(), signal=None) for i in range(8)]
        by_gpu = {rig.mask(ref): ref for ref in refs}
        self.soon, self.late = by_gpu[0b10], by_gpu[0b100]
        rig.slurm.update(self.late, JobUpdate(comment=mark))
        h = rig.start(0b110, (self.soon, self.late))
        waits = {"moments": {self.late: moment}, "latest": LATEST, "decided_at": h.created_at}
        self.h = msgspec.structs.replace(h, data={**h.data, **waits})
        rig.store.save_handover(self.h)
        self.begun = rig.clock.monotonic()

    def wait(self, seconds: float) -> Handover:
        """Until so long after the decision, with the early one gone and the other at work."""
        h = self.rig.drive(self.h, until=lambda h: self.rig.clock.monotonic() >= self.begun + seconds)
        assert (h.state, self.rig.job(self.late).state) == (S.FENCED, JobState.RUNNING)
        assert (self.rig.job(self.soon).state, self.rig.job(self.soon).restarts) == (JobState.PENDING, 1)
        return h

    def ended(self) -> tuple[Handover, float]:
        """The end of the handover, and the second after the decision in which the last victim was told."""
        h = self.rig.drive(self.h)
        return h, h.data["t"].get("signalled", 0.0) - self.h.created_at


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_each_at_its_own_moment(scene: Scene) -> None:
    others = scene.rig.others(10, node="n1")
    h = scene.wait(30.0)
    assert waits_until(h) == h.created_at + LATEST
    assert all(scene.rig.job(other).state is JobState.PENDING for other in others)  # what came free is fenced
    scene.rig.slurm.update(scene.late, JobUpdate(comment=f"[coloc v=1 interval=30 saved={int(h.created_at) + 31}]"))
    h, told = scene.ended()
    scene.rig.assert_good(h, (scene.soon, scene.late))
    assert h.got == {"n1": 0b110}
    assert told < 33.0
    rows = {row.ref: row for row in scene.rig.store.jobs()}
    assert [rows[ref].evictions for ref in (scene.soon, scene.late)] == [1, 1]
    assert rows[scene.soon].evicted_at < h.created_at + 2.0  # type: ignore[operator]
    assert rows[scene.late].evicted_at == pytest.approx(h.data["told_at"], abs=0.001)


def test_a_checkpoint_that_does_not_come_is_waited_for_half_an_interval(scene: Scene) -> None:
    _, told = scene.ended()
    assert 55.0 <= told < 57.0


def test_one_that_was_to_end_is_waited_for_to_the_last(tmp_path: Path) -> None:
    scene = Scene(tmp_path, mark="[coloc v=1]")
    scene.wait(59.0)
    _, told = scene.ended()
    assert LATEST <= told < LATEST + 1.0
    scene = Scene(tmp_path / "again", mark="[coloc v=1]")
    scene.wait(50.0)
    scene.rig.slurm.cancel([scene.late])
    h, _ = scene.ended()
    scene.rig.assert_good(h, (scene.soon,))
    assert h.data["t"]["requeued"] - h.created_at < 52.0
    assert "signalled" not in h.data["t"]


def test_one_that_can_be_asked_is_told_at_the_end_and_has_its_grace(tmp_path: Path) -> None:
    scene = Scene(tmp_path, mark="[coloc v=1 signal=USR1 to=batch grace=20]")
    scene.wait(39.0)
    h, told = scene.ended()
    scene.rig.assert_good(h, (scene.soon, scene.late))
    assert 40.0 <= told < 41.0
    assert h.data["grace"] == 20.0
    assert sorted(h.data["acked"]) == sorted((scene.soon, scene.late))
    assert [i.kind for i in scene.rig.store.intents(handover=h.id)].count("requeue") == 2


def test_the_wait_is_no_part_of_the_measured_lead_time(scene: Scene) -> None:
    h, told = scene.ended()
    assert h.data["waited"] == pytest.approx(told, abs=1.0)
    remember_start(scene.rig.store, h, h.data["t"]["released"] + 5.0)
    (row,) = scene.rig.store.learned("lead").values()
    assert row.data["starts"][0]["reclaim"] < 10.0


def test_hastened(scene: Scene) -> None:
    h = scene.wait(10.0)
    action = Hasten(service="chat", slot=0, why="its replica is needed now", emergency=True)
    for _ in range(2):
        scene.rig.actor.carry_out(Plan(at=scene.rig.clock.now(), actions=(action,)), {})
    h, told = scene.ended()
    assert told < 12.0
    assert h.data["emergency"]
    said = [d.text for d in scene.rig.store.decisions(f"handover:{h.id}") if d.kind == "hasten"]
    assert said == ["its victims are told now, and not each at its own moment: its replica is needed now"]


def test_the_service_is_removed_meanwhile(scene: Scene) -> None:
    scene.wait(10.0)
    scene.rig.service = None
    h, _ = scene.ended()
    assert h.state is S.FAILED
    assert f"jobs {scene.soon} were requeued" in scene.rig.store.decisions(f"handover:{h.id}")[0].text
    assert scene.rig.job(scene.late).state is JobState.RUNNING
    assert scene.rig.leftovers() == []


def test_the_node_is_lost_meanwhile(scene: Scene) -> None:
    scene.wait(10.0)
    scene.rig.slurm.drain("n1")
    h, _ = scene.ended()
    assert (h.state, scene.rig.job(scene.late).state) == (S.FAILED, JobState.RUNNING)


def test_an_early_requeue_that_slurm_refuses_is_left_to_the_end(scene: Scene) -> None:
    scene.rig.slurm.fault("requeue", SlurmRefused("not now"), times=5)
    h, told = scene.ended()
    scene.rig.assert_good(h, (scene.soon, scene.late))
    assert told > 50.0
    assert [row.evictions for row in scene.rig.store.jobs()] == [1, 1]


def test_one_that_requeues_itself_meanwhile_is_held(tmp_path: Path) -> None:
    scene = Scene(tmp_path, mark="[coloc v=1 signal=USR1 to=batch]")
    scene.wait(10.0)
    scene.rig.slurm.requeue([scene.late], hold=False)
    h, _ = scene.ended()
    scene.rig.assert_good(h, (scene.soon, scene.late))
    assert h.data["t"]["requeued"] - h.created_at < 15.0


def test_its_user_is_told(scene: Scene) -> None:
    h = scene.wait(10.0)
    job = scene.rig.job(scene.late)
    v = msgspec.structs.replace(view(job), at=scene.rig.clock.now(), facts={job.ref: JobFacts()})
    story = " ".join(job_story(job, v, None, [h], []))
    assert "has to give up its GPUs for service chat (handover 1) in about 30 s, when it loses least" in story
