"""End-to-end tests: a real colocd process on a live throw-away Slurm."""

from collections.abc import Iterator

import pytest
from tests.helpers.live import LiveSite

from colocd.testcluster import PrivateCluster


@pytest.fixture
def site(clean_cluster: PrivateCluster) -> Iterator[LiveSite]:
    """A site in act mode on the shared cluster; colocd is not started yet."""
    with LiveSite(clean_cluster) as site:
        yield site
