"""What goes to pyslurm and what comes from it: pure parts of the adapter."""

import msgspec
import pytest

from colocd.core.view import Held, JobState
from colocd.errors import SlurmRefused
from colocd.slurm import raw
from colocd.slurm.describe import changes, describe
from colocd.slurm.keeper import built_for
from colocd.slurm.port import JobUpdate, Submission


@pytest.mark.parametrize(
    ("version", "release"), [("25.11.2", (25, 11)), ("25.11.2+slurm26.5", (26, 5)), ("24.11.0", (24, 11)), ("x", None)]
)
def test_built_for(version: str, release: tuple[int, int] | None) -> None:
    assert built_for(version) == release


@pytest.mark.parametrize(
    ("text", "tasks"), [("1-3,7%2", (1, 2, 3, 7)), ("0", (0,)), ("0-10:5", (0, 5, 10)), ("...", ()), ("1-99999999", ())]
)
def test_tasks(text: str, tasks: tuple[int, ...]) -> None:
    assert raw.tasks_in(text) == tasks


def test_submissions() -> None:
    job = Submission(name="x", script="#!/bin/sh\n#SBATCH --uid=0\n", partition="batch", gpus=2, gpu_type="h100")
    told = describe(
        msgspec.structs.replace(job, nodes=("n1", "n2"), time_limit=61.0, held=True, environment={"A": "b=c"})
    )
    assert told is not None
    words, environment = told
    assert words["gres_per_node"] == {"gpu:h100": 2}
    assert (words["nodes"], words["ntasks"], words["time_limit"], words["priority"]) == (2, 2, 2, 0)
    assert "##SBATCH --uid=0" in words["script"]
    assert environment["A"] == "b=c"
    assert describe(msgspec.structs.replace(job, options=("--mem=1",))) is None
    for bad in (
        {"name": "x\0y"},
        {"script": "true"},
        {"partition": "a b"},
        {"user": "no-such-user"},
        {"nodes": ("a;b",)},
    ):
        with pytest.raises(SlurmRefused):
            describe(msgspec.structs.replace(job, **bad))
    assert changes(JobUpdate(comment="x", requeue=False, nodes=("n1",))) == {
        "comment": "x",
        "is_requeueable": False,
        "required_nodes": ["n1"],
    }
    assert changes(JobUpdate(nodes=())) is None
    assert changes(JobUpdate()) == {}


def test_states() -> None:
    fields = [1, None, None, None, "a", "u", 0, "PENDING", "None", "p", 0, 5, None, None, 525600, 2, 1, 1]
    (row,) = raw.rows_of(
        msgspec.convert([*fields, *[None] * 6, True, 0, "singleton(unfulfilled)"], raw.RawJob), raw.Request(0, 0)
    )
    assert (row.job.state, row.job.held, row.job.time_limit, row.job.ref) == (JobState.PENDING, Held.ADMIN, None, "1")
    assert row.job.dependency == "singleton(unfulfilled)"
