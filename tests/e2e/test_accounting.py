"""A site with slurmdbd: an operator's rights, associations and limits, as coloc meets them."""

import multiprocessing
import os
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.live import LiveSite

from colocd.clock import SystemClock
from colocd.config import Config, SlurmConfig
from colocd.core.view import Held, JobState
from colocd.errors import SlurmRefused
from colocd.site_check import examine
from colocd.slurm.cli import CliSlurm
from colocd.slurm.port import JobUpdate, Submission
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.root, pytest.mark.timeout(240)]
OPERATOR, OWNER = "games", "daemon"
SLEEP = "#!/bin/sh\nexec sleep 600\n"


@pytest.fixture(scope="module")
def accounted() -> Iterator[PrivateCluster]:
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with PrivateCluster(folder, nodes=1, kill_wait=2, accounting=True) as up:
            up.run("sacctmgr", "-i", "add", "account", "science")
            up.run("sacctmgr", "-i", "add", "user", OPERATOR, "account=science", "adminlevel=operator")
            up.run("sacctmgr", "-i", "add", "user", OWNER, "account=science")
            yield up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def as_user(name: str, call: Callable[[], Any]) -> Any:
    """Run `call` in a forked process of that user; raises what it raised."""

    def child(out: Connection) -> None:
        who = pwd.getpwnam(name)
        os.setgroups([])
        os.setgid(who.pw_gid)
        os.setuid(who.pw_uid)
        try:
            out.send((call(), None))
        except BaseException as error:
            out.send((None, repr(error)))

    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    assert ours.poll(60), f"the process of {name} said nothing"
    result, error = ours.recv()
    process.join()
    if error is not None:
        raise AssertionError(error)
    return result


@pytest.fixture
def slurm(accounted: PrivateCluster) -> Iterator[CliSlurm]:
    yield CliSlurm(SlurmConfig(conf=str(accounted.conf), timeout=20.0), SystemClock())
    accounted.clean()


def test_an_operator_may_do_what_coloc_does(accounted: PrivateCluster, slurm: CliSlurm) -> None:
    wait = SystemClock()

    def until(done: Callable[[], bool]) -> None:
        end = wait.monotonic() + 30
        while not done():
            assert wait.monotonic() < end
            wait.sleep(0.2)

    words = ["--parsable", "--gres=gpu:2", "--output=/dev/null", "--wrap=sleep 600", "--requeue"]
    ref = accounted.run("sbatch", *words, user=OWNER).stdout.strip()
    until(lambda: slurm.jobs([ref])[ref].state is JobState.RUNNING)

    def work() -> list[str]:
        site = slurm.site()
        assert (site.user, site.privileged) == (OPERATOR, True)
        slurm.reserve("coloc-test", "n1", [OPERATOR], 10)
        slurm.signal([ref], "CONT", "all")
        slurm.update(ref, JobUpdate(comment="[coloc v=1]"))
        slurm.requeue([ref], hold=True)
        own = slurm.submit(Submission(name="own", script=SLEEP, partition="online", gpus=1, reservation="coloc-test"))
        until(lambda: slurm.jobs([own])[own].state is JobState.RUNNING)
        slurm.update(own, JobUpdate(reservation=""))
        slurm.cancel([own])
        until(lambda: slurm.jobs([own])[own].state is JobState.FAILED)
        slurm.unreserve("coloc-test")
        slurm.release([ref])
        slurm.update(ref, JobUpdate(start_now=True))
        try:
            slurm.submit(Submission(name="other", script=SLEEP, partition="online", user=OWNER))
        except SlurmRefused as error:
            return [str(error), *(f.text for f in examine(site, slurm.read(), Config()))]
        raise AssertionError("submitted as somebody else")

    refused, *found = as_user(OPERATOR, work)
    assert "only root may submit jobs as daemon" in refused
    assert found == [
        f"as user {OPERATOR} colocd submits replicas of services of that user only: `sbatch --uid` is root's"
    ]
    job = slurm.jobs([ref])[ref]
    assert (job.restarts, job.held, job.comment) == (1, Held.NO, "[coloc v=1]")


def test_an_ordinary_user_is_told_what_is_missing(accounted: PrivateCluster, slurm: CliSlurm) -> None:
    def work() -> list[str]:
        return [f.text for f in examine(slurm.site(), slurm.read(), Config())]

    (told,) = as_user(OWNER, work)
    assert told == f"user {OWNER} may not hold, requeue or update other people's jobs, nor make reservations"


def test_a_limit_of_the_service_owner_is_told_and_nothing_is_lost(accounted: PrivateCluster, slurm: CliSlurm) -> None:
    limit = ["sacctmgr", "-i", "modify", "user", OWNER, "set"]
    accounted.run(*limit, "MaxSubmitJobs=0")
    with LiveSite(accounted, service={"user": OWNER}) as site:
        site.load(5)
        starts = site.base / "replicas.log"  # replicas of an ordinary user write into it
        starts.touch()
        starts.chmod(0o666)
        site.begin()
        site.until(lambda: site.decisions("rolled-back") or site.decisions("failed"), "the refusal")
        (told, *_) = site.decisions("rolled-back") + site.decisions("failed")
        assert "policy" in told.lower(), told
        assert site.ready() == 0
        accounted.run(*limit, "MaxSubmitJobs=-1")
        site.until(lambda: site.ready() == 1, "the replica, now that it may")
        assert site.leftovers() == []
