"""Handovers over two nodes, and pairs: everything that holds for one node, and a crash at every point of both."""

from pathlib import Path

import msgspec
import pytest
from tests.act.test_crash import Crash, Doom, _arm_store, _patient
from tests.helpers.rig import SERVICE, Rig

from colocd.core.actions import Place, Plan
from colocd.core.service import Closeness
from colocd.core.view import JobState, Node
from colocd.errors import SlurmUnknown, SlurmUnreachable
from colocd.sim.program import Program
from colocd.slurm.port import Submission
from colocd.store.records import Handover, HandoverState

WANT = {"n1": 0b110, "n2": 0b1111}
pytestmark = pytest.mark.timeout(400)  # a machine that does much else takes ten times as long
DECODE = msgspec.structs.replace(SERVICE, name="decode")


def wide_job(rig: Rig, name: str, gpus: int) -> str:
    """A batch job with GPUs on n1 and n2."""
    rig.programs[name] = Program(signal="USR1", acks_after=1.0)
    ref = rig.slurm.submit(
        Submission(
            name=name,
            script="#!/bin/sh\n",
            partition="batch",
            user="ann",
            gpus=gpus,
            nodes=("n1", "n2"),
            requeue=True,
            comment="[coloc v=1 signal=USR1 to=batch]",
        )
    )
    rig.clock.advance(1.0)
    return ref


def scene(folder: Path) -> tuple[Rig, Handover, tuple[str, ...]]:
    """Two GPUs on each of two nodes: a victim on both nodes, single ones, free GPUs that must be plugged, a backlog on both."""
    rig = Rig(folder, service=msgspec.structs.replace(SERVICE, nodes=2))
    refs = [wide_job(rig, "both", 2)]
    refs += [rig.batch(f"j{n}{i}", 1, node=n) for n in ("n1", "n2") for i in range(6)]
    want = {node: rig.mask(refs[0], node) for node in ("n1", "n2")}
    # One GPU of the wide job's is not wanted on n1: a neighbour's is, in the same island.
    for node in ("n1", "n2"):
        spare = next(r for r in refs[1:] if rig.mask(r, node) & 0b1000_0000)
        rig.slurm.cancel([spare])
        rig.clock.advance(1.0)
        rig.slurm.hold(rig.others(8, node=node))
    return rig, rig.start(want, (refs[0],)), (refs[0],)


def finish(rig: Rig, h: Handover, victims: tuple[str, ...]) -> Handover:
    rig.assert_good(h, victims)
    assert h.got == h.places
    assert h.data["closeness_got"] == "any"
    (row,) = rig.store.replicas()
    assert (row.places, row.node) == (h.places, "n1")
    for ref in victims:
        assert {r.ref: r for r in rig.store.jobs()}[ref].evictions == 1
        assert rig.slurm.work(ref).lost == 0
    return h


def test_one_fence_is_around_both_nodes(tmp_path: Path) -> None:
    rig, h, victims = scene(tmp_path)
    h = rig.drive(h, until=lambda h: h.state == HandoverState.FENCED or h.state == HandoverState.SIGNALLED)
    (fence,) = rig.slurm.reservations()
    assert fence.nodes == ("n1", "n2")
    finish(rig, rig.drive(h), victims)
    (job,) = rig.replicas()
    assert job.nodes_requested == 2


