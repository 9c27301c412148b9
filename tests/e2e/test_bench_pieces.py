"""`bench_slurm --append`: pieces go through the same sequence as one run, and a piece that is killed keeps what it has."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench.slurm_arms import Reclaim

from bench import bench_slurm
from colocd.errors import ColocError


class Fake:
    """An arm without a cluster: notes what it is asked for."""

    name = "slurm"
    asked: list[tuple[str, Any]] = []
    dies_at: int | None = None
    fails_at: int | None = None

    def __init__(self, settings: object) -> None:
        self.cluster = SimpleNamespace(spec=SimpleNamespace(release=(22, 5)))

    def __enter__(self) -> "Fake":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def fill(self, layout: object) -> None:
        self.asked.append((self.name, layout))

    def request(self, gpus: int) -> Reclaim:
        number = sum(who == self.name and isinstance(what, int) for who, what in self.asked)
        if number == self.dies_at:
            raise KeyboardInterrupt
        self.asked.append((self.name, gpus))
        if number == self.fails_at:
            raise ColocError("a full cluster did not happen")
        return Reclaim(gpus=gpus, seconds=float(number), island=True, victims=1, taken=gpus)


class FakeColoc(Fake):
    name = "coloc"


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> list[tuple[str, Any]]:
    Fake.asked = []
    monkeypatch.setattr(bench_slurm, "SlurmArm", Fake)
    monkeypatch.setattr(bench_slurm, "ColocArm", FakeColoc)
    monkeypatch.setattr(sys, "argv", ["bench_slurm.py", "--gres=cores", "--release=installed", *words])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    bench_slurm.main()
    return Fake.asked


def requests(file: Path) -> dict[str, list[int]]:
    return {row["arm"]: [one["gpus"] for one in row["each"]] for row in json.loads(file.read_text())["arms"]}


def test_pieces_are_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, pieces = tmp_path / "whole.json", tmp_path / "pieces.json"
    run(monkeypatch, "--reclaims=10", f"--json={whole}")
    run(monkeypatch, "--reclaims=2", f"--json={pieces}")
    late = run(monkeypatch, "--reclaims=6", "--append", "--arm=coloc", f"--json={pieces}")
    assert {who for who, _ in late} == {"coloc"}
    assert isinstance(late[0][1], list), "its batch jobs are put in again at the beginning of a piece"
    run(monkeypatch, "--reclaims=10", "--append", f"--json={pieces}")
    assert requests(pieces) == requests(whole)
    assert run(monkeypatch, "--reclaims=10", "--append", f"--json={pieces}") == [], "nothing is left to do"
    assert "| 22.05   | Cores     | coloc | 10 " in capsys.readouterr().out


def test_a_killed_piece_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "found.json"
    monkeypatch.setattr(Fake, "fails_at", 1)
    monkeypatch.setattr(Fake, "dies_at", 3)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, "--reclaims=10", "--arm=slurm", f"--json={file}")
    (row,) = json.loads(file.read_text())["arms"]
    assert (row["no_result"], row["reclaims"], len(row["each"])) == (1, 2, 2)
    monkeypatch.undo()
    run(monkeypatch, "--reclaims=5", "--append", "--arm=slurm", f"--json={file}")
    (row,) = json.loads(file.read_text())["arms"]
    assert (row["no_result"], row["reclaims"]) == (1, 4), "what had no result is not asked for again"


def test_another_seed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "found.json"
    run(monkeypatch, "--reclaims=1", f"--json={file}")
    with pytest.raises(SystemExit):
        run(monkeypatch, "--reclaims=2", "--append", "--seed=2", f"--json={file}")
