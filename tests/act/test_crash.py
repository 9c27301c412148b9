"""kill -9 at every instruction that matters: before and after each changing call to Slurm and each write to the store.

The process's death is an exception no code catches, raised from inside the call; then everything but Slurm and the
database file is built anew, as after a restart, and the handover must end as if nothing had happened.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.helpers.rig import Rig

from colocd.core.view import JobState
from colocd.errors import SlurmRefused, SlurmUnknown, SlurmUnreachable, StoreUnavailable
from colocd.sim.program import Program
from colocd.store.records import Handover

pytestmark = pytest.mark.timeout(400)  # a machine that does much else takes ten times as long
WRITES = (
    "intend",
    "settle",
    "save_handover",
    "put_jobs",
    "put_replica",
    "add_decisions",
    "put_service",
    "delete_replica",
)


class Crash(BaseException):
    """The process is gone."""


class Doom:
    """Counts the points of one kind and strikes at one of them."""

    def __init__(self, strike: int) -> None:
        self.strike = strike
        self.seen = 0

    def point(self) -> None:
        self.seen += 1
        if self.seen == self.strike:
            raise Crash


def _arm_store(rig: Rig, doom: Doom, after: bool) -> None:
    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not after:
                doom.point()
            answer = real(*args, **kwargs)
            if after:
                doom.point()
            return answer

        return call

    for name in WRITES:
        setattr(rig.store, name, wrap(getattr(rig.store, name)))


def _scene(folder: Path) -> tuple[Rig, Handover, tuple[str, ...]]:
    """Needs everything: two victims of which one is bigger than what is wanted, a free GPU that must be plugged, a backlog."""
    rig = Rig(folder)
    refs = [rig.batch("big", 2)] + [rig.batch(f"j{i}", 1) for i in range(6)]
    masks = {r: rig.mask(r) for r in refs}
    victims = tuple(sorted(r for r in refs if masks[r] & 0b110))
    spare = next(r for r in refs if masks[r] & 0b1000_0000)
    rig.slurm.cancel([spare])
    rig.clock.advance(1)
    rig.slurm.hold(rig.others(10))
    assert len(victims) == 2
    return rig, rig.start(0b110, victims), victims


def _scene_of_moments(folder: Path) -> tuple[Rig, Handover, tuple[str, ...]]:
    """Two victims that nobody can ask: one goes at once, the other 3 s later, at its own moment."""
    rig = Rig(folder)
    refs = [rig.batch(f"j{i}", 1, program=Program(), signal=None) for i in range(8)]
    masks = {r: rig.mask(r) for r in refs}
    victims = tuple(sorted(r for r in refs if masks[r] & 0b110))
    h = rig.start(0b110, victims)
    waits = {"moments": {victims[1]: 3.0}, "latest": 3.0, "decided_at": h.created_at}
    h = msgspec.structs.replace(h, data={**h.data, **waits})
    rig.store.save_handover(h)
    return rig, h, victims


SCENES = {"asked": _scene, "moments": _scene_of_moments}


def _live_through(rig: Rig, h: Handover, victims: tuple[str, ...]) -> None:
    rig.slurm.on_call = rig.slurm.after_call = None
    rig.restart()
    h = rig.drive(h)
    rig.assert_good(h, victims)
    assert h.got == {"n1": 0b110}
    rows = {row.ref: row for row in rig.store.jobs()}
    for ref in victims:
        assert rows[ref].evictions == 1
        assert rows[ref].ours
        if "moments" not in h.data:
            assert rig.slurm.work(ref).lost == 0
    assert [i.key for i in rig.store.intents(unsettled=True) if i.outcome.value == "open"] == []
    submitted = [j for j in rig.slurm.read().jobs if j.name == "coloc-chat-0" and j.state is JobState.RUNNING]
    assert len(submitted) == 1


def _points(tmp_path: Path, kind: str, scene: str) -> int:
    rig, h, victims = SCENES[scene](tmp_path)
    doom = Doom(0)
    if kind == "slurm":
        rig.slurm.on_call = lambda name, args: doom.point()
    else:
        _arm_store(rig, doom, after=False)
    rig.assert_good(rig.drive(h), victims)
    return doom.seen


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("kind", ["slurm", "store"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_crash_everywhere(tmp_path: Path, kind: str, after: bool, scene: str) -> None:
    (tmp_path / "count").mkdir()
    points = _points(tmp_path / "count", kind, scene)
    assert points >= ({"asked": 8, "moments": 6}[scene] if kind == "slurm" else 30)
    for strike in range(1, points + 1):
        folder = tmp_path / str(strike)
        folder.mkdir()
        rig, h, victims = SCENES[scene](folder)
        doom = Doom(strike)
        if kind == "store":
            _arm_store(rig, doom, after)
        elif after:
            rig.slurm.after_call = lambda name, args, d=doom: d.point()
        else:
            rig.slurm.on_call = lambda name, args, d=doom: d.point()
        with pytest.raises(Crash):
            rig.drive(h)
        rig.clock.advance(3.0)
        _live_through(rig, h, victims)


CALLS = ("reserve", "signal", "requeue", "submit", "cancel", "update", "unreserve")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("effect", ["before", "after"])
@pytest.mark.parametrize("error", [SlurmUnknown, SlurmUnreachable])
def test_failing_calls(tmp_path: Path, call: str, effect: str, error: type[SlurmUnknown | SlurmUnreachable]) -> None:
    """Every changing call times out (with or without effect) or finds nobody, each time it is first made."""
    if effect == "after" and error is SlurmUnreachable:
        effect = "before"
    rig, h, victims = _scene(tmp_path)
    rig.slurm.fault(call, error, effect)  # type: ignore[arg-type]
    h = _patient(rig, h)
    rig.assert_good(h, victims)
    assert h.got == {"n1": 0b110}


def _patient(rig: Rig, h: Handover) -> Handover:
    """Drive as the daemon does: an error ends the step, not the handover."""
    for _ in range(50):
        try:
            return rig.drive(h)
        except (SlurmUnknown, SlurmUnreachable, StoreUnavailable):
            rig.clock.advance(0.2)
    raise AssertionError("it never ended")


def test_refused_fence_rolls_back_before_anybody_is_told(tmp_path: Path) -> None:
    rig, h, victims = _scene(tmp_path)
    rig.slurm.fault("reserve", SlurmRefused("no rights"), times=10_000)
    h = rig.drive(h)
    assert h.state == "rolled-back"
    assert "no rights" in h.data["abort"]
    assert not any(c.name in ("signal", "requeue") for c in rig.slurm.calls)
    assert all(rig.job(v).state is JobState.RUNNING for v in victims)


def test_refused_requeue_gives_up_and_says_so(tmp_path: Path) -> None:
    rig, h, _ = _scene(tmp_path)
    rig.slurm.fault("requeue", SlurmRefused("not allowed"), times=10_000)
    h = rig.drive(h)
    assert h.state == "failed"
    assert "not allowed" in h.data["abort"]
    assert rig.leftovers() == []


def test_store_gone_in_the_middle(tmp_path: Path) -> None:
    rig, h, victims = _scene(tmp_path)
    failures = iter([True] * 5)
    real = rig.store.save_handover

    def flaky(handover: Handover) -> None:
        if handover.state == "signalled" and next(failures, False):
            raise StoreUnavailable("database is locked")
        real(handover)

    rig.store.save_handover = flaky  # type: ignore[method-assign]
    rig.assert_good(_patient(rig, h), victims)


@pytest.mark.parametrize("reached", [True, False])
def test_node_dies_between_the_marks_and_the_signal(tmp_path: Path, reached: bool) -> None:
    """Nobody told: rolled back. Perhaps told (the call timed out): the victims get their requeue, then it is given up."""
    rig, h, victims = _scene(tmp_path)
    rig.slurm.fault("signal", SlurmUnknown if reached else SlurmUnreachable, "after" if reached else "before", times=3)
    rig.slurm.after_call = lambda name, args: rig.slurm.fail_node("n1") if name == "signal" else None
    rig.slurm.on_call = lambda name, args: rig.slurm.drain("n1") if name == "signal" and not reached else None
    h = _patient(rig, h)
    assert h.state == ("failed" if reached else "rolled-back")
    assert rig.leftovers() == []
    if not reached:
        assert all(rig.job(v).state is JobState.RUNNING for v in victims)
