"""A small live site that is full: two nodes, one replica of 4 GPUs, three batch jobs of 4. One more replica needs a victim."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.live import LiveSite
from tests.helpers.release import slurm_root

from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

NAMES = ("train-0", "train-1", "train-2")


@contextmanager
def small_cluster() -> Iterator[PrivateCluster]:
    """A live Slurm of two nodes."""
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with PrivateCluster(folder, nodes=2, kill_wait=2, root=slurm_root()) as up:
            yield up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(
    site: LiveSite,
    *,
    steps: int = 100_000,
    deaf: bool = False,
    stubborn: bool = False,
    grace: int = 15,
    policy: Mapping[str, object] | None = None,
) -> list[str]:
    """Fill the site; returns the batch jobs."""
    site.settings["policy"] |= dict(policy or {})
    site.write_config("act")
    site.load(5)
    site.begin()
    site.until(lambda: site.ready() == 1, "the first replica")
    refs = [site.submit(name, 4, steps, deaf=deaf, stubborn=stubborn, grace=grace) for name in NAMES]
    site.until(lambda: site.states(refs) == {JobState.RUNNING}, "the start of all batch jobs")
    site.until(lambda: all((site.jobs / name / "journal").exists() for name in NAMES), "their first steps")
    return refs


def released(site: LiveSite) -> int:
    """Handovers that ended well."""
    with site.store() as store:
        return sum(h.state == "released" for h in store.handovers())
