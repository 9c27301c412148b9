"""What pruning takes and what it leaves."""

import pytest

from colocd.store import history
from colocd.store.port import Store
from colocd.store.records import BatchJob, Decision, Handover, HandoverState, Intent, LoadSample, Outcome, Run

OLD, NEW, LIMIT = 10.0, 1000.0, 500.0


def _intent(store: Store, key: str, at: float, outcome: Outcome | None, handover: int | None = None) -> None:
    store.intend(Intent(key=key, kind="k", subject="s", at=at, handover=handover))
    if outcome is not None:
        store.settle(key, outcome, at)


def _handover(store: Store, state: HandoverState, at: float) -> int:
    row = Handover(service="c", slot=0, places={"n": 1}, level="SYS", state=state, created_at=at, updated_at=at)
    return store.add_handover(row).id


def _job(ref: str, at: float, ended: str | None) -> BatchJob:
    return BatchJob(ref=ref, user="u", name="n", first_seen=at, last_seen=at, ended=ended)


def _prune(store: Store) -> int:
    return store.prune(load_before=LIMIT, decisions_before=LIMIT)


def test_load_before_the_limit_goes_of_every_service(store: Store) -> None:
    store.add_load([LoadSample(service=s, at=at, value=1.0) for s in ("a", "b") for at in (OLD, LIMIT, NEW)])
    assert _prune(store) == 2
    assert [s.at for s in store.load("a", 0.0)] == [LIMIT, NEW]
    assert [s.at for s in store.load("b", 0.0)] == [LIMIT, NEW]


def test_runs_that_ended_before_their_own_limit_go(store: Store) -> None:
    store.put_runs(
        [Run(ref="1", started=1.0, user="u", name="n", gpus=1, ended=end, end="done") for end in (OLD,)]
        + [Run(ref="2", started=at, user="u", name="n", gpus=1, ended=at + 1, end="done") for at in (OLD, NEW)]
        + [Run(ref="3", started=1.0, user="u", name="n", gpus=1)]
    )
    assert _prune(store) == 0
    assert store.prune(load_before=0.0, decisions_before=0.0, runs_before=LIMIT) == 2
    assert [(r.ref, r.started) for r in store.runs(0.0)] == [("3", 1.0), ("2", NEW)]


def test_slices_add_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_SLICE", 3)
    store.add_load([LoadSample(service="a", at=float(at), value=1.0) for at in range(10)])
    assert _prune(store) == 10
    assert store.load("a", 0.0) == ()


def test_unsettled_intents_stay_however_old(store: Store) -> None:
    for key, outcome in [("open", None), ("unknown", Outcome.UNKNOWN), ("done", Outcome.DONE)]:
        _intent(store, key, OLD, outcome)
    _intent(store, "fresh", NEW, Outcome.DONE)
    assert _prune(store) == 1
    assert [i.key for i in store.intents()] == ["open", "unknown", "fresh"]


def test_open_handovers_stay_with_all_their_intents(store: Store) -> None:
    kept = _handover(store, HandoverState.SIGNALLED, OLD)
    _intent(store, "of-open", OLD, Outcome.DONE, kept)
    gone = _handover(store, HandoverState.RELEASED, OLD)
    _intent(store, "of-final", OLD, Outcome.DONE, gone)
    assert _prune(store) == 2
    assert [h.id for h in store.handovers()] == [kept]
    assert [i.key for i in store.intents()] == ["of-open"]


def test_a_final_handover_waits_for_its_last_intent(store: Store) -> None:
    number = _handover(store, HandoverState.FAILED, OLD)
    _intent(store, "unsure", OLD, Outcome.UNKNOWN, number)
    assert _prune(store) == 0
    store.settle("unsure", Outcome.REFUSED, NEW)
    assert _prune(store) == 2
    assert store.handovers() == ()


def test_a_number_is_never_given_twice(store: Store) -> None:
    first = _handover(store, HandoverState.FAILED, OLD)
    _prune(store)
    assert _handover(store, HandoverState.PLANNED, NEW) > first


def test_ended_jobs_go_and_unended_ones_stay(store: Store) -> None:
    store.put_jobs([_job("1", OLD, "done"), _job("2", OLD, None), _job("3", NEW, "failed")])
    assert _prune(store) == 1
    assert [j.ref for j in store.jobs(unended=False)] == ["2", "3"]


def test_the_last_word_on_what_still_exists_stays(store: Store) -> None:
    store.put_jobs([_job("1", OLD, None), _job("2", OLD, "done")])
    alive, gone = _handover(store, HandoverState.FREED, OLD), _handover(store, HandoverState.FAILED, OLD)
    subjects = ["job:1", "job:2", "job:3", f"handover:{alive}", f"handover:{gone}", "service:chat", "coloc"]
    store.add_decisions([Decision(at=OLD, subject=s, kind="k", text=t) for t in ("older", "newer") for s in subjects])
    store.add_decisions([Decision(at=NEW, subject="coloc", kind="k", text="newest")])
    _prune(store)
    left = {(d.subject, d.text) for d in store.decisions()}
    assert left == {
        ("job:1", "newer"),
        (f"handover:{alive}", "newer"),
        ("service:chat", "newer"),
        ("coloc", "newest"),
    }
    assert _prune(store) == 0
