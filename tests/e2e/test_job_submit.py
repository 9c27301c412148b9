"""A site whose job_submit plugin rewrites jobs: what still works, and that the rest is said and not repeated without end."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.live import LiveSite

from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
LUA = """
function slurm_job_submit(job_desc, part_list, submit_uid)
  {change}
  return slurm.SUCCESS
end
function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
  return slurm.SUCCESS
end
return slurm.SUCCESS
"""


@contextmanager
def rewriting(change: str) -> Iterator[LiveSite]:
    """One node on which any choice of GPUs may be wrong (so plugs are needed), and a plugin."""
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    files = {"job_submit.lua": LUA.format(change=change)}
    options: dict[str, Any] = {
        "nodes": 1,
        "kill_wait": 2,
        "cores": False,
        "settings": ("JobSubmitPlugins=lua",),
        "files": files,
    }
    try:
        with (
            PrivateCluster(folder, **options) as up,
            LiveSite(up, policy={"retry_after": 600.0, "start_timeout": 60.0}) as site,
        ):
            yield site
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_an_addition_to_the_comment_does_no_harm() -> None:
    with rewriting('job_desc.comment = (job_desc.comment or "") .. " site=1"') as site:
        site.load(5)
        site.begin()
        site.until(lambda: site.ready() == 1, "the replica")
        assert site.leftovers() == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ('job_desc.comment = "ours"', "its comment has lost coloc's mark"),
        (
            'if job_desc.name ~= "coloc-plug" then job_desc.partition = "batch" end',
            "its partition is batch and not online",
        ),
        (
            'if job_desc.name ~= "coloc-plug" then job_desc.tres_per_node = "gres:gpu:1" end',
            "it asks for 1 GPUs and not 4",
        ),
    ],
    ids=["comment", "partition", "GPUs"],
)
def test_a_job_that_is_not_as_asked_is_ended_and_told(change: str, told: str) -> None:
    with rewriting(change) as site:
        site.load(5)
        site.begin()
        site.until(lambda: site.decisions("rolled-back"), "the end of the handover")
        (text,) = site.decisions("rolled-back")
        assert "a job_submit plugin of this site changed job" in text
        assert told in text
        site.until(lambda: site.leftovers() == [], "the end of fence and plugs")
        assert site.running() == ()
        assert site.ready() == 0
