"""Changing a live Slurm: submissions, holds, requeues, signals, fences, also for other users' jobs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from colocd.core.view import Held, JobState
from colocd.errors import SlurmRefused
from colocd.slurm.port import JobUpdate

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Live

pytestmark = pytest.mark.slurm

TRAPS = """#!/bin/bash
trap 'echo batch >> "$OUT"' USR1
inner='trap "echo $0 >> \\"$OUT\\"" USR1; echo up >> "$OUT"; while :; do sleep 0.1; done'
srun --overlap bash -c "$inner" step &
bash -c "$inner" child &
while :; do wait; done
"""


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def test_the_environment_is_what_was_asked_for(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLOC_SECRET", "s3cret")
    out = live.cluster.work / "environment"
    wanted = {"A": "1,2", "B": "x\ny 'q\" $(id)", "SBATCH_PARTITION": "batch", "LD_PRELOAD": ""}
    ref = live.submit(script=f"#!/bin/sh\nenv -0 > {out}\n", partition="online", environment=wanted)
    live.reach(JobState.DONE, [ref])
    got = dict(item.split("=", 1) for item in out.read_text().split("\0") if item)
    assert {key: got[key] for key in wanted} == wanted
    assert got["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    assert not {"COLOC_SECRET", "TZ", "LC_ALL", "SLURM_TIME_FORMAT"} & got.keys()
    assert live.job(ref).partition == "online"


@pytest.mark.root
def test_as_another_user_without_any_capability(live: Live) -> None:
    """The systemd unit takes every capability away; submitting as others must still work, with their group."""
    if os.getuid() != 0:
        pytest.fail("submitting as another user needs root")
    out = live.cluster.work / "who"
    ref = live.submit(
        user="daemon",
        workdir=str(live.cluster.work),
        script=f"#!/bin/sh\nid -un > {out}; id -Gn >> {out}; pwd >> {out}\n",
    )
    done = live.reach(JobState.DONE, [ref])[ref]
    assert (done.user, done.uid) == ("daemon", 1)
    assert lines(out) == ["daemon", "daemon", str(live.cluster.work.resolve())]
    if live.cluster.spec.root is None:  # without capabilities nobody enters another root
        drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
        submit = ("sbatch", "--parsable", "--uid=daemon", "--gid=daemon", "--hold", "-D/")
        again = live.cluster.run(*drop, *submit, text="#!/bin/sh\ntrue\n")
        assert live.job(again.stdout.strip()).user == "daemon"


@pytest.mark.root
def test_a_submission_with_everything(live: Live) -> None:
    live.slurm.reserve("coloc-x", ["n2"], ["root"], 5)
    ref = live.submit(
        gpus=2,
        gpu_type="h100",
        nodes=("n2",),
        reservation="coloc-x",
        comment="c",
        time_limit=90.0,
        cpus=2,
        requeue=True,
    )
    job = live.reach(JobState.RUNNING, [ref])[ref]
    assert (job.required_nodes, job.reservation, job.comment, job.time_limit, job.cpus_requested) == (
        ("n2",),
        "coloc-x",
        "c",
        120.0,
        2,
    )
    assert [mask.bit_count() for mask in (job.gpus or {}).values()] == [2]
    with pytest.raises(SlurmRefused, match="in use"):
        live.slurm.unreserve("coloc-x")
    live.slurm.update(ref, JobUpdate(reservation=""))
    assert live.job(ref).reservation is None
    live.slurm.unreserve("coloc-x")
    live.slurm.unreserve("coloc-x")
    assert live.slurm.reservations() == ()
    assert live.job(ref).state is JobState.RUNNING


@pytest.mark.parametrize("fields", [{"partition": "nope"}, {"gpus": 99}, {"nodes": ("n77",)}, {"reservation": "nix"}])
def test_refused_submissions(live: Live, fields: dict[str, object]) -> None:
    with pytest.raises(SlurmRefused):
        live.submit(**fields)  # type: ignore[arg-type]
    assert not [job for job in live.slurm.read().jobs if job.state is JobState.PENDING]


def test_the_fence_keeps_running_jobs_and_refuses_a_second(live: Live) -> None:
    ref = live.start("--gres=gpu:1", "-w", "n1")
    live.reach(JobState.RUNNING, [ref])
    live.slurm.reserve("coloc-a", ["n1"], ["root"], 1)
    with pytest.raises(SlurmRefused):
        live.slurm.reserve("coloc-b", ["n1"], ["root"], 1)
    with pytest.raises(SlurmRefused):
        live.slurm.reserve("coloc-c", ["n77"], ["root"], 1)
    with pytest.raises(SlurmRefused):
        live.slurm.reserve("coloc-d", ["n2"], ["no-such-user"], 1)
    assert live.job(ref).state is JobState.RUNNING


@pytest.mark.parametrize(
    ("to", "hears"), [("batch", {"batch"}), ("steps", {"step"}), ("all", {"batch", "step", "child"})]
)
def test_signals(live: Live, to: str, hears: set[str]) -> None:
    out = live.cluster.work / f"heard-{to}"
    out.unlink(missing_ok=True)
    ref = live.submit(script=TRAPS, environment={"OUT": str(out)})
    waiting = live.submit(held=True)
    live.until(lambda: lines(out).count("up") == 2, "start of the job's processes")
    live.slurm.signal([ref, waiting], "USR1", to)
    live.until(lambda: hears <= set(lines(out)), f"signal to {to}")
    live.clock.sleep(0.5)
    assert set(lines(out)) - {"up"} == hears
    assert live.job(ref).state is JobState.RUNNING
    with pytest.raises(SlurmRefused):
        live.slurm.signal([ref], "NOPE", to)
    with pytest.raises(SlurmRefused):
        live.slurm.signal([ref], "USR1", "nobody")


def test_requeue_and_hold_then_release(live: Live) -> None:
    refs = [live.submit(gpus=1, requeue=True, nodes=("n1",)) for _ in range(2)]
    live.reach(JobState.RUNNING, refs)
    live.slurm.requeue(refs, hold=True)
    jobs = live.reach(JobState.PENDING, refs)
    assert [(jobs[ref].held, jobs[ref].restarts, jobs[ref].gpus) for ref in refs] == [(Held.ADMIN, 1, {})] * 2
    live.clock.sleep(2.0)  # Slurm fails a job that starts in the second of its requeue ("job credential revoked")
    live.slurm.release(refs)
    assert [live.job(ref).held for ref in refs] == [Held.NO] * 2
    for ref in refs:
        live.slurm.update(ref, JobUpdate(start_now=True))
    live.reach(JobState.RUNNING, refs)


def test_one_refusal_does_not_stop_the_others(live: Live) -> None:
    good, bad = live.submit(gpus=1, requeue=True), live.submit(gpus=1, requeue=False)
    live.reach(JobState.RUNNING, [good, bad])
    with pytest.raises(SlurmRefused, match=bad):
        live.slurm.requeue([bad, good], hold=True)
    live.reach(JobState.PENDING, [good])
    assert live.job(bad).state is JobState.RUNNING
    live.slurm.update(bad, JobUpdate(requeue=True))
    live.slurm.requeue([bad], hold=False)
    live.until(lambda: live.job(bad).restarts == 1, "requeue")


@pytest.mark.parametrize("by", [Held.USER, Held.ADMIN])
def test_a_new_nice_value_leaves_a_held_job_held(live: Live, by: Held) -> None:
    """Slurm 22.05 forgets a hold when the nice value changes."""
    ref = live.submit(held=by is Held.USER, options=("--begin=now+1hour",))
    if by is Held.ADMIN:
        live.slurm.hold([ref])
    live.slurm.update(ref, JobUpdate(nice=50))
    assert live.job(ref).held is by
    assert live.cluster.run("squeue", "-h", "-j", ref, "-O", "nice:0").stdout.strip() == "50"


def test_node_lists_of_waiting_jobs(live: Live) -> None:
    ref = live.submit(held=True)
    live.slurm.update(ref, JobUpdate(nodes=("n3",), nice=3, requeue=True))
    assert live.job(ref).required_nodes == ("n3",)
    live.slurm.update(ref, JobUpdate(nodes=()))
    assert live.job(ref).required_nodes == ()
    live.slurm.update(ref, JobUpdate())


def test_jobs_that_have_gone(live: Live) -> None:
    ended = live.start(script="#!/bin/sh\ntrue\n")
    live.reach(JobState.DONE, [ended])
    live.slurm.cancel([ended, "4000000"])
    live.slurm.cancel([])
    for call in (live.slurm.hold, live.slurm.release):
        with pytest.raises(SlurmRefused):
            call(["4000000"])
    with pytest.raises(SlurmRefused):
        live.slurm.update("4000000", JobUpdate(nice=1))
    for ref in ("", "1 2", "1,2", "-f", "all", "1_", "٣"):
        with pytest.raises(SlurmRefused):
            live.slurm.cancel([ref])


def test_an_unknown_submission_is_found_also_when_it_has_ended(live: Live) -> None:
    token = f"[coloc-own key={os.urandom(8).hex()}]"
    assert live.slurm.find(token) == ()
    ref = live.submit(comment=token, script="#!/bin/sh\ntrue\n")
    assert [job.ref for job in live.slurm.find(token)] == [ref]
    live.reach(JobState.DONE, [ref])
    assert [(job.ref, job.state) for job in live.slurm.find(token)] == [(ref, JobState.DONE)]
