"""Migration 0004: what was on one node becomes a place of one node; nothing on several is forgotten on the way back."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection, text

from colocd.errors import BadRequest
from colocd.store import open_store, schema
from colocd.store.engine import connect, parse
from colocd.store.records import Handover, HandoverState, Intent, ReplicaRow

OLD = "0003"


@contextmanager
def begun(url: str) -> Iterator[Connection]:
    engine = connect(parse(url), wait=5)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def handover(state: HandoverState, places: dict[str, int], got: dict[str, int] | None) -> Handover:
    return Handover(
        service="chat", slot=1, places=places, got=got, level="NVLINK", state=state, created_at=1.0, updated_at=2.0
    )


def test_open_handovers_of_the_old_form_go_on(empty_url: str) -> None:
    schema.upgrade(empty_url)
    store = open_store(empty_url)
    first = store.add_handover(handover(HandoverState.SIGNALLED, {"n1": 15}, None))
    second = store.add_handover(handover(HandoverState.PLACED, {"n2": 3}, {"n2": 5}))
    gone = store.add_handover(handover(HandoverState.RELEASED, {"n2": 3, "n3": 3}, {"n2": 3, "n3": 3}))
    store.intend(Intent(key="k", kind="fence", subject="node:n1", at=1.0, handover=first.id))
    store.put_replica(ReplicaRow(service="chat", slot=0, state="ready", node="n1", places={"n1": 48}))
    store.put_replica(ReplicaRow(service="chat", slot=5, state="gone"))
    store.close()
    schema.downgrade(empty_url, OLD)
    with begun(empty_url) as connection:
        rows = connection.execute(text("SELECT node, want, got FROM handovers ORDER BY id")).all()
        assert [tuple(row) for row in rows] == [("n1", 15, None), ("n2", 3, 5), ("n2", 3, 3)]
        rows = connection.execute(text("SELECT node, gpus FROM replicas ORDER BY slot")).all()
        assert [tuple(row) for row in rows] == [("n1", 48), (None, 0)]
    assert schema.upgrade(empty_url)[0] == OLD
    store = open_store(empty_url)
    assert [h.places for h in store.handovers(only_open=True)] == [{"n1": 15}, {"n2": 3}]
    assert [h.got for h in store.handovers(only_open=True)] == [None, {"n2": 5}]
    assert store.handover(first.id) == first
    assert store.handover(second.id) == second
    assert [i.key for i in store.intents(handover=first.id)] == ["k"]
    assert [(r.node, r.places) for r in store.replicas()] == [("n1", {"n1": 48}), (None, {})]
    assert store.add_handover(handover(HandoverState.PLANNED, {"n1": 1}, None)).id == gone.id + 1, "never given twice"
    store.close()


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.service)], indirect=True)
@pytest.mark.parametrize("what", ["handover", "replica"])
def test_no_way_back_while_something_is_on_several_nodes(empty_url: str, what: str) -> None:
    schema.upgrade(empty_url)
    store = open_store(empty_url)
    both = {"n1": 15, "n2": 15}
    if what == "handover":
        store.add_handover(handover(HandoverState.FENCED, both, None))
    else:
        store.put_replica(ReplicaRow(service="chat", slot=0, state="ready", node="n1", places=both))
    store.close()
    with pytest.raises(BadRequest, match=f"{what} .* use several"):
        schema.downgrade(empty_url, OLD)
    assert schema.check(empty_url).up_to_date
