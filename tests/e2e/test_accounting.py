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
from demo import files
from tests.helpers.daemon_rig import SERVICE, Endpoint
from tests.helpers.live import LiveSite

from colocd.app import Daemon
from colocd.clock import SystemClock
from colocd.config import Config, DatabaseConfig, SlurmConfig, TopologyConfig, TopologySource
from colocd.core.policy import Policy
from colocd.core.view import Held, JobState
from colocd.errors import SlurmRefused
from colocd.site_check import Weight, examine
from colocd.slurm.cli import CliSlurm
from colocd.slurm.port import JobUpdate, Submission
from colocd.store import open_store
from colocd.store.schema import upgrade
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
        slurm.reserve("coloc-test", ("n1",), [OPERATOR], 10)
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


def test_colocd_runs_as_an_operator(accounted: PrivateCluster, slurm: CliSlurm) -> None:
    """The closed loop of an unprivileged colocd: it fills with another user's job and takes its GPUs back."""
    folder = Path(tempfile.mkdtemp(prefix="coloc-op-"))
    folder.chmod(0o777)
    load = Endpoint()
    mark = "[coloc v=1 signal=USR1 to=batch interval=1 cost=1 grace=20]"
    words = ["--parsable", "--hold", "--requeue", "--gres=gpu:8", "--output=/dev/null", f"--comment={mark}"]
    script = (
        "#!/bin/bash\ntrap 'scontrol update jobid=$SLURM_JOB_ID comment=\""
        + mark[:-1]
        + " yielded=$(date +%s)]\"' USR1\n"
    )
    script += "while :; do sleep 0.2; done\n"
    ref = accounted.run("sbatch", *words, user=OWNER, text=script).stdout.strip()

    def work() -> list[str]:
        clock = SystemClock()
        (folder / "topo.txt").write_text(files.topology_text(accounted.spec.shape))
        config = Config(
            mode="act",
            database=DatabaseConfig(url=f"sqlite:///{folder / 'coloc.db'}"),
            slurm=SlurmConfig(conf=str(accounted.conf), timeout=20.0, calls_per_minute=6000),
            topology=TopologyConfig(sources=(TopologySource(nodes="n1", file=str(folder / "topo.txt")),)),
            policy=Policy(
                protected_runtime=0.0,
                min_useful=1.0,
                retry_after=1.0,
                valley_quantile=0.5,
                peak_quantile=0.5,
                grace=20.0,
            ),
        )
        upgrade(config.database.url)
        store = open_store(config.database.url)
        daemon = Daemon(config, CliSlurm(config.slurm, clock), store, clock)

        def until(done: Callable[[], bool]) -> None:
            end = clock.monotonic() + 60
            while not done():
                assert clock.monotonic() < end, [d.text for d in store.decisions(limit=30)]
                daemon.cycle()
                daemon.step_handovers()
                clock.sleep(0.3)

        def running(name: str) -> bool:
            return any(j.name.startswith(name) and j.state is JobState.RUNNING for j in slurm.read().jobs)

        until(lambda: slurm.jobs([ref])[ref].state is JobState.RUNNING)
        text = SERVICE.format(name="chat", port=load.port).replace('user = "root"', f'user = "{OPERATOR}"')
        daemon.answers.apply_service(text, "chat.toml")
        until(lambda: running("coloc-chat"))
        until(lambda: not store.handovers(only_open=True))
        told = [d.text for d in store.decisions(limit=100) if d.kind == "released"]
        daemon.answers.remove_service("chat")
        until(lambda: not running("coloc-chat"))
        store.close()
        return told

    try:
        load.value = 5.0
        (told, *_) = as_user(OPERATOR, work)
        assert "1 acknowledged" in told
    finally:
        load.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_federation_is_refused(accounted: PrivateCluster, slurm: CliSlurm) -> None:
    accounted.run("sacctmgr", "-i", "add", "federation", "far", "clusters=coloctest")
    try:
        clock = SystemClock()
        end = clock.monotonic() + 30
        while slurm.site().federation is None and clock.monotonic() < end:
            clock.sleep(0.5)
        found = examine(slurm.site(), slurm.read(), Config())
        assert [f.text for f in found if f.weight is Weight.ERROR] == [
            "this cluster is a member of the federation far: its jobs may be revoked and started elsewhere"
        ]
    finally:
        accounted.run("sacctmgr", "-i", "delete", "federation", "far")


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


def test_slurms_shares_are_the_weights(accounted: PrivateCluster, slurm: CliSlurm) -> None:
    accounted.run("sacctmgr", "-i", "modify", "user", OWNER, "account=science", "set", "fairshare=3")
    end = SystemClock().monotonic() + 30
    while True:  # slurmdbd tells slurmctld a little later
        told = slurm.site().shares
        assert told is not None
        if told[OWNER] > told[OPERATOR] * 2:
            break
        assert SystemClock().monotonic() < end, told
        SystemClock().sleep(0.2)
    assert told == pytest.approx({OPERATOR: 0.5, OWNER: 1.5})
