"""Roll-ups: nothing is lost or counted twice, holes stay holes, whatever the order of crashes, roll-ups and pruning."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.errors import StoreUnavailable
from colocd.store import open_store
from colocd.store.packs import MINUTE, SPAN, TEN_MINUTES, LoadBucket, bucketed, coarser, pack, unpack
from colocd.store.records import Learned, LoadSample
from colocd.store.rollup import LAG
from colocd.store.sql import SqlStore

HOUR, DAY = 3600.0, 86400.0
START = 1_760_054_400.0 - 1_760_054_400.0 % DAY
NEVER = -1e9


def fill(store: SqlStore, hours: float, *, step: float = 60.0, service: str = "chat") -> list[LoadSample]:
    """A wave with a dead exporter in the second hour and nobody looking in the fourth."""
    rows = []
    for n in range(int(hours * HOUR / step)):
        at = START + n * step
        if 3 * HOUR <= at - START < 4 * HOUR:
            continue
        dead = HOUR <= at - START < 2 * HOUR
        rows.append(LoadSample(service=service, at=at, value=None if dead else 50 + 40 * math.sin(n / 50)))
    store.add_load(rows)
    return rows


def roll_all(store: SqlStore, now: float) -> int:
    total = 0
    while (done := store.roll_up(now, at_most=7)) > 0:
        total += done
        assert total < 10_000
    return total


def close(a: LoadBucket, b: LoadBucket) -> bool:
    same = (a.at, a.known, a.seen, a.mean is None) == (b.at, b.known, b.seen, b.mean is None)
    return same and (a.mean is None or math.isclose(a.mean, b.mean or 0, rel_tol=3e-4))


@given(
    st.lists(
        st.tuples(st.integers(0, 35_999).map(lambda n: n / 10), st.none() | st.floats(0, 1e9)),
        max_size=80,
        unique_by=lambda sample: sample[0],
    )
)
def test_packing_keeps_what_it_should(raw: list[tuple[float, float | None]]) -> None:
    start = int(START)
    buckets = bucketed([(START + at, value) for at, value in sorted(raw, key=lambda sample: sample[0])], MINUTE)
    again = list(unpack(pack(buckets, start, MINUTE), start, MINUTE))
    assert len(again) == len(buckets)
    for a, b in zip(again, buckets, strict=True):
        assert close(a, b) or (b.mean or 0) < 1e-30  # denormal floats lose their last bits
    assert sum(b.seen for b in again) == len(raw)
    assert sum(b.known for b in again) == sum(value is not None for _, value in raw)
    tens = coarser(again, TEN_MINUTES)
    assert sum(b.known for b in tens) == sum(b.known for b in again)
    assert [b.at for b in tens] == sorted({at // 600 * 600 for at in (b.at for b in again)})


@pytest.mark.parametrize("data", [b"", b"\x09abc", b"\x01abc", pack([], 0, TEN_MINUTES)])
def test_bytes_that_are_no_row_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="packed row"):
        list(unpack(data, 0, MINUTE))


def test_history_is_the_same_before_and_after(store: SqlStore) -> None:
    fill(store, 50)
    now = START + 50 * HOUR
    before = {step: store.history("chat", START, step) for step in (MINUTE, TEN_MINUTES)}
    assert roll_all(store, now + LAG) > 50
    for step, old in before.items():
        new = store.history("chat", START, step)
        assert len(new) == len(old)
        assert all(close(a, b) for a, b in zip(new, old, strict=True))
    holes = [b for b in before[TEN_MINUTES] if b.known == 0]
    assert [b.at for b in holes] == [START + HOUR + n * 600 for n in range(6)]
    assert all(b.mean is None and b.peak is None and b.seen == 10 for b in holes)
    assert not [b for b in before[MINUTE] if 3 * HOUR <= b.at - START < 4 * HOUR], "nobody looked"
    assert roll_all(store, now + LAG) == 0


def test_pruning_takes_only_what_is_rolled_up(store: SqlStore) -> None:
    rows = fill(store, 50)
    now = START + 50 * HOUR
    keep = {"load_before": NEVER, "decisions_before": NEVER}
    assert store.prune(**keep, raw_before=now, minutes_before=now) == 0, "nothing is rolled up yet"
    full = store.history("chat", START)
    roll_all(store, now + LAG)
    assert store.prune(**keep, raw_before=now - 3 * HOUR, minutes_before=now - 20 * HOUR) > 2000
    assert [b.at for b in store.history("chat", START)] == [b.at for b in full]
    assert store.history("chat", START, MINUTE)[0].at == START + DAY
    found = store.load("chat", START)
    assert [s.at for s in found] == sorted({s.at for s in found})
    assert found[0].at == START + 300, "the middle of ten minutes"
    assert [s for s in found if s.at >= now - 3 * HOUR] == [s for s in rows if s.at >= now - 3 * HOUR]
    assert sum(s.value is None for s in found) == 6
    store.prune(load_before=now + DAY, decisions_before=NEVER)
    assert store.history("chat", 0.0) == ()


def test_a_crash_between_any_two_steps_loses_nothing(
    store: SqlStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction that rolls up breaks at a random place, again and again; another process goes on."""
    fill(store, 30)
    full = store.history("chat", START)
    dice = random.Random(1)
    keep = SqlStore._keep

    def breaking(self: SqlStore, *args: object) -> None:
        if dice.random() < 0.3:
            raise StoreUnavailable("the machine stops here")
        keep(self, *args)  # type: ignore[arg-type]
        if dice.random() < 0.3:
            raise StoreUnavailable("or here")

    monkeypatch.setattr(SqlStore, "_keep", breaking)
    for _ in range(200):
        other = open_store(url)
        try:
            if other.roll_up(START + 30 * HOUR + LAG, at_most=3) == 0:
                break
        except StoreUnavailable:
            pass
        finally:
            other.close()
        store.prune(load_before=NEVER, decisions_before=NEVER, raw_before=START + 30 * HOUR, minutes_before=START + DAY)
    new = store.history("chat", START)
    assert len(new) == len(full)
    assert all(close(a, b) for a, b in zip(new, full, strict=True))


