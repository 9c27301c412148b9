"""Fixtures shared by all tests that need a live Slurm: one cluster for the whole run, clean for every test."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from colocd.testcluster import PrivateCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[PrivateCluster]:
    """A live Slurm: 4 nodes of 8 GPUs in two quads, partitions `batch` and `online`. Fails where Slurm is not installed."""
    missing = [
        name
        for name in ("munged", "slurmctld", "slurmd")
        if shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin") is None
    ]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: install the packages slurm-wlm and munge (`make test` does)")
    # Not below tmp_path: pytest closes that to other users, and jobs of other users need the cluster's files.
    directory = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    with PrivateCluster(directory) as up:
        yield up


@pytest.fixture
def clean_cluster(cluster: PrivateCluster) -> Iterator[PrivateCluster]:
    """The same cluster without jobs, reservations and down nodes, before and after."""
    cluster.clean()
    yield cluster
    cluster.clean()
