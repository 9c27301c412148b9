"""The demo's batch job: exact steps over checkpoint, end and restart; real processes, real signals."""

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from demo.report import steps_lost

Start = Callable[..., "subprocess.Popen[str]"]
RATE = ("--rate", "50")


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds  # noqa: TID251 -- waits for a real process
    while not what():
        assert time.monotonic() < until, "it did not happen in time"  # noqa: TID251
        time.sleep(0.02)  # noqa: TID251


def steps(folder: Path) -> list[int]:
    try:
        return [int(line.split()[1]) for line in (folder / "journal").read_text().splitlines()]
    except FileNotFoundError:
        return []


def recorder(folder: Path) -> tuple[str, Path]:
    """A stand-in for `coloc` that writes down its arguments and the checkpoint it found."""
    said = folder / "said"
    program = folder / "coloc"
    program.write_text(f'#!/bin/sh\necho "$@" "$(cat "{folder}/job/checkpoint")" >>"{said}"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program), said


def test_runs_to_the_end(tmp_path: Path, start: Start) -> None:
    process = start("train_job.py", str(tmp_path / "job"), "12", "--rate", "200")
    assert process.wait(timeout=20) == 0
    assert steps(tmp_path / "job") == list(range(1, 13))
    assert json.loads((tmp_path / "job/done").read_text()) == {"steps": 12, "starts": 1}


def test_yields_and_loses_nothing(tmp_path: Path, start: Start) -> None:
    """USR1: checkpoint first, then tell coloc, then stand still; the next start goes on with the very next step."""
    job = tmp_path / "job"
    coloc, said = recorder(tmp_path)
    script = (
        "train_job.sh",
        str(Path(__file__).parents[2] / "demo/train_job.py"),
        str(job),
        "60",
        *RATE,
        "--every",
        "999",
    )
    first = start(*script, COLOC_COMMAND=coloc)
    wait_for(lambda: len(steps(job)) >= 5)
    first.send_signal(signal.SIGUSR1)
    wait_for(said.exists)
    wait_for(lambda: bool(said.read_text()))
    done = steps(job)
    assert said.read_text().split() == ["checkpointed", "--yield", str(done[-1])]
    assert first.poll() is None, "it waits to be ended"
    first.terminate()
    assert first.wait(timeout=10) == 143
    assert steps(job) == done, "no step after the yield"
    again = start(*script, COLOC_COMMAND=coloc, SLURM_RESTART_COUNT="1")
    assert again.wait(timeout=30) == 0
    assert steps(job) == list(range(1, 61))
    assert steps_lost(job / "journal") == 0
    assert json.loads((job / "done").read_text()) == {"steps": 60, "starts": 2}


def test_killed_without_warning_loses_what_is_unsaved(tmp_path: Path, start: Start) -> None:
    job = tmp_path / "job"
    first = start("train_job.py", str(job), "1000", *RATE, "--every", "0.2")
    wait_for((job / "checkpoint").exists)
    first.kill()
    first.wait(timeout=10)
    saved = int((job / "checkpoint").read_text())
    done = steps(job)[-1]
    again = start("train_job.py", str(job), str(done + 5), *RATE, "--every", "999", SLURM_RESTART_COUNT="1")
    assert again.wait(timeout=30) == 0
    assert steps_lost(job / "journal") == done - saved
    assert set(steps(job)) == set(range(1, done + 6))


def test_a_deaf_job_ignores_the_signal(tmp_path: Path, start: Start) -> None:
    job = tmp_path / "job"
    process = start("train_job.py", str(job), "40", *RATE, "--every", "999", "--deaf")
    wait_for(lambda: len(steps(job)) >= 3)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=20) == 0
    assert not (job / "checkpoint").exists()


def test_a_signal_before_python_is_up_does_not_kill(tmp_path: Path, start: Start) -> None:
    """The batch shell ignores USR1 until Python's handler is there."""
    python = tmp_path / "slow-python"
    python.write_text(
        f'#!/bin/sh\n: >"{tmp_path}/started"\nwhile [ ! -e "{tmp_path}/go" ]; do sleep 0.05; done\nexec python3 "$@"\n'
    )
    python.chmod(0o755)
    train = str(Path(__file__).parents[2] / "demo/train_job.py")
    process = start("train_job.sh", train, str(tmp_path / "job"), "3", *RATE, COLOC_DEMO_PYTHON=str(python))
    wait_for((tmp_path / "started").exists)
    process.send_signal(signal.SIGUSR1)
    (tmp_path / "go").touch()
    assert process.wait(timeout=20) == 0


def test_a_failing_coloc_does_not_stop_the_job(tmp_path: Path, start: Start) -> None:
    process = start("train_job.py", str(tmp_path / "job"), "8", *RATE, "--every", "0.05", COLOC_COMMAND="false")
    assert process.wait(timeout=20) == 0
    assert os.path.exists(tmp_path / "job/done")
