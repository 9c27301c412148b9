"""What the preset tests need: a Python environment with the real libraries, from tools/presets_env.sh."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.live import LiveSite
from tests.helpers.live_small import small_cluster

from colocd.testcluster import PrivateCluster

VENV = Path(os.environ.get("COLOC_PRESETS_VENV") or Path(__file__).parents[2] / ".venv-presets")


@pytest.fixture(scope="session")
def venv() -> Path:
    """The environment; the tests fail where it was not made."""
    assert (VENV / "bin" / "python").exists(), f"{VENV} is missing: `make test-presets` makes it"
    return VENV


def need(venv: Path, *modules: str) -> None:
    """Skip, and say so, where a library could not be installed."""
    missing = [
        m
        for m in modules
        if subprocess.run([venv / "bin" / "python", "-c", f"import {m}"], check=False, capture_output=True).returncode
    ]
    if missing:
        pytest.skip(f"not proven here, the library is missing: {', '.join(missing)}")


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    with small_cluster() as up:
        yield up


@pytest.fixture
def site(cluster: PrivateCluster) -> Iterator[LiveSite]:
    """A site in act mode; its GPUs come and go with the load."""
    cluster.clean()
    with LiveSite(cluster, policy={"grace": 60.0}) as site:
        yield site
    cluster.clean()
