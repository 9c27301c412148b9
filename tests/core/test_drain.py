"""Which replica goes, and when."""

import msgspec
from tests.helpers.views import AT, replica, service, view

from colocd.core.actions import Drain
from colocd.core.capacity import Carries
from colocd.core.lead import Lead
from colocd.core.need import lead_time, need, needed, reserve
from colocd.core.plan import plan
from colocd.core.policy import Policy
from colocd.core.view import Reading, Replica, ServiceView, View

LOW = AT - 1000


def seen(*replicas: Replica, load: float, **facts: object) -> View:
    given = {"spec": service(), "replicas": replicas, "load": Reading(load, AT), "low_since": LOW, **facts}
    return view(services=(ServiceView(**given),))  # type: ignore[arg-type]


def drained(found: View) -> list[int]:
    return [a.slot for a in plan(found).actions if isinstance(a, Drain)]


def on(slot: int, gpus: int, **facts: object) -> Replica:
    return replica(slot, node="n1", places={"n1": gpus}, **facts)  # type: ignore[arg-type]


def test_the_least_work_in_flight_goes_first() -> None:
    assert drained(seen(on(0, 3, load=4.0), on(1, 12, load=1.0), load=5.0)) == [1]
    assert drained(seen(on(0, 3, load=1.0), on(1, 12), load=5.0)) == [0], "of unknown load goes last"


def test_a_warm_cache_stays() -> None:
    warm, cold = {"load": 2.0, "hits": 0.8, "kv_use": 0.9}, {"load": 4.0, "hits": 0.0, "kv_use": 0.9}
    found = seen(on(0, 3, **cold), on(1, 12, **warm), load=6.0)
    assert drained(found) == [0]
    (drain,) = (a for a in plan(found).actions if isinstance(a, Drain))
    assert "0% of its prompts come from its cache" in drain.why


def test_the_end_that_completes_an_island_is_worth_something() -> None:
    # Slots 0 and 1 share the first quad with each other, slot 2 sits alone in the second one.
    three = (on(0, 0b11, load=1.0), on(1, 0b1100, load=1.0), on(2, 0b110000, load=1.0))
    found = seen(*three, load=3.0)
    nodes = tuple(msgspec.structs.replace(n, used=0b111111) for n in found.nodes)
    found = msgspec.structs.replace(found, nodes=nodes)
    assert drained(found)[0] == 2
    assert "frees an island of 4 GPUs" in next(a.why for a in plan(found).actions if isinstance(a, Drain))


def test_hysteresis() -> None:
    two = (on(0, 3, load=4.9), on(1, 12, load=4.9))
    assert drained(seen(*two, load=9.8)) == [], "one would carry 10, but not 9.8 and a tenth"
    assert drained(seen(*two, load=9.0)) == [1]
    alone = seen(on(0, 3, load=9.8), load=9.8).services[0]
    assert need(alone, Policy(), AT).now == 1, "but no second one is started for it"


def test_minimum_stay() -> None:
    two = (on(0, 3, load=1.0, since=AT - 100), on(1, 12, load=1.0, since=AT - 200))
    found = seen(*two, load=2.0)
    assert drained(found) == []
    assert any("too new to drain, the first for another 100 s" in n.text for n in plan(found).notes)
    assert drained(seen(on(0, 3, load=1.0, since=AT - 300), on(1, 12, load=0.0, since=AT - 200), load=1.0)) == [0]
    assert sorted(drained(seen(*two, load=2.0, removed=True))) == [0, 1]


def test_what_was_read_a_moment_ago_is_still_reserved() -> None:
    policy = Policy()
    found = seen(on(0, 3), load=2.0, recent=45.0).services[0]
    assert needed(found, policy, AT, 60.0, 0.9) == 1
    assert reserve(found, policy, AT, 60.0) == 4
    assert reserve(msgspec.structs.replace(found, recent=None), policy, AT, 60.0) == 0


def test_learned_numbers_count() -> None:
    told = Carries(per_replica=5.0, learned=True, why="above 5 first tokens came late")
    found = seen(on(0, 3), load=12.0, capacity=told, lead=Lead(seconds=33.0, why="")).services[0]
    wanted = need(found, Policy(), AT)
    assert wanted.now == 3
    assert "first tokens came late" in wanted.why
    assert lead_time(found) == 33.0
