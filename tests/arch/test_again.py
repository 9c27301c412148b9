"""The second look of `make test` at live tests that failed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tools.again import failures, main, worth

LIVE = "tests/e2e/test_x.py::test_a"


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "without naming"),
        ([], "without naming"),
        ([LIVE, "tests/core/test_plan.py::test_b"], "1 of the 2 that failed need no live cluster"),
        ([f"{LIVE}{k}" for k in range(4)], "more than 3"),
    ],
)
def test_no_second_look(found: list[str] | None, why: str) -> None:
    assert why in (worth(found) or "")


def test_a_second_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What it runs is what failed; its result is the result."""
    ran: list[list[str]] = []
    codes = [0, 1]

    def run(words: list[str], check: bool) -> "subprocess.CompletedProcess[str]":
        ran.append(words)
        return subprocess.CompletedProcess(words, codes.pop(0))

    monkeypatch.setattr(subprocess, "run", run)
    folder = tmp_path / "v" / "cache"
    folder.mkdir(parents=True)
    (folder / "lastfailed").write_text(json.dumps({LIVE: True}))
    assert main([str(tmp_path)]) == 0
    assert f"UNSTABLE, failed beside others (see above) and passed alone: {LIVE}" in capsys.readouterr().out
    assert ran[0][:3] == [sys.executable, "-m", "pytest"]
    assert ran[0][-1] == LIVE
    assert main([str(tmp_path)]) == 1


def test_a_cache_that_cannot_be_read(tmp_path: Path) -> None:
    assert failures(tmp_path) is None
    assert main([str(tmp_path)]) == 1
