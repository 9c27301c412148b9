"""Some replicas of a service tell their load and others do not: nothing is given away, and what is told still counts."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.views import AT, replica, service, view

from colocd.core.actions import Drain, Place
from colocd.core.need import need
from colocd.core.plan import plan
from colocd.core.policy import Policy
from colocd.core.tide import tide
from colocd.core.view import ServiceView, View

POLICY = Policy()


def partly(*loads: float | None, most: int = 8) -> View:
    """A service of which each replica carries 10, one on each half of a node; its load as a whole is unknown."""
    halves = [(f"n{1 + i // 2}", 0b1111 << 4 * (i % 2)) for i in range(len(loads))]
    seats = tuple(
        replica(i, node=node, places={node: gpus}, load=load, since=AT - 9999)
        for i, (load, (node, gpus)) in enumerate(zip(loads, halves, strict=True))
    )
    return view(services=(ServiceView(spec=service(max_replicas=most), replicas=seats, load=None, low_since=1.0),))


def wanted(seen: View) -> int:
    return need(seen.services[0], POLICY, AT).now


def test_a_silent_replica_does_not_keep_the_others_load_from_counting() -> None:
    seen = partly(18.0, 17.0, None)
    told = need(seen.services[0], POLICY, AT)
    assert (told.have, told.now) == (3, 4)
    assert "those of its replicas that tell carry 35" in told.why
    assert any(isinstance(action, Place) for action in plan(seen).actions)
    assert wanted(partly(180.0, None, most=5)) == 5


def test_less_than_there_is_changes_nothing() -> None:
    for loads in ((1.0, 1.0, None), (None, None, None), (0.0, None, None)):
        seen = partly(*loads)
        assert wanted(seen) == 3
        assert "what runs stays" in need(seen.services[0], POLICY, AT).why
        assert not [action for action in plan(seen).actions if isinstance(action, Drain)]
        assert tide(seen, 3600.0, 1800.0).blind == ("chat",), "no valley"


@given(st.lists(st.none() | st.floats(0, 1e6), min_size=1, max_size=4))
def test_it_is_never_fewer_than_with_less_known(loads: list[float | None]) -> None:
    seen = partly(*loads)
    one = seen.services[0]
    blind = msgspec.structs.replace(one, replicas=tuple(msgspec.structs.replace(r, load=None) for r in one.replicas))
    assert need(blind, POLICY, AT).now == len(loads) <= wanted(seen) <= 8
