"""pyslurm on a live Slurm that it matches (`make test-slurm`, COLOC_TEST_ADAPTER=pyslurm): lost, hanging, given odd text."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.slurm.contract.harness import adapter

from colocd.core.view import Job, JobState
from colocd.errors import SlurmUnknown, SlurmUnreachable
from colocd.slurm.port import Cluster, Submission
from colocd.slurm.pyslurm_adapter import PyslurmSlurm

if TYPE_CHECKING:
    from tests.conftest import Live

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.releases,
    pytest.mark.skipif(
        os.environ.get("COLOC_TEST_ADAPTER") != "pyslurm", reason="make test-slurm runs it where pyslurm is"
    ),
]
JOB = Submission(name="t", script="#!/bin/bash\nwhile :; do sleep 0.2; done\n", partition="batch")


@pytest.fixture
def slurm(live: Live) -> Iterator[PyslurmSlurm]:
    """The adapter; whatever the test froze goes on afterwards."""
    found = adapter(live.cluster, live.clock)
    assert isinstance(found, PyslurmSlurm)
    yield found
    found.close()
    live.cluster.resume_controller()


def same(found: Cluster, other: Cluster) -> None:
    """Two readings that tell the same of everything that stands still."""

    def still(job: Job) -> Job:
        # Names of other tests' ended jobs that are no UTF-8: the two replace what cannot be read each in its own way.
        broken = "\ufffd" in job.name or "?" in job.name
        return msgspec.structs.replace(job, reason=None, **({"name": ""} if broken else {}))

    assert {j.ref: still(j) for j in found.jobs} == {j.ref: still(j) for j in other.jobs}
    assert found.nodes == other.nodes
    assert found.partitions == other.partitions
    assert found.reservations == other.reservations
    assert found.version == other.version


def test_it_reads_what_the_commands_read(live: Live, slurm: PyslurmSlurm) -> None:
    running = [live.start("--gres=gpu:h100:2", "-w", "n1"), live.start("--gpus=3", "-w", "n2", "-t", "9")]
    running += [live.start("--gres=gpu:1", "-N2", "-w", "n3,n4"), live.start("-n2", "--gpus-per-task=1", "-w", "n2")]
    live.reach(JobState.RUNNING, running)
    live.start("--array=0-5%2", "--gpus=1", "--hold", "--comment=[coloc v=1 signal=USR1 to=batch interval=300]")
    live.start("--hold", "-J", "None", "--comment=None", "--gpus-per-node=h100:2", "-N2", "-c3", "-w", "n1,n2")
    live.start("--hold", "-J", 'ünï | {"x": 1}\n\'', ":")
    live.slurm.reserve("coloc-x", ["n3"], ["root", "daemon"], 30)
    same(slurm.read(), live.slurm.read())
    same(slurm.read(), live.slurm.read())
    assert slurm.jobs(running) == live.slurm.jobs(running)
    live.slurm.cancel(running[:2])
    live.reach(JobState.FAILED, running[:2])
    same(slurm.read(), live.slurm.read())


def test_killed_between_and_during_calls(live: Live, slurm: PyslurmSlurm) -> None:
    ref = slurm.submit(JOB)
    live.reach(JobState.RUNNING, [ref])
    for _ in range(2):
        pid = slurm.keeper.link.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        live.until(lambda: slurm.keeper.link.pid is None, "the end of the helper")
        assert slurm.jobs([ref])[ref].state is JobState.RUNNING
    assert slurm.keeper.link.pid is not None


def test_a_frozen_controller(live: Live, slurm: PyslurmSlurm) -> None:
    """The call hangs inside the helper, with its GIL; colocd waits no longer than it wants to."""
    token = "[coloc-own key=frozen]"
    ref = slurm.submit(msgspec.structs.replace(JOB, held=True))
    slurm.keeper._timeout = 1.0
    live.cluster.pause_controller()
    began = live.clock.monotonic()
    with pytest.raises(SlurmUnknown, match="did not answer in 1 s"):
        slurm.submit(msgspec.structs.replace(JOB, comment=token, held=True))
    assert live.clock.monotonic() - began < 5.0
    with pytest.raises(SlurmUnreachable):
        slurm.jobs([ref])
    live.cluster.resume_controller()
    live.until(lambda: len(slurm.find(token)) == 1, "the submission")
    assert slurm.read().adapter.startswith("pyslurm")


def test_a_stopped_controller(live: Live, slurm: PyslurmSlurm) -> None:
    slurm.read()
    slurm.keeper._timeout = 30.0
    live.cluster.stop_controller()
    with pytest.raises(SlurmUnreachable, match="connect failure"):
        slurm.submit(JOB)
    live.cluster.start_controller()
    assert not [job for job in slurm.read().jobs if job.state is JobState.PENDING]


def test_a_name_that_is_no_text(live: Live, slurm: PyslurmSlurm) -> None:
    """Any user can name a job in bytes that are no UTF-8: pyslurm raises, the reading goes on."""
    words = "--parsable --hold --output=/dev/null"
    script = f"#!/bin/sh\nexec /usr/bin/sbatch {words} --job-name=\"$(printf 'x\\377')\" {live.cluster.work}/job.sh\n"
    for name, text in (("job.sh", "#!/bin/sh\ntrue\n"), ("odd.sh", script)):
        (live.cluster.work / name).write_text(text)
        (live.cluster.work / name).chmod(0o755)
    root = live.cluster.spec.root
    assert root is not None
    ref = live.cluster.run("chroot", root, str(live.cluster.work / "odd.sh")).stdout.strip()
    assert slurm.jobs([ref])[ref].name == "?"
    assert ref in {job.ref for job in slurm.read().jobs}
