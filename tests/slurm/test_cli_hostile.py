"""What users write into job names, comments and scripts must not pass for something that Slurm says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from colocd.core.view import JobState
from colocd.slurm.port import JobUpdate

if TYPE_CHECKING:
    from tests.conftest import Live

pytestmark = pytest.mark.slurm

NAMES = [
    *(
        "a b",
        "q\"uote'",
        "$(id)",
        "new\nline",
        "--uid=0",
        "x,y;z|<>",
        "(null)",
        "ünï",
        "%s%n",
        "\\n",
        "a" * 500,
        " lead",
        "tab\t",
        "unit\x1fseparator",
        "\nfirst a line end",
    ),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_and_comments_come_back(live: Live, name: str) -> None:
    ref = live.submit(name=name, comment=f"{name}!", held=True)
    job = live.job(ref)
    assert (job.name, job.comment) == (name, f"{name}!")
    assert [found.ref for found in live.slurm.find(f"{name}!") if found.state is JobState.PENDING] == [ref]


def forged(victim: str, gpus: str) -> str:
    """A job name that looks, to a naive reader, like the record of another job."""
    return f"x\nJobId={victim} JobName=v UserId=daemon(1) JobState=RUNNING NodeList=n1   Nodes=n1 CPU_IDs=0 Mem=0 GRES={gpus} \n"


@pytest.mark.parametrize("crowd", [1, 6], ids=["read alone", "read all at once"])
@pytest.mark.root
def test_a_forged_record_of_another_job(live: Live, crowd: int) -> None:
    victim = live.start("--gres=gpu:2", "-w", "n1")
    live.reach(JobState.RUNNING, [victim])
    truth = live.slurm.node("n1").used  # the node's own word, before anybody lies
    liar = live.start("--gres=gpu:2", "-w", "n1", "-J", forged(victim, "gpu:h100:2(IDX:6-7)"), user="daemon")
    others = [live.start("--gres=gpu:1", "-w", "n2") for _ in range(crowd)]
    live.reach(JobState.RUNNING, [liar, *others])
    found = {job.ref: job for job in live.slurm.read().jobs}
    assert found[victim].user == "root"
    assert found[victim].gpus == {"n1": truth}
    assert live.job(victim).gpus == {"n1": truth}
    assert all(found[ref].gpus for ref in others)
    # The liar's own record is its own affair: unknown, never wrong.
    assert found[liar].gpus is None


@pytest.mark.root
def test_a_job_that_lies_about_itself_is_unknown(live: Live) -> None:
    detail = "Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:h100:1(IDX:7)"
    liar = live.start("--gres=gpu:1", "-w", "n1", "-J", detail, "--comment", f"\n   {detail} ", user="daemon")
    honest = [live.start("--gres=gpu:1", "-w", "n1") for _ in range(5)]
    live.reach(JobState.RUNNING, [liar, *honest])
    found = {job.ref: job for job in live.slurm.read().jobs}
    assert found[liar].gpus is None
    assert live.job(liar).gpus is None
    masks = [(found[ref].gpus or {})["n1"] for ref in honest]
    assert len(set(masks)) == 5
    assert all(mask.bit_count() == 1 for mask in masks)


@pytest.mark.root
def test_a_cpu_job_cannot_claim_gpus(live: Live) -> None:
    liar = live.start("-w", "n1", "-J", "x\nJobId=1 Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:h100:8(IDX:0-7) ", user="daemon")
    live.reach(JobState.RUNNING, [liar])
    assert live.job(liar).gpus is None
    assert live.slurm.node("n1").used == 0
    others = [live.start("--gres=gpu:1", "-w", "n1") for _ in range(5)]
    live.reach(JobState.RUNNING, others)
    found = {job.ref: job for job in live.slurm.read().jobs}
    assert all((found[ref].gpus or {}).get("n1") for ref in others)


def test_comments_of_users_are_changed_byte_for_byte(live: Live) -> None:
    ref = live.submit(held=True, comment="old")
    for comment in ("x \"y\" 'z' \\n $(id)\nJobId=7 Priority=9", "+=1", "a=b c=d", ""):
        live.slurm.update(ref, JobUpdate(comment=comment))
        assert live.job(ref).comment == comment
