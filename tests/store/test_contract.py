"""What every store promises (`colocd.store.port.Store`)."""

import msgspec
import pytest

from colocd.errors import BadRequest, NotFound, StoreUnavailable
from colocd.store.port import Store
from colocd.store.records import (
    OPEN_STATES,
    BatchJob,
    Decision,
    Handover,
    HandoverState,
    Intent,
    LoadSample,
    Outcome,
    ReplicaRow,
    ServiceRow,
)
from colocd.store.sql import SqlStore


def intent(key: str, at: float = 100.0, handover: int | None = None) -> Intent:
    return Intent(key=key, kind="submit", subject="service:chat", at=at, payload={"n": 1}, handover=handover)


def handover(state: HandoverState = HandoverState.PLANNED, at: float = 100.0) -> Handover:
    return Handover(
        service="chat", slot=0, places={"n1": 15, "n2": 3}, level="NVLINK", state=state, created_at=at, updated_at=at
    )


def job(ref: str, **more: object) -> BatchJob:
    return msgspec.convert(
        {"ref": ref, "user": "u", "name": "j", "first_seen": 1.0, "last_seen": 2.0, **more}, BatchJob
    )


def decision(subject: str, at: float, text: str = "t") -> Decision:
    return Decision(at=at, subject=subject, kind="note", text=text)


def test_it_is_a_store(store: SqlStore) -> None:
    typed: Store = store  # mypy holds it to the protocol
    assert typed.services() == ()


def test_a_service_is_replaced_and_forgotten_but_its_history_stays(store: Store) -> None:
    store.add_load([LoadSample(service="chat", at=1.0, value=2.0)])
    store.put_service(ServiceRow(name="chat", spec="{}", applied_at=1.0))
    store.put_service(ServiceRow(name="chat", spec='{"a":1}', applied_at=2.0, removed=True, data={"x": [1]}))
    assert store.services() == (ServiceRow(name="chat", spec='{"a":1}', applied_at=2.0, removed=True, data={"x": [1]}),)
    store.delete_service("chat")
    store.delete_service("never")
    assert store.services() == ()
    assert store.load("chat", 0.0) == (LoadSample(service="chat", at=1.0, value=2.0),)


def test_names_are_ordered_by_code_point_on_every_database(store: Store) -> None:
    names = ["b", "a-b", "ab", "B", "Ä", "_", "a b"]
    for name in names:
        store.put_service(ServiceRow(name=name, spec="{}", applied_at=1.0))
    store.put_jobs([job(name) for name in names])
    assert [row.name for row in store.services()] == sorted(names)
    assert [row.ref for row in store.jobs()] == sorted(names)


def test_replicas_are_keyed_by_service_and_slot(store: Store) -> None:
    for service, slot in [("b", 0), ("a", 10), ("a", 9), ("a", 9)]:
        store.put_replica(ReplicaRow(service=service, slot=slot, state="ready", places={"n1": 3}, since=5.0))
    assert [(r.service, r.slot) for r in store.replicas()] == [("a", 9), ("a", 10), ("b", 0)]
    store.delete_replica("a", 9)
    store.delete_replica("a", 9)
    assert [(r.service, r.slot) for r in store.replicas()] == [("a", 10), ("b", 0)]


def test_load_keeps_holes_replaces_and_reads_from_since_on(store: Store) -> None:
    store.add_load([LoadSample(service="chat", at=30.0, value=3.0), LoadSample(service="chat", at=10.0, value=1.0)])
    store.add_load([LoadSample(service="chat", at=20.0, value=None), LoadSample(service="other", at=20.0, value=9.0)])
    store.add_load([LoadSample(service="chat", at=30.0, value=4.0), LoadSample(service="chat", at=30.0, value=5.0)])
    store.add_load([])
    assert [(s.at, s.value) for s in store.load("chat", 10.0)] == [(10.0, 1.0), (20.0, None), (30.0, 5.0)]
    assert [s.at for s in store.load("chat", 10.000001)] == [20.0, 30.0]
    assert store.load("unheard-of", 0.0) == ()


def test_a_load_that_is_no_number_is_a_hole(store: Store) -> None:
    store.add_load([LoadSample(service="chat", at=1.0, value=float("nan"))])
    assert store.load("chat", 0.0) == (LoadSample(service="chat", at=1.0, value=None),)


def test_only_jobs_that_have_not_ended_unless_asked(store: Store) -> None:
    store.put_jobs([job("2"), job("1"), job("3", ended="done")])
    store.put_jobs([job("2", evictions=1), job("2", evictions=2)])
    store.put_jobs([])
    assert [(j.ref, j.evictions) for j in store.jobs()] == [("1", 0), ("2", 2)]
    assert [j.ref for j in store.jobs(unended=False)] == ["1", "2", "3"]


def test_a_job_can_claim_any_date_and_any_name(store: Store) -> None:
    store.put_jobs([job("1", saved=1e300), job("2", name="a\x00b\udcff", user="\U0001f600")])
    first, second = store.jobs()
    assert first.saved == 1e300
    assert (second.name, second.user) == ("a\ufffdb\ufffd", "\U0001f600")


