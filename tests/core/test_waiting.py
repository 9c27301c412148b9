"""Many waiting batch jobs: what is looked at, how often, and what is told when that is bounded."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, filled_views, view

from colocd.core import fill
from colocd.core.actions import Release, encode_plan
from colocd.core.arrays import Ints
from colocd.core.pack import Pack
from colocd.core.plan import plan
from colocd.core.view import Job, JobFacts, View


class Forgetful(Pack):
    """Looks for places for each job anew."""

    def hosts(self, job: Job, facts: JobFacts, kept: Ints) -> tuple[str, ...] | None:
        self._full.clear()
        return super().hosts(job, facts, kept)


@settings(max_examples=40, deadline=None)
@given(filled_views(), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2), st.booleans()), max_size=12))
def test_jobs_of_a_kind_that_has_no_place_are_refused_at_once(v: View, asked: list[tuple[int, int, bool]]) -> None:
    queue = [
        batch(900 + n, gpus_requested=gpus * nodes, gpus_per_node=gpus, nodes_requested=nodes, submitted=AT - 900 + n,
              required_nodes=("n1",) if named and nodes == 1 else ())
        for n, (gpus, nodes, named) in enumerate(asked)
    ]  # fmt: skip
    v = msgspec.structs.replace(v, jobs=(*v.jobs, *queue))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fill, "Pack", Forgetful)
        slow = encode_plan(plan(v))
    assert encode_plan(plan(v)) == slow


def test_a_plan_looks_for_a_bounded_number_of_places_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "MOST_LOOKS", 3)
    jobs = [batch(n, gpus_requested=1, submitted=AT - 1000 + n) for n in range(10, 18)]
    first = plan(view(*jobs, nodes=2))
    assert [a.job for a in first.actions if isinstance(a, Release)] == ["10", "11", "12"]
    notes = {note.subject: note.text for note in first.notes}
    assert "5 waiting jobs were not looked at" in notes["coloc"]
    assert "it keeps its turn" in notes["job:13"]
    # Jobs of a kind that has no place cost nothing: the small one behind them starts.
    large = [batch(n, gpus_requested=8, submitted=AT - 3000 + n) for n in range(20, 40)]
    full = view(batch(1, {"n1": 0x7F}), *large, batch(50, gpus_requested=1, time_limit=600.0))
    result = plan(full)
    assert [a.job for a in result.actions if isinstance(a, Release)] == ["50"]
    assert "coloc" not in {note.subject for note in result.notes}


@given(st.floats(0.0, 1e6))
def test_times_for_which_gpus_are_kept(until: float) -> None:
    rounded = fill.rounded_up(until)
    assert until <= rounded <= until + min(fill.KEPT_STEP, max(until, 1.0) / 4) + 1e-9
