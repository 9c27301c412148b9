"""Whatever goes in comes out: every record, both databases."""

import math
from typing import Any, TypeVar

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colocd.clock import unix, utc
from colocd.store.records import (
    BatchJob,
    Decision,
    Handover,
    HandoverState,
    Intent,
    LoadSample,
    Outcome,
    ReplicaRow,
    Run,
    ServiceRow,
)
from colocd.store.sql import SqlStore

T = TypeVar("T")
R = TypeVar("R", bound=msgspec.Struct)
# One database for all examples of a test: each example writes under its own keys or replaces, and reads back its own.
shared = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
times = st.integers(-(10**15), 4 * 10**15).map(lambda n: n / 1e6)
small = st.integers(-(2**31), 2**31 - 1)
masks = st.integers(0, 2**63 - 1)
places = st.dictionaries(text, masks, max_size=3)
numbers = st.floats(allow_nan=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
data = st.dictionaries(text, plain, max_size=3)


def maybe(some: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | some


def records(kind: type[R], /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[R]:
    assert {f.name for f in msgspec.structs.fields(kind)} - {"id"} == set(fields)  # a new field must be tested, too
    return st.builds(kind, **fields)


services = records(ServiceRow, name=text, spec=text, applied_at=times, removed=st.booleans(), data=data)
replicas = records(
    ReplicaRow,
    service=text,
    slot=small,
    state=text,
    job=maybe(text),
    node=maybe(text),
    places=places,
    level=maybe(text),
    since=times,
    data=data,
)
jobs = records(
    BatchJob,
    ref=text,
    user=text,
    name=text,
    first_seen=times,
    last_seen=times,
    evictions=small,
    evicted_at=maybe(times),
    released_at=maybe(times),
    ever_released=st.booleans(),
    retry_at=maybe(times),
    ours=st.booleans(),
    pinned=st.booleans(),
    saved=maybe(numbers),
    ended=maybe(text),
    tag=maybe(numbers),
    deaths=small,
    parked=maybe(text),
    parked_at=maybe(times),
    deadline=maybe(numbers),
    answered=small,
    silent=small,
    took=maybe(numbers),
)
runs = records(
    Run,
    ref=text,
    started=times,
    user=text,
    name=text,
    gpus=small,
    saved=maybe(numbers),
    ended=maybe(times),
    end=maybe(text),
)
samples = records(LoadSample, service=text, at=times, value=maybe(numbers))
intents = records(
    Intent,
    key=text,
    kind=text,
    subject=text,
    at=times,
    payload=data,
    handover=st.none(),
    outcome=st.sampled_from(Outcome),
    settled_at=maybe(times),
    detail=maybe(text),
)
handovers = records(
    Handover,
    service=text,
    slot=small,
    places=places,
    level=text,
    victims=st.lists(text, max_size=3).map(tuple),
    gpu_type=maybe(text),
    state=st.sampled_from(HandoverState),
    job=maybe(text),
    got=maybe(places),
    created_at=times,
    updated_at=times,
    why=text,
    data=data,
)
decisions = records(Decision, at=times, subject=text, kind=text, text=text, data=data)


@shared
@given(row=services)
def test_service(store: SqlStore, row: ServiceRow) -> None:
    store.put_service(row)
    assert row in store.services()


@shared
@given(row=replicas)
def test_replica(store: SqlStore, row: ReplicaRow) -> None:
    store.put_replica(row)
    assert row in store.replicas()


@shared
@given(rows=st.lists(jobs, max_size=4, unique_by=lambda row: row.ref))
def test_jobs(store: SqlStore, rows: list[BatchJob]) -> None:
    store.put_jobs(rows)
    everything = store.jobs(unended=False)
    assert all(row in everything for row in rows)
    assert store.jobs() == tuple(row for row in everything if row.ended is None)


@shared
@given(rows=st.lists(runs, max_size=4, unique_by=lambda row: (row.ref, row.started)), since=times)
def test_runs(store: SqlStore, rows: list[Run], since: float) -> None:
    store.put_runs(rows)
    store.put_runs(rows)
    found = store.runs(since)
    assert [row for row in rows if row not in found] == [r for r in rows if r.ended is not None and r.ended < since]
    ends = [row.ended for row in found]
    assert ends == sorted(ends, key=lambda end: (end is not None, -(end or 0.0)))
    assert store.runs(since, limit=1) == found[:1]


@shared
@given(rows=st.lists(samples, max_size=4, unique_by=lambda row: (row.service, row.at)))
def test_load(store: SqlStore, rows: list[LoadSample]) -> None:
    store.add_load(rows)
    for row in rows:
        assert store.load(row.service, row.at)[0] == row


@shared
@given(row=intents)
def test_intent(store: SqlStore, row: Intent) -> None:
    before = store.intent(row.key)
    assert store.intend(row) is (before is None)
    assert store.intent(row.key) == (before or row)


@shared
@given(row=handovers)
def test_handover(store: SqlStore, row: Handover) -> None:
    added = store.add_handover(row)
    assert added == msgspec.structs.replace(row, id=added.id)
    assert store.handover(added.id) == added


@shared
@given(first=handovers, then=handovers)
def test_saved_handover(store: SqlStore, first: Handover, then: Handover) -> None:
    saved = msgspec.structs.replace(then, id=store.add_handover(first).id)
    store.save_handover(saved)
    assert store.handover(saved.id) == saved


@shared
@given(row=decisions)
def test_decision(store: SqlStore, row: Decision) -> None:
    store.add_decisions([row])
    found = store.decisions(row.subject, limit=1000)
    assert row in [msgspec.structs.replace(d, id=0) for d in found]


@shared
@given(key=text, value=maybe(text))
def test_setting(store: SqlStore, key: str, value: str | None) -> None:
    store.put_setting(key, value)
    assert store.setting(key) == value


@given(st.floats(min_value=-1e9, max_value=4e9))
def test_a_row_keeps_a_time_to_the_microsecond_and_then_for_good(seconds: float) -> None:
    once = unix(utc(seconds))
    assert math.isclose(once, seconds, rel_tol=0, abs_tol=1e-6)
    assert unix(utc(once)) == once
