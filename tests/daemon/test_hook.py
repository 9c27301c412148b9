"""The eviction hook: facts in the environment, no shell, a time limit, and nobody waits for it."""

import logging
from pathlib import Path

import pytest

from colocd.config import HookConfig
from colocd.hook import Hook


def program(folder: Path, text: str) -> str:
    path = folder / "hook"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_facts_come_as_data_and_nothing_of_colocds_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s")
    hook = Hook(
        HookConfig(evicted=(program(tmp_path, f'env > {tmp_path}/env; echo "$1" >> {tmp_path}/env'), "an argument"))
    )
    hook.evicted({"job": "17_3", "name": f"$(touch {tmp_path}/bad)\n`id`\x00\x1b[2J\"'", "saved": None})
    hook.join()
    lines = (tmp_path / "env").read_text().splitlines()
    assert "COLOC_JOB=17_3" in lines
    assert "COLOC_SAVED=" in lines
    assert any(line.startswith("COLOC_NAME=$(touch") and "`id`" in line for line in lines)
    assert "an argument" in lines
    assert not any("SECRET" in line for line in lines)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("text", "said"), [("echo no mail >&2; exit 3", "ended with 3: no mail"), ("sleep 60", "ended after 0.2 s")]
)
def test_failures_are_logged_only(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, said: str) -> None:
    hook = Hook(HookConfig(evicted=(program(tmp_path, text),), timeout=0.2 if "sleep" in text else 10.0))
    with caplog.at_level(logging.WARNING):
        hook.evicted({"job": "1"})
        hook.join()
    assert said in caplog.text


def test_a_program_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    hook = Hook(HookConfig(evicted=("/nowhere/hook",)))
    with caplog.at_level(logging.WARNING):
        hook.evicted({"job": "1"})
        hook.join()
    assert "cannot be started: No such file" in caplog.text


def test_no_hook_no_thread() -> None:
    hook = Hook(HookConfig())
    hook.evicted({"job": "1"})
    hook.join()
    assert hook._thread is None
