"""The stand-in for libnvidia-ml.so.1, compiled from NVIDIA's header, and `coloc topo dump` on top of it."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import python_path

from coloc_topology.nvml_facts import NvmlFacts, decode_facts

SOURCE = Path(__file__).with_name("standin.c")
Dump = Callable[..., subprocess.CompletedProcess[str]]
Facts = Callable[..., NvmlFacts]


def header_folder() -> str:
    found = [file for file in files("nvidia-nvml-dev") or () if file.name == "nvml.h"]
    assert found, "the package nvidia-nvml-dev has no nvml.h"
    return str(Path(str(found[0].locate())).parent)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a stand-in; the words are left-out functions: NO_FABRIC, NO_LINKS, NO_REMOTE_TYPE."""

    @lru_cache
    def build(*without: str) -> Path:
        folder = tmp_path_factory.mktemp("nvml")
        argv = ["gcc", "-shared", "-fPIC", "-O0", "-w", *(f"-D{name}" for name in without)]
        argv += ["-I", header_folder(), "-o", str(folder / "libnvidia-ml.so.1"), str(SOURCE)]
        subprocess.run(argv, check=True, timeout=60)
        return folder

    return build


@pytest.fixture(scope="session")
def dump(library: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Dump:
    """`coloc topo dump` on a server that a text describes."""

    def call(server: str, *without: str, argv: tuple[str, ...] = ("--host", "gpu1"), **environ: str) -> Any:
        file = tmp_path_factory.mktemp("server") / "server.txt"
        file.write_text(server)
        env = {
            "PATH": os.environ["PATH"],
            **python_path(),
            "LD_LIBRARY_PATH": str(library(*without)),
            "COLOC_NVML_STANDIN": str(file),
            **environ,
        }
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "coloc_cli.main", "topo", "dump", *argv],
            capture_output=True,
            text=True,
            env=env,
            timeout=60,
            check=False,
        )

    return call


@pytest.fixture(scope="session")
def facts(dump: Dump) -> Facts:
    """What `coloc topo dump` prints on a server, read back."""

    @lru_cache
    def read(server: str, *without: str) -> NvmlFacts:
        done = dump(server, *without)
        assert done.returncode == 0, done.stderr
        found = decode_facts(done.stdout)
        assert done.stderr.splitlines() == [f"coloc: {problem}" for problem in found.problems]
        return found

    return read
