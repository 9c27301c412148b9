"""What `CliSlurm` remembers between two readings: rows that have not changed, GPUs of jobs that run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.core.view import JobState
from colocd.errors import SlurmUnreachable
from colocd.slurm import rows

if TYPE_CHECKING:
    from tests.conftest import Live

FIELD = {
    **dict.fromkeys(rows.FIELDS, "N/A"),
    **{"JobID": "7", "JobArrayID": "7", "State": "PENDING", "PriorityLong": "10", "UserName": "u", "Name": "a"},
}


def answer(nonce: str, *jobs: dict[str, str]) -> str:
    rows_of = ([(FIELD | job)[field] for field in rows.FIELDS] for job in jobs)
    return "".join(f"<{nonce}".join(cells) + f">{nonce}\n" for cells in rows_of)


def test_an_unchanged_row_is_not_read_again() -> None:
    table = rows.Table()
    (first,) = table.parse(answer("one", {}), "one", whole=True)
    (second,) = table.parse(answer("two", {"PriorityLong": "11"}), "two", whole=True)
    assert second is first


@pytest.mark.parametrize(
    "change", [{"PriorityLong": "0"}, {"State": "RUNNING"}, {"Comment": "[coloc v=1 saved=5]"}, {"Name": "b"}]
)
def test_a_changed_row_is_read_again(change: dict[str, str]) -> None:
    table = rows.Table()
    (first,) = table.parse(answer("one", {}), "one", whole=True)
    (second,) = table.parse(answer("two", change), "two", whole=True)
    assert second == rows.Table().parse(answer("two", change), "two", whole=True)[0] != first


def test_a_look_at_few_jobs_forgets_none() -> None:
    table = rows.Table()
    (first, _) = table.parse(answer("one", {}, {"JobID": "8", "JobArrayID": "8"}), "one", whole=True)
    table.parse(answer("two", {"JobID": "8", "JobArrayID": "8"}), "two", whole=False)
    assert table.parse(answer("x3", {}), "x3", whole=True) == (first,)


TEXTS = st.text(st.sampled_from("ab\x1f\n<>1~ "), max_size=12)


@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4), st.lists(st.tuples(TEXTS, TEXTS, TEXTS)))
def test_memory_never_changes_an_answer(before: list[tuple[str, ...]], after: list[tuple[str, ...]]) -> None:
    table = rows.Table()
    for nonce, cells in (("Nonce1", before), ("Nonce2", after)):
        jobs = [{"Name": name, "Comment": comment, "ReqNodes": asked} for name, comment, asked in cells]
        text = answer(nonce, *jobs)
        assert table.parse(text, nonce, whole=True) == rows.Table().parse(text, nonce, whole=True)


@pytest.mark.parametrize("cut", [1, 30])
def test_a_cut_answer_is_unreadable(cut: int) -> None:
    with pytest.raises(SlurmUnreachable):
        rows.Table().parse(answer("one", {})[:-cut], "one", whole=True)


def test_a_row_with_a_field_too_many_is_unreadable() -> None:
    with pytest.raises(SlurmUnreachable):
        rows.Table().parse(answer("one", {"Name": "a<oneb"}), "one", whole=True)


@pytest.mark.slurm
def test_a_job_that_starts_again_gets_its_new_gpus(live: Live) -> None:
    first = live.start("--gres=gpu:2", "-w", "n1")
    live.reach(JobState.RUNNING, [first])
    before = live.job(first).gpus
    assert {j.ref: j for j in live.slurm.read().jobs}[first].gpus == before  # and so remembered
    live.slurm.requeue([first], hold=True)
    live.reach(JobState.PENDING, [first])
    others = [live.start("--gres=gpu:2", "-w", "n1")]
    live.reach(JobState.RUNNING, others)
    live.clock.sleep(2.0)  # see test_requeue_and_hold_then_release
    live.slurm.release([first])
    live.cluster.run("scontrol", "update", f"jobid={first}", "starttime=now")
    live.reach(JobState.RUNNING, [first])
    found = {j.ref: j for j in live.slurm.read().jobs}
    truth = live.slurm.node("n1").used
    assert truth is not None
    held = [mask for ref in (first, *others) for mask in (found[ref].gpus or {}).values()]
    assert found[first].gpus == live.job(first).gpus
    assert sum(held) == truth
