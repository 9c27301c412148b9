"""However the demo ends, it leaves no process and no file behind."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from demo import run
from demo.site import Site

from colocd.errors import ColocError

ROOT = Path(__file__).parents[2]
Start = Callable[..., "subprocess.Popen[str]"]
pytestmark = [pytest.mark.slurm, pytest.mark.timeout(180)]


def leftovers(folder: Path) -> list[str]:
    """Command lines of live processes that have to do with the folder: in their words, environment, folder or files."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            words = Path(f"/proc/{entry}/cmdline").read_bytes()
            environ = Path(f"/proc/{entry}/environ").read_bytes()
            where = os.readlink(f"/proc/{entry}/cwd")
        except OSError:
            continue  # it has ended meanwhile, or waits to be reaped
        if os.fsencode(folder) in words + environ or where.startswith(str(folder)):
            found.append(words.replace(b"\0", b" ").decode())
    return found


def files(folder: Path) -> list[Path]:
    """What lies there, but for the folder in which test clusters share out ports."""
    return [path for path in folder.iterdir() if path.name != "coloc-testcluster-ports"]


@pytest.fixture
def tmp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with a short path: Unix sockets lie in it, whose paths have a limit."""
    with tempfile.TemporaryDirectory(prefix="cd-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


@pytest.mark.parametrize(
    "moment", ["is up", "the service is applied", "batch jobs of"], ids=["slurm", "colocd", "jobs"]
)
def test_interrupted(tmp: Path, moment: str) -> None:
    """Ctrl-C at three moments: Slurm alone, with colocd, with jobs."""
    env = {**os.environ, "TMPDIR": str(tmp), "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-m", "demo.run", "--report", str(tmp / "report.json")]
    with subprocess.Popen(
        argv, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as demo:
        assert demo.stdout is not None
        said = []
        try:
            for line in demo.stdout:
                said.append(line)
                if moment in line:
                    break
            assert demo.poll() is None, "".join(said)
            assert said, "it said nothing"
            assert moment in said[-1], "".join(said)
            demo.send_signal(signal.SIGINT)
            said += demo.stdout.readlines()
            assert demo.wait(timeout=60) == 130, "".join(said)
        finally:
            if demo.poll() is None:
                demo.terminate()
    assert leftovers(tmp) == []
    assert files(tmp) == []


def test_an_error_leaves_nothing(
    tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm is up, then a command fails: one sentence, its exit code, everything gone."""
    seen: list[list[str]] = []

    def refuse(site: Site, argv: Any) -> str:
        seen.append(leftovers(site.base))
        raise ColocError("the database is on fire")

    monkeypatch.setattr(Site, "command", refuse)
    assert run.main(["--report", str(tmp / "report.json")]) == ColocError.exit_code
    assert "the database is on fire" in capsys.readouterr().err
    assert any("slurmctld" in line for line in seen[0]), "the test would not see what is left over"
    assert leftovers(tmp) == []
    assert files(tmp) == []
