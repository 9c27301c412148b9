"""Presets without a heavy library, proven live: evicted by load, resumed, every step done once. The others: tests/presets."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.live import LiveSite
from tests.helpers.live_presets import Example, evict_and_resume
from tests.helpers.live_small import small_cluster

from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
STEPS = 120


@pytest.fixture(scope="module")
def cluster() -> Iterator[PrivateCluster]:
    with small_cluster() as up:
        yield up


def test_plain_program_and_submitit(site: LiveSite) -> None:
    site.load(5)
    site.begin()
    plain, program = Example(site, "plain.sh", STEPS), Example(site, "program.sh", STEPS)
    submitit = Example(site, "submitit_job.py", STEPS, venv=Path(sys.prefix))
    examples = [plain, program, submitit]
    for example in examples:
        example.submit()
    evict_and_resume(site, examples, valley=5, peak=35)
    for example in examples:
        example.assert_exact()
        assert [job.restarts for job in (example.job,)] == [1], example.log()
    marks = {e.name: e.job.checkpoint for e in examples}
    assert all(mark is not None for mark in marks.values()), marks
    with site.store() as store:
        reclaims = [h for h in store.handovers() if h.victims]
        assert {h.state.value for h in reclaims} == {"released"}
        assert sorted(ref for h in reclaims for ref in h.data["acked"]) == sorted(e.ref for e in examples)
        requeues = [i for h in reclaims for i in store.intents(handover=h.id) if i.kind == "requeue"]
    asked = sorted(ref for i in requeues for ref in i.subject.removeprefix("job:").split(","))
    assert asked == sorted([plain.ref, program.ref])  # submitit requeued itself, and nobody requeued it again
