"""Fixtures shared by all tests that need a live Slurm: one cluster for the whole run, clean for every test."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from tests.helpers.release import slurm_root

from colocd.clock import SystemClock
from colocd.config import SlurmConfig
from colocd.core.view import Job, JobState
from colocd.slurm.cli import CliSlurm
from colocd.slurm.port import Submission
from colocd.testcluster import PrivateCluster

settings.register_profile("coloc", deadline=None)  # nothing may fail because a machine is slow
settings.load_profile("coloc")

ASKED_FOR = {
    "matrix": ("COLOC_TEST_MATRIX", "make test-crash"),
    "releases": ("COLOC_TEST_RELEASES", "make test-slurm"),
    "presets": ("COLOC_TEST_PRESETS", "make test-presets"),
    "routers": ("COLOC_TEST_ROUTERS", "make test-routers"),
    "evictions": ("COLOC_TEST_EVICTIONS", "make test-evictions"),
}
"""Marks of tests that are left out unless this variable is 1: with what runs them."""
FOREVER = "#!/bin/bash\nwhile :; do sleep 0.2; done\n"

# How long an example takes is the machine's matter: no test is timed.
settings.register_profile("coloc", deadline=None)
settings.load_profile("coloc")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests of `ASKED_FOR` out unless they are asked for, and skip what only root can do for anybody else."""
    if os.getuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip("only root can submit jobs as several users"))
    marks = [mark for mark, (variable, _) in ASKED_FOR.items() if os.environ.get(variable) != "1"]
    if marks:
        left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in marks)]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out: nothing is skipped silently."""
    for mark, (variable, target) in ASKED_FOR.items():
        if os.environ.get(variable) != "1":
            terminalreporter.write_line(f"tests marked `{mark}` were left out: `{target}` ({variable}=1) runs them")
    if os.getuid() != 0:
        terminalreporter.write_line("tests marked `root` were skipped: `make test` as root runs them, too")


@pytest.fixture(scope="session")
def cluster() -> Iterator[PrivateCluster]:
    """A live Slurm: 4 nodes of 8 GPUs in two quads, partitions `batch` and `online`. Fails where Slurm is not installed.

    COLOC_TEST_SLURM_ROOT names a folder with a whole other system (debootstrap) whose Slurm is to be tested; needs root.
    """
    root = slurm_root()
    places = "/usr/sbin:/usr/local/sbin:/usr/bin"
    missing = [name for name in ("munged", "slurmctld", "slurmd") if shutil.which(name, path=places) is None]
    if missing and root is None:
        pytest.fail(f"{', '.join(missing)} missing: install the packages slurm-wlm and munge (`make test` does)")
    # Not below tmp_path: pytest closes that to other users, and jobs of other users need the cluster's files.
    directory = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    with PrivateCluster(directory, root=root) as up:
        yield up


@pytest.fixture
def clean_cluster(cluster: PrivateCluster) -> Iterator[PrivateCluster]:
    """The same cluster without jobs, reservations and down nodes, before and after."""
    cluster.clean()
    yield cluster
    cluster.clean()


class Live:
    """A live cluster with the adapter under test, and the waiting that tests of it need."""

    def __init__(self, cluster: PrivateCluster, timeout: float = 20.0) -> None:
        self.cluster = cluster
        self.clock = SystemClock()
        self.slurm = CliSlurm(SlurmConfig(conf=str(cluster.conf), bin_dir=cluster.bin_dir, timeout=timeout), self.clock)

    def start(self, *options: str, script: str = FOREVER, user: str | None = None) -> str:
        """Submit with plain sbatch, as a user of the cluster would."""
        log = f"--output={self.cluster.work}/%A_%a.out"
        return self.cluster.run("sbatch", "--parsable", log, *options, text=script, user=user).stdout.strip()

    def submit(self, name: str = "t", script: str = FOREVER, partition: str = "batch", **rest: object) -> str:
        """Submit with the adapter."""
        return self.slurm.submit(Submission(name=name, script=script, partition=partition, **rest))  # type: ignore[arg-type]

    def job(self, ref: str) -> Job:
        """The job as `jobs` tells it."""
        return self.slurm.jobs([ref])[ref]

    def until(self, done: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        """Wait for something; fail when it does not happen."""
        end = self.clock.monotonic() + seconds
        while not done():
            if self.clock.monotonic() > end:
                pytest.fail(f"{what} did not happen in {seconds:.0f} s")
            self.clock.sleep(0.1)

    def reach(self, state: JobState, refs: Sequence[str]) -> dict[str, Job]:
        """Wait until all jobs are in the state, and return them."""
        found: dict[str, Job] = {}

        def there() -> bool:
            found.update(self.slurm.jobs(refs))
            return all(ref in found and found[ref].state is state for ref in refs)

        self.until(there, f"{state} of jobs {' '.join(refs)}")
        return found


@pytest.fixture
def live(clean_cluster: PrivateCluster) -> Live:
    """`Live` on the clean shared cluster."""
    return Live(clean_cluster)


@pytest.fixture
def make_live() -> type[Live]:
    """`Live` for a cluster that a test starts itself."""
    return Live
