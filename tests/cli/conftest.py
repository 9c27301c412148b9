import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import pytest
from tests.api.fake_backend import AT, FakeBackend
from tests.cli.stub_sbatch import sbatch, script

__all__ = ["sbatch", "script"]

from coloc_cli.app import App
from coloc_cli.main import run
from colocd.api.server import ApiServer
from colocd.config import ApiConfig
from colocd.testcluster import PrivateCluster


class FixedClock:
    """Stands still; sleeping is written down."""

    def __init__(self, now: float = AT) -> None:
        self.time = now
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: Event, seconds: float) -> bool:
        return event.is_set()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Coloc = Callable[..., Said]


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    fake = FakeBackend()
    yield fake
    fake.gate.set()


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "colocd.toml"
    file.write_text(f'[api]\nsocket = "{tmp_path}/c.sock"\nadmin_socket = "{tmp_path}/a.sock"\n')
    return file


@pytest.fixture
def daemon(backend: FakeBackend, tmp_path: Path) -> Iterator[ApiServer]:
    server = ApiServer(backend, ApiConfig(socket=str(tmp_path / "c.sock"), admin_socket=str(tmp_path / "a.sock")))
    server.start()
    yield server
    backend.gate.set()
    server.stop()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def coloc(config_file: Path, clock: FixedClock, capfd: pytest.CaptureFixture[str]) -> Coloc:
    """Runs one command line in this process."""

    def call(*argv: str, **environ: str) -> Said:
        capfd.readouterr()
        code = run(argv, App(clock, {"COLOC_CONFIG": str(config_file), **environ}))
        said = capfd.readouterr()
        return Said(code, said.out, said.err)

    return call


def python_path() -> dict[str, str]:
    """The environment of a fresh interpreter that finds the same packages as this one."""
    return {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "LC_ALL": "C.UTF-8"}


@pytest.fixture
def fresh() -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Runs `python -m MODULE …` in an interpreter of its own."""

    def call(module: str, *argv: str, stdin: bytes = b"", cwd: Path | None = None, **environ: str) -> Any:
        return subprocess.run(
            [sys.executable, "-m", module, *argv],
            input=stdin,
            capture_output=True,
            env={"PATH": os.environ["PATH"], **python_path(), **environ},
            cwd=cwd,
            timeout=60,
            check=False,
        )

    return call


Submit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def submit(clean_cluster: PrivateCluster) -> Submit:
    """`coloc-sbatch` on the cluster, in its work folder."""

    def call(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        env = {**clean_cluster.environment, **python_path(), "COLOC_CONFIG": "/nowhere"}
        return subprocess.run(
            [sys.executable, "-m", "coloc_cli.sbatch_main", *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=env,
            cwd=clean_cluster.work,
            timeout=60,
            check=False,
        )

    return call


def job_id(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"Submitted batch job (\d+)\n", done.stdout)
    assert found, done.stdout
    return found.group(1)


def facts(cluster: PrivateCluster, ref: str) -> dict[str, str]:
    text = cluster.run("scontrol", "-o", "show", "job", ref).stdout
    return dict(word.split("=", 1) for word in text.split() if "=" in word)
