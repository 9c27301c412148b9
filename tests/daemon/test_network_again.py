"""Slurm's switches after a failed reading: unknown, told, and asked again after some minutes, not in every cycle."""

from pathlib import Path

import pytest
from tests.helpers.daemon_rig import DaemonRig

from colocd.errors import SlurmUnreachable
from colocd.observe import ASK_AGAIN


def test_a_failed_reading_is_asked_again_after_some_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = DaemonRig(tmp_path)
    asked, away = 0, True

    def topology() -> str:
        nonlocal asked
        asked += 1
        if away:
            raise SlurmUnreachable("slurmctld is away")
        return "SwitchName=a Nodes=n[1-2]\n"

    def told() -> list[str]:
        return [p for p in rig.daemon.answers.status()["cycle"]["problems"] if "switches and blocks" in p]

    monkeypatch.setattr(rig.slurm, "topology", topology)
    try:
        rig.run(60)
        assert asked == 1
        (text,) = told()
        assert "asked again after 5 min" in text
        assert "slurmctld is away" in text
        rig.run(ASK_AGAIN)
        assert asked == 2
        away = False
        rig.run(ASK_AGAIN)
        assert asked == 3
        assert told() == []
        rig.run(2 * ASK_AGAIN)
        assert asked == 3, "once is enough"
    finally:
        rig.close()
