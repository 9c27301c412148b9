"""kill -9 of colocd around every changing call to Slurm and every write to the store, on a live Slurm.

By default every call to Slurm and a sample of the writes; all writes with `make test-crash`.
"""

from collections.abc import Iterator

import pytest
from tests.helpers.live_crash import Point, Scene, lanes, walk

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


def names(clusters: list[PrivateCluster], kind: str) -> list[str]:
    """The points of an undisturbed handover."""
    return [line.split()[1] for line in Scene(clusters[0]).live_through(Point(kind, "before", 0))]


def told(failed: dict[Point, str]) -> str:
    return "\n\n".join(f"{point}: {why}" for point, why in failed.items())


def walk_until_struck(clusters: list[PrivateCluster], points: list[Point], wanted: set[tuple[str, str]]) -> None:
    """Walk the points; then, for kinds of call that no run was killed at, those around where they came in another run.

    How many plugs a handover needs depends on Slurm's speed, so the n-th call is not the same in every run.
    """
    walked = walk(clusters, points)
    assert not walked.failed, told(walked.failed)
    struck = set(walked.struck)
    for _ in range(6):
        missing = wanted - struck
        if not missing:
            break
        kind = points[0].kind
        calls = [name for name in names(clusters, kind) if kind != "slurm" or name != "add_handover"]
        near = {
            (k + 1 + off, when) for name, when in missing for k, c in enumerate(calls) if c == name for off in (0, 1, 2)
        }
        again = walk(clusters, [Point(kind, when, k) for k, when in sorted(near)])
        assert not again.failed, told(again.failed)
        struck |= again.struck
    assert wanted <= struck, f"never struck: {sorted(wanted - struck)}"


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
