"""kill -9 of colocd around every changing call to Slurm and every write to the store, on a live Slurm.

By default every call to Slurm and a sample of the writes; all writes with `make test-crash`.
"""

from collections.abc import Iterator

import pytest
from tests.helpers.live_crash import Point, lanes, names, walk_until_struck

from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1500)]
LANES = 4
CALLS = ("reserve", "signal", "requeue", "submit", "update", "cancel", "unreserve")
WRITES = ("add_handover", "intend", "settle", "save_handover", "put_jobs", "put_replica", "add_decisions")
SOME_WRITES = (2, 5, 10, 17, 24, 33, 40)
"""Writes of the default run, out of about 46."""


@pytest.fixture(scope="module")
def clusters() -> Iterator[list[PrivateCluster]]:
    with lanes(LANES) as up:
        yield up


def test_around_every_call_to_slurm_and_some_writes(clusters: list[PrivateCluster]) -> None:
    calls = names(clusters, "slurm")
    calls.remove("add_handover")
    points = [Point("slurm", when, k + 1) for k in range(len(calls)) for when in ("before", "after")]
    points += [Point("store", "after", k) for k in SOME_WRITES]
    walk_until_struck(clusters, points, {(name, when) for name in CALLS for when in ("before", "after")})


@pytest.mark.matrix
@pytest.mark.parametrize("when", ["before", "after"])
def test_around_every_write(clusters: list[PrivateCluster], when: str) -> None:
    writes = names(clusters, "store")
    assert len(writes) >= 40
    points = [Point("store", when, k + 1) for k in range(len(writes))]
    walk_until_struck(clusters, points, {(name, when) for name in WRITES})