def test_a_day_that_is_not_over_and_a_late_sample(store: SqlStore) -> None:
    fill(store, 3)
    assert roll_all(store, START + 3 * HOUR) > 0, "two hours are over for longer than the lag"
    assert store.history("chat", START + 2 * HOUR, MINUTE)[0].seen == 1
    store.add_load([LoadSample(service="chat", at=START + 30.0, value=1e6)])
    roll_all(store, START + 3 * HOUR)
    assert max(b.peak or 0 for b in store.history("chat", START, MINUTE)) < 100, "what came too late changes nothing"


def test_a_series_that_ended_is_done_once(store: SqlStore) -> None:
    fill(store, 1)
    store.add_load([LoadSample(service="empty", at=START + 40 * DAY, value=1.0)])
    assert roll_all(store, START + 30 * DAY) < 10
    assert store.roll_up(START + 30 * DAY) == 0
    store.add_load([LoadSample(service="chat", at=START + 31 * DAY, value=7.0)])
    roll_all(store, START + 33 * DAY)
    assert [b.mean for b in store.history("chat", START + 30 * DAY)] == [7.0]


def test_span_and_steps_fit() -> None:
    assert all(span % step == 0 for step, span in SPAN.items())


def test_what_is_learned_is_replaced_and_goes_with_the_service(store: SqlStore) -> None:
    assert store.learned("lead") == {}
    for n in (1, 2):
        store.put_learned(Learned(service="chat", topic="lead", at=float(n), data={"n": n}))
    store.put_learned(Learned(service="chat", topic="capacity", at=1.0))
    assert store.learned("lead") == {"chat": Learned(service="chat", topic="lead", at=2.0, data={"n": 2})}
    store.delete_service("chat")
    assert store.learned("lead") == {}
