"""kill -9 of colocd over two nodes on a live Slurm: a replica on both, and a prefill and decode pair; victims on both.

One point by default; all calls to Slurm and all writes to the store with `make test-crash`.
"""

from collections.abc import Iterator

import pytest
from tests.helpers.live_crash import PairScene, Point, Scene, WideScene, lanes, names, walk_until_struck

from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]
CALLS = ("reserve", "signal", "requeue", "submit", "update", "cancel", "unreserve")


def test_a_pair_whose_victims_were_requeued_a_moment_ago() -> None:
    with lanes(1, nodes=2) as (cluster,):
        scene = PairScene(cluster)
        scene.live_through(Point("slurm", "after", 3))
        # The requeue, unless the machine is so slow that the signal was repeated.
        assert scene.struck in ("requeue", "signal")


@pytest.fixture(scope="module")
def clusters() -> Iterator[list[PrivateCluster]]:
    with lanes(3, nodes=2) as up:
        yield up


@pytest.mark.matrix
@pytest.mark.parametrize("scene", [WideScene, PairScene])
@pytest.mark.parametrize("kind", ["slurm", "store"])
def test_after_every_point(clusters: list[PrivateCluster], scene: type[Scene], kind: str) -> None:
    """After every call, and after every write: a call has one before and after it, so that is every interval there is."""
    passed = names(clusters, kind, scene)
    if kind == "slurm":
        del passed[0]  # the handover itself
    points = [Point(kind, "after", k + 1) for k in range(len(passed))]
    wanted = set(CALLS if kind == "slurm" else passed)
    walk_until_struck(clusters, points, {(name, "after") for name in wanted}, scene)
