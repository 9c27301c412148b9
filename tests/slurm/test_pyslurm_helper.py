"""The process that calls pyslurm, with a stand-in for pyslurm: it hangs, crashes, prints and says no, and coloc keeps going."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from colocd.clock import Clock, SystemClock
from colocd.config import SlurmConfig
from colocd.core.view import Held
from colocd.errors import SlurmRefused, SlurmUnknown, SlurmUnreachable
from colocd.sim.clock import VirtualClock
from colocd.slurm import open_slurm, pyslurm_adapter
from colocd.slurm.cli import CliSlurm
from colocd.slurm.link import Link, Lost
from colocd.slurm.port import JobUpdate, Submission
from colocd.slurm.pyslurm_adapter import PyslurmSlurm

FAKE = Path(__file__).with_name("fake_pyslurm")
COMMANDS = {
    "scontrol": """case "$*" in
--version) echo slurm 26.05.5;;
*"show node"*) echo "NodeName=n1 Gres=gpu:h100:8 GresUsed=gpu:h100:2(IDX:0-1) State=MIXED Partitions=batch CPUTot=16 CPUAlloc=2";;
*"show job 17"*) echo "JobId=17 JobName=train   Nodes=n1 CPU_IDs=0-1 Mem=0 GRES=gpu:h100:2(IDX:0-1)";;
*"show job 18_0"*) echo "JobId=19 JobName=x   Nodes=n1 CPU_IDs=2 Mem=0 GRES=";;
*"show partition"*) echo "PartitionName=by-command State=UP PriorityTier=1 Nodes=n1 PreemptMode=OFF";;
*"show reservation"*) echo "No reservations in the system";;
esac""",
    "squeue": "true",
    "sbatch": "echo 77",
    "scancel": "true",
}


class Steps(SystemClock):
    """The system's clock, which can be put forward."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


Make = Callable[..., PyslurmSlurm]


@pytest.fixture
def mood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that tells the stand-in what to do at its next call."""
    path = tmp_path / "mood"
    monkeypatch.setenv("FAKE_MOOD", str(path))
    monkeypatch.setenv("PYTHONPATH", str(FAKE))
    return path


@pytest.fixture
def make(tmp_path: Path, mood: Path) -> Iterator[Make]:
    """An adapter with stand-ins for pyslurm and for Slurm's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in COMMANDS.items():
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/asked\n{text}\n')
        (folder / name).chmod(0o755)
    python = tmp_path / "python"
    made: list[PyslurmSlurm] = []

    def one(
        version: str = "26.5.0", *, timeout: float = 10.0, clock: Clock | None = None, adapter: str = "auto"
    ) -> PyslurmSlurm:
        # the helper gets a clean environment: what the stand-in needs goes through this wrapper
        python.write_text(f'#!/bin/sh\nexport FAKE_MOOD={mood} FAKE_PYSLURM={version}\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
        config = SlurmConfig(bin_dir=str(folder), pyslurm_python=str(python), timeout=timeout)
        slurm = open_slurm(msgspec.structs.replace(config, adapter=adapter), clock or Steps())
        assert isinstance(slurm, PyslurmSlurm)
        made.append(slurm)
        return slurm

    yield one
    for slurm in made:
        slurm.close()


def asked(tmp_path: Path) -> list[str]:
    """The client commands that were run since the last look."""
    path = tmp_path / "asked"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line for line in lines if "--version" not in line]


def test_a_reading(make: Make, tmp_path: Path) -> None:
    slurm = make()
    found = slurm.read()
    assert (found.adapter, found.notes, found.version) == ("pyslurm 26.5.0", (), "26.05.5")
    jobs = {job.ref: job for job in found.jobs}
    assert sorted(jobs) == ["17", "18_0", "18_1", "18_2", "18_3", "18_7"]
    job = jobs["17"]
    assert (job.gpus, job.gpus_requested, job.gpus_per_node) == ({"n1": 3}, 2, 2)
    assert (job.started, job.ends, job.time_limit, job.user, job.uid) == (1001.0, 1601.0, 600.0, "games", 5)
    assert {jobs[f"18_{k}"].held for k in (1, 2, 3, 7)} == {Held.USER}
    assert jobs["18_0"].name == "?", "a name that is no UTF-8 does not stop the reading"
    (node,) = found.nodes
    assert (node.used, node.types, node.up) == (3, ("h100",) * 8, True)
    assert [p.name for p in found.partitions] == ["batch"]
    assert any("show node" in line for line in asked(tmp_path))
    assert slurm.read() == found
    assert asked(tmp_path) == [], "nothing changed, so no command is run"


