"""A node dies in the middle of a handover, and Slurm is slow to give it up: its jobs do not end, so their fence stays."""

from pathlib import Path

import pytest
from tests.helpers.daemon_rig import DaemonRig

from colocd.core.view import JobState
from colocd.errors import SlurmRefused
from colocd.sim.program import Program


def test_the_service_starts_elsewhere_while_the_fence_cannot_be_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = DaemonRig(tmp_path)
    delete, dead = rig.slurm.unreserve, True

    def unreserve(name: str) -> None:
        if dead and ("n1",) in {r.nodes for r in rig.slurm.reservations() if r.name == name}:
            raise SlurmRefused("scontrol: delete_reservation: Requested reservation is in use")
        delete(name)

    monkeypatch.setattr(rig.slurm, "unreserve", unreserve)
    try:
        rig.slurm.drain("n2")
        rig.programs["train"] = Program(signal="USR1", acks_after=20.0)
        rig.batch("train", 8)
        rig.run(30)
        rig.apply()
        rig.run(5)
        (first,) = rig.store.handovers(only_open=True)
        assert list(first.places) == ["n1"]
        rig.slurm.fail_node("n1")
        rig.slurm.resume("n2")
        rig.run(50)
        assert [h.id for h in rig.store.handovers(only_open=True)] == [first.id], "it may be lifted yet"
        rig.run(60)
        assert {node for job in rig.jobs("coloc-chat") for node in job.gpus or {}} == {"n2"}
        assert [r.nodes for r in rig.slurm.reservations()] == [("n1",)], "what Slurm does not delete is there still"
        assert not any("removed the leftover fence" in note for note in told(rig))
        dead = False
        rig.run(10)
        assert rig.slurm.reservations() == ()
        assert [note for note in told(rig) if "removed the leftover fence" in note] != []
        assert rig.jobs("coloc-plug", JobState.RUNNING) == []
    finally:
        rig.close()


def told(rig: DaemonRig) -> list[str]:
    """What the daemon did by itself."""
    return [decision.text for decision in rig.store.decisions(limit=100)]