@pytest.mark.parametrize("kind", ["slurm", "store"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_crash_everywhere(tmp_path: Path, kind: str, after: bool) -> None:
    (tmp_path / "count").mkdir()
    rig, h, victims = scene(tmp_path / "count")
    doom = Doom(0)
    if kind == "slurm":
        rig.slurm.on_call = lambda name, args: doom.point()
    else:
        _arm_store(rig, doom, after=False)
    finish(rig, rig.drive(h), victims)
    assert doom.seen >= (7 if kind == "slurm" else 25)
    for strike in range(1, doom.seen + 1):
        folder = tmp_path / str(strike)
        folder.mkdir()
        rig, h, victims = scene(folder)
        fatal = Doom(strike)
        if kind == "store":
            _arm_store(rig, fatal, after)
        elif after:
            rig.slurm.after_call = lambda name, args, d=fatal: d.point()
        else:
            rig.slurm.on_call = lambda name, args, d=fatal: d.point()
        with pytest.raises(Crash):
            rig.drive(h)
        rig.clock.advance(3.0)
        rig.slurm.on_call = rig.slurm.after_call = None
        rig.restart()
        finish(rig, rig.drive(h), victims)


@pytest.mark.parametrize("call", ["reserve", "signal", "requeue", "submit", "cancel", "update", "unreserve"])
@pytest.mark.parametrize(
    ("error", "effect"), [(SlurmUnknown, "before"), (SlurmUnknown, "after"), (SlurmUnreachable, "before")]
)
def test_failing_calls(tmp_path: Path, call: str, error: type[Exception], effect: str) -> None:
    rig, h, victims = scene(tmp_path)
    rig.slurm.fault(call, error, effect)  # type: ignore[arg-type]
    finish(rig, _patient(rig, h), victims)


def test_a_node_that_dies_rolls_all_nodes_back(tmp_path: Path) -> None:
    rig, h, victims = scene(tmp_path)
    rig.slurm.drain("n2")
    h = rig.drive(h)
    assert h.state == "rolled-back"
    assert "node n2" in h.data["abort"]
    assert rig.leftovers() == []
    assert all(rig.job(v).state is JobState.RUNNING for v in victims)


def test_nodes_that_are_not_near_any_more_do_not_count(tmp_path: Path) -> None:
    """The network was read anew meanwhile: a guaranteed closeness is judged by what is known now."""
    spec = msgspec.structs.replace(SERVICE, nodes=2, closeness=Closeness.LEAF)
    for leaves, state in ((("a", "a"), "released"), (("a", "b"), "failed")):
        folder = tmp_path / "".join(leaves)
        folder.mkdir()
        rig = Rig(folder, service=spec)
        known = {
            f"n{k}": Node(name=f"n{k}", address="", up=True, gpus=8, used=0, leaf=leaf)
            for k, leaf in enumerate(leaves, start=1)
        }
        rig.tools.network = known.get
        h = rig.drive(rig.start({"n1": 0b11, "n2": 0b11}))
        assert h.state == (state if state == "released" else "rolled-back")
        assert rig.leftovers() == []
        if state == "released":
            assert h.data["closeness_got"] == "leaf"
        else:
            assert "leaf is asked for" in h.data["abort"]


class Pair:
    """Prefill on n1, decode on n2; one victim with GPUs on both."""

    def __init__(self, folder: Path, same_node: bool = False) -> None:
        self.rig = rig = Rig(folder)
        specs = {"chat": SERVICE, "decode": DECODE}
        self.spec = specs.get
        self.nodes = {n: Node(name=n, address="", up=True, gpus=8, used=0, leaf="x") for n in ("n1", "n2")}
        rig.tools.spec, rig.tools.network = self.spec, self.nodes.get
        if same_node:
            self.victim = rig.batch("big", 8)
            one, two = {"n1": 0b0011}, {"n1": 0b1100_0000}
        else:
            self.victim = wide_job(rig, "both", 8)
            one, two = {"n1": 0b0011}, {"n2": 0b1100_0000}
        lead = Place(service="chat", slot=0, places=one, level="NVLINK", victims=(self.victim,), beside=tuple(two))
        other = Place(service="decode", slot=0, places=two, level="NVLINK", beside=tuple(one), follows="chat/0")
        rig.slurm.hold([])
        for node in ("n1", "n2"):
            rig.others(8, node=node)
        rig.actor.carry_out(Plan(at=rig.clock.now(), actions=(lead, other)), {self.victim: rig.job(self.victim)})

    def restart(self) -> None:
        self.rig.slurm.on_call = self.rig.slurm.after_call = None
        self.rig.restart()
        self.rig.tools.spec, self.rig.tools.network = self.spec, self.nodes.get

    def drive(self, seconds: float = 200.0) -> None:
        """Step all open handovers as the daemon does."""
        rig = self.rig
        end = rig.clock.monotonic() + seconds
        while (left := rig.store.handovers(only_open=True)) and rig.clock.monotonic() < end:
            for h in left:
                rig.machine.run(h)
            rig.clock.advance(0.2)
        assert not left, [(h.service, h.state, h.data) for h in left]

    def states(self) -> list[str]:
        return [h.state.value for h in sorted(self.rig.store.handovers(), key=lambda h: h.id)]

    def assert_both(self) -> None:
        rig = self.rig
        assert self.states() == ["released", "released"]
        running = {
            j.name: j for j in rig.slurm.read().jobs if j.name.startswith("coloc-") and j.state is JobState.RUNNING
        }
        assert set(running) == {"coloc-chat-0", "coloc-decode-0"}
        for h in rig.store.handovers():
            assert h.got is not None
            assert all(rig.tools.table(n).level_of(m) == 6 for n, m in h.got.items())  # type: ignore[union-attr]
        assert rig.leftovers() == []
        assert rig.job(self.victim).restarts == 1
        assert {r.ref: r for r in rig.store.jobs()}[self.victim].evictions == 1


@pytest.mark.parametrize("same_node", [False, True])
def test_a_pair_starts_within_one_fence_though_others_wait_for_the_gpus(tmp_path: Path, same_node: bool) -> None:
    pair = Pair(tmp_path, same_node)
    fences: set[str] = set()
    pair.rig.slurm.after_call = lambda name, args: fences.update(r.name for r in pair.rig.slurm.reservations())
    pair.drive()
    pair.assert_both()
    assert len(fences) == 1


def test_a_pair_survives_a_crash_at_every_call_and_write(tmp_path: Path) -> None:
    for kind, every in (("slurm", 1), ("store", 3)):
        strike = 1 - every
        while True:
            strike += every
            folder = tmp_path / f"{kind}{strike}"
            folder.mkdir()
            pair, doom = Pair(folder), Doom(strike)
            if kind == "slurm":
                pair.rig.slurm.after_call = lambda name, args, d=doom: d.point()
            else:
                _arm_store(pair.rig, doom, after=True)
            try:
                pair.drive()
            except Crash:
                pair.rig.clock.advance(3.0)
                pair.restart()
                pair.drive()
                pair.assert_both()
            else:
                pair.assert_both()
                assert strike > (8 if kind == "slurm" else 30)
                break


def test_when_the_first_fails_the_other_is_not_started(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.rig.slurm.drain("n2")
    pair.drive()
    assert pair.states() == ["rolled-back", "rolled-back"]
    assert pair.rig.leftovers() == []
    assert pair.rig.job(pair.victim).restarts == 0, "nobody was told: the plan is checked on the nodes of both"


def test_when_the_other_fails_the_first_stays(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    real = pair.spec
    pair.rig.tools.spec = lambda name: real(name) if name == "chat" or pair.states()[0] != "released" else None
    pair.drive()
    assert pair.states() == ["released", "rolled-back"]
    assert pair.rig.leftovers() == []
    assert [r.service for r in pair.rig.store.replicas()] == ["chat"]