def test_many_jobs_are_read_by_squeue(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And by pyslurm again when there are few (the stand-in for squeue knows of none)."""
    monkeypatch.setattr(pyslurm_adapter, "SMALL", 2)
    slurm = make()
    assert len(slurm.read().jobs) == 6
    asked(tmp_path)
    assert slurm.read().jobs == ()
    assert any(line.startswith("squeue") for line in asked(tmp_path))
    assert len(slurm.read().jobs) == 6


@pytest.mark.parametrize(
    ("mood_is", "kind", "words"),
    [
        ("crash", SlurmUnknown, "signal 11"),
        ("exit", SlurmUnknown, "code 1: fatal: Unable to process"),
        ("garbage", SlurmUnknown, "no answer"),
        ("hang", SlurmUnknown, "did not answer in 1 s"),
        ("munge", SlurmUnreachable, "Munge encode|authentication"),
        ("lost", SlurmUnknown, "receive failure"),
        ("connect", SlurmUnreachable, "connect failure"),
    ],
)
def test_a_change_that_goes_wrong(make: Make, mood: Path, mood_is: str, kind: type[Exception], words: str) -> None:
    slurm = make(timeout=1.0)
    slurm.hold(["17"])
    mood.write_text(mood_is)
    with pytest.raises(kind, match=words):
        slurm.requeue(["17"], hold=True)
    mood.unlink(missing_ok=True)
    slurm.hold(["17"])  # a new process, or the old one: it goes on


def test_a_reading_that_goes_wrong(make: Make, mood: Path) -> None:
    slurm = make(timeout=1.0)
    assert [p.name for p in slurm.read().partitions] == ["batch"]
    for trouble in ("crash", "exit"):
        mood.write_text(trouble)
        assert slurm.reservations() == ()  # read by the commands
        assert not mood.exists()
    assert slurm.read().adapter == "pyslurm 26.5.0"
    mood.write_text("hang")
    with pytest.raises(SlurmUnreachable, match="did not answer"):
        slurm.read()
    mood.unlink()
    assert slurm.read().adapter == "pyslurm 26.5.0"


def test_lost_again_and_again_it_rests(make: Make, mood: Path, tmp_path: Path) -> None:
    clock = Steps()
    slurm = make(clock=clock)
    for _ in range(3):
        mood.write_text("crash")
        slurm.reservations()
    found = slurm.read()
    assert [p.name for p in found.partitions] == ["by-command"]
    (note,) = found.notes
    assert "lost 3 times" in note
    assert "signal 11" in note
    assert slurm.keeper.link.pid is None
    slurm.cancel(["17"])
    assert any(line.startswith("scancel") for line in asked(tmp_path))
    clock.ahead = 700.0
    assert slurm.read().notes == ()
    assert slurm.keeper.link.pid is not None


def test_killed_while_nobody_looks(make: Make) -> None:
    slurm = make()
    slurm.read()
    assert slurm.keeper.link.pid is not None
    os.kill(slurm.keeper.link.pid, signal.SIGKILL)
    assert slurm.keeper.link._process is not None
    assert slurm.keeper.link._process.wait(5) == -9
    slurm.hold(["17"])  # nothing had been sent: a new process does it
    assert slurm.keeper.link.pid is not None


def test_it_prints_more_than_a_pipe_holds(make: Make, mood: Path) -> None:
    slurm = make(timeout=5.0)
    for _ in range(3):
        mood.write_text("chatty")
        assert slurm.reservations() == ()
    assert slurm.read().adapter.startswith("pyslurm")


def test_it_ends_with_colocd(make: Make) -> None:
    """Also when colocd is killed: the helper sees the end of its input."""
    slurm = make()
    slurm.read()
    process = slurm.keeper.link._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(5) == 0


def test_several_jobs_one_refused(make: Make) -> None:
    slurm = make()
    with pytest.raises(SlurmRefused, match="Invalid job id"):
        slurm.release(["17", "101", "18"])
    with pytest.raises(SlurmRefused, match="no job id"):
        slurm.release(["17; rm"])
    slurm.release([])


def test_what_pyslurm_cannot_say_goes_to_the_commands(make: Make, tmp_path: Path) -> None:
    slurm = make()
    slurm.hold(["17", "18_3"])
    slurm.update("17", JobUpdate(reservation=""))
    slurm.update("17", JobUpdate(nice=100))
    job = Submission(name="x", script="#!/bin/sh\n", partition="batch")
    assert slurm.submit(msgspec.structs.replace(job, options=("--mem=1G",))) == "77"
    seen = asked(tmp_path)
    for words in ("scontrol hold 17,18_3", "ReservationName=", "Nice=100", "sbatch"):
        assert any(words in line for line in seen), words
    assert slurm.submit(job) == "42"
    slurm.update("17", JobUpdate(comment="x", start_now=True))
    slurm.cancel(["17"])
    assert asked(tmp_path) == []


def test_which_one_is_taken(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make("25.11.2")
    found = other.read()
    assert found.adapter == "client commands (pyslurm 25.11.2 is not for Slurm 26.05.5)"
    assert found.notes == ()
    assert other.keeper.link.pid is None
    with pytest.raises(SlurmUnreachable, match="is not for Slurm") as caught:
        make("25.11.2", adapter="pyslurm").read()
    assert "matches your Slurm" in caught.value.hint
    assert make("25.11.2+slurm26.5", adapter="pyslurm").read().adapter == "pyslurm 25.11.2+slurm26.5"
    assert "cannot be imported: libslurmfull" in make("broken").read().adapter
    monkeypatch.delenv("PYTHONPATH")
    clock = VirtualClock(0.0)
    assert type(open_slurm(SlurmConfig(), clock)) is CliSlurm
    assert type(open_slurm(SlurmConfig(adapter="cli", pyslurm_python="/x"), clock)) is CliSlurm


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    link = Link(str(tmp_path / "none"), {}, SystemClock())
    with pytest.raises(Lost, match="cannot be started") as caught:
        link.call({"call": "hello"}, 5.0)
    assert not caught.value.sent
    assert link.pid is None