def test_an_intent_is_written_once(store: Store) -> None:
    assert store.intend(intent("k")) is True
    assert store.intend(msgspec.structs.replace(intent("k"), subject="other")) is False
    assert store.intent("k") == intent("k")
    assert store.intent("other") is None


def test_intents_are_settled_and_listed(store: Store) -> None:
    number = store.add_handover(handover()).id
    for key, at in [("c", 3.0), ("a", 1.0), ("b", 2.0)]:
        store.intend(intent(key, at, number if key == "b" else None))
    store.settle("a", Outcome.DONE, 5.0, "job 17")
    store.settle("b", Outcome.UNKNOWN, 5.0)
    assert [i.key for i in store.intents()] == ["a", "b", "c"]
    assert [(i.key, i.outcome) for i in store.intents(unsettled=True)] == [
        ("b", Outcome.UNKNOWN),
        ("c", Outcome.OPEN),
    ]
    assert [i.key for i in store.intents(handover=number)] == ["b"]
    assert [i.key for i in store.intents(handover=number, unsettled=True)] == ["b"]
    settled = store.intent("a")
    assert settled is not None
    assert (settled.outcome, settled.settled_at, settled.detail) == (Outcome.DONE, 5.0, "job 17")
    store.settle("b", Outcome.REFUSED, 6.0, "no")
    assert [i.key for i in store.intents(unsettled=True)] == ["c"]


def test_what_was_never_written_cannot_be_settled_or_saved(store: Store) -> None:
    with pytest.raises(NotFound, match="'k'"):
        store.settle("k", Outcome.DONE, 1.0)
    with pytest.raises(NotFound, match="handover 7"):
        store.save_handover(msgspec.structs.replace(handover(), id=7))
    with pytest.raises(BadRequest, match=r"foreign key|FOREIGN KEY"):
        store.intend(intent("k", handover=7))
    assert store.intents() == ()


def test_handovers_get_numbers_and_are_saved(store: Store) -> None:
    first, second = store.add_handover(handover()), store.add_handover(handover())
    assert 0 < first.id < second.id
    changed = msgspec.structs.replace(
        first, state=HandoverState.FAILED, got={"n1": 3, "n2": 1}, victims=("1", "2"), data={"k": None}
    )
    store.save_handover(changed)
    assert store.handover(first.id) == changed
    assert store.handover(second.id) == second
    assert store.handover(99) is None
    assert store.handovers() == (second, changed)
    assert store.handovers(limit=1) == (second,)


def test_a_pair_is_written_whole_or_not_at_all(store: Store) -> None:
    def broken(lead: Handover) -> Handover:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add_pair(handover(), broken)
    assert store.handovers() == ()
    pair = store.add_pair(handover(), lambda lead: msgspec.structs.replace(lead, id=0, data={"lead": {"id": lead.id}}))
    assert store.handovers() == pair[::-1]
    assert pair[0].id < pair[1].id
    assert pair[1].data == {"lead": {"id": pair[0].id}}


def test_open_handovers_come_oldest_first(store: Store) -> None:
    stored = [store.add_handover(handover(state)) for state in HandoverState]
    assert store.handovers(only_open=True) == tuple(h for h in stored if h.state in OPEN_STATES)


def test_newest_decisions_first(store: Store) -> None:
    store.add_decisions([decision("job:1", 1.0, "a"), decision("job:2", 2.0, "b"), decision("job:1", 2.0, "c")])
    store.add_decisions([])
    assert [d.text for d in store.decisions()] == ["c", "b", "a"]
    assert [d.text for d in store.decisions("job:1")] == ["c", "a"]
    assert [d.text for d in store.decisions(limit=2)] == ["c", "b"]
    assert len({d.id for d in store.decisions()}) == 3


def test_settings_outlive_and_go(store: Store) -> None:
    assert store.setting("paused") is None
    store.put_setting("paused", "a")
    store.put_setting("paused", "")
    assert store.setting("paused") == ""
    store.put_setting("paused", None)
    store.put_setting("paused", None)
    assert store.setting("paused") is None


def test_json_that_has_no_word_for_a_number_is_null(store: Store) -> None:
    store.intend(
        msgspec.structs.replace(intent("k"), payload={"x": float("inf"), "y": [{"z": float("nan")}], "n": 1 << 72})
    )
    kept = store.intent("k")
    assert kept is not None
    assert kept.payload == {"x": None, "y": [{"z": None}], "n": 1 << 72}


@pytest.mark.parametrize("at", [1e300, float("inf"), float("nan"), -1e12])
def test_a_time_that_is_no_date_is_refused(store: Store, at: float) -> None:
    with pytest.raises(BadRequest, match="cannot be stored"):
        store.intend(intent("k", at))
    assert store.intents() == ()


def test_one_bad_row_keeps_the_whole_batch_out(store: Store) -> None:
    with pytest.raises(BadRequest):
        store.put_jobs([job("1"), job("2", evictions=1 << 80)])
    assert store.jobs() == ()


def test_a_closed_store_says_so(store: SqlStore) -> None:
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.services()
    store.close()
