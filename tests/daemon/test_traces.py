from pathlib import Path

from colocd.store import open_store
from colocd.store.records import LoadSample
from colocd.store.schema import upgrade
from colocd.traces import BUCKETS, SEASONS_KEPT, Traces

DAY = 86400.0
NOW = 1_760_054_400.0


def test_memory_holds_means_and_holes_and_stays_small(tmp_path: Path) -> None:
    upgrade(url := f"sqlite:///{tmp_path}/coloc.db")
    store = open_store(url)
    old = [LoadSample(service="chat", at=NOW - 9 * DAY + n * 60.0, value=1.0) for n in range(10)]
    near = [LoadSample(service="chat", at=NOW - 600 + n * 10.0, value=float(n % 2)) for n in range(30)]
    store.add_load([*old, *near])
    traces = Traces(store)
    for n in range(12):
        traces.add("chat", DAY, NOW + n * 10, 6.0 if n % 2 else None)
    traces.add("chat", DAY, NOW - 100.0, 1e9)
    assert traces.of("chat") == [(NOW - 600, 0.5), (NOW, 6.0)]
    traces.add("chat", DAY, NOW + 600, None)
    assert traces.of("chat")[-1] == (NOW + 600, None)
    for n in range(20 * BUCKETS):
        traces.add("chat", DAY, NOW + 1200 + n * 600.0, 1.0)
    assert (SEASONS_KEPT * BUCKETS) < len(traces.of("chat")) < (SEASONS_KEPT + 2) * BUCKETS
    assert traces.keep(set()) == {"chat"}
    assert traces.of("chat") == []
    store.close()
