"""Waiting jobs that are larger than a node: on as many nodes as they take; and those that can never start say so."""

import msgspec
from tests.helpers.views import batch, view

from colocd.core.actions import Release
from colocd.core.outlook import windows
from colocd.core.plan import plan
from colocd.core.room import Room, spread
from colocd.core.view import Job, JobState, View


def site(*jobs: Job, nodes: int = 2) -> View:
    v = view(*jobs, nodes=nodes)
    some = tuple(msgspec.structs.replace(n, cpus=32, cpus_used=0) for n in v.nodes)
    return msgspec.structs.replace(v, nodes=some, jobs=spread(v.jobs, some))


def test_gpus_without_a_number_of_nodes_go_to_as_many_nodes_as_they_take() -> None:
    """`--gpus=10` on nodes of 8: Slurm would take two, so does coloc."""
    v = site(batch(1, gpus_requested=10, gpus_per_node=10))
    assert v.jobs == site(batch(1, gpus_requested=10)).jobs
    assert (v.jobs[0].nodes_requested, v.jobs[0].gpus_requested) == (2, 10)
    (start,) = (a for a in plan(v).actions if isinstance(a, Release))
    assert set(start.nodes) == {"n1", "n2"}
    by_cpus = site(batch(1, gpus_requested=1, gpus_per_node=1, cpus_requested=48)).jobs[0]
    assert (by_cpus.nodes_requested, by_cpus.gpus_requested) == (2, 2)


def test_what_fits_or_runs_or_is_not_ours_stays_as_slurm_tells_it() -> None:
    jobs = (
        batch(1, gpus_requested=8),
        batch(2, {"n1": 0xFF}, gpus_requested=64),
        batch(3, gpus_requested=10, checkpoint=None),
        batch(4, gpus_requested=6, nodes_requested=2),
        batch(5, state=JobState.DONE, gpus_requested=100),
        batch(6, gpus_requested=10, partition="nowhere"),
    )
    assert all(old is new for old, new in zip(jobs, spread(jobs, site().nodes), strict=True))


def test_a_job_that_can_never_start_says_so_and_is_not_foreseen() -> None:
    for job, words in (
        (batch(1, gpus_requested=99, gpus_per_node=99), "have 8 GPUs at most"),
        (batch(1, gpus_requested=100), "have 8 GPUs at most"),
        (
            batch(1, gpus_requested=3, gpus_per_node=1, nodes_requested=3),
            "only 2 nodes of partition batch are that large",
        ),
        (batch(1, gpus_requested=1, gpus_per_node=1, cpus_requested=1000), "has that many of both"),
    ):
        v = site(job)
        told = {n.subject: n.text for n in plan(v).notes}["job:1"]
        assert told.startswith("can never start as it was submitted")
        assert words in told
        assert windows(v) == {}
    unknown = site(batch(1, cpus_requested=1000))
    blind = msgspec.structs.replace(unknown, nodes=tuple(msgspec.structs.replace(n, cpus=None) for n in unknown.nodes))
    assert Room(blind.nodes).never(blind.jobs[0]) is None
    drained = msgspec.structs.replace(unknown.nodes[0], up=False)
    assert Room([drained]).never(batch(1, gpus_requested=8)) is None, "what is down may come back"
