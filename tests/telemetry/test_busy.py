"""Load from the GPUs of the replicas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.daemon_rig import SERVICE

from colocd.core.readings import NodeReadings
from colocd.core.service import Measure
from colocd.core.view import Replica, ReplicaState
from colocd.errors import BadFile
from colocd.servicefile import parse_service, service_warnings
from colocd.telemetry.busy import busy_load
from colocd.telemetry.targets import load_targets

TEXT = SERVICE.format(name="chat", port=1).replace('url = "http://127.0.0.1:1/metrics"', 'measure = "busy_gpus"')
SPEC = parse_service(TEXT, "chat.toml")


def read(*sm: int | None, at: float = 100.0) -> NodeReadings:
    return NodeReadings(at=at, sm=sm, used=(None,) * len(sm), power=(None,) * len(sm))


def replica(slot: int, gpus: int, state: ReplicaState = ReplicaState.READY, node: str = "n1") -> Replica:
    return Replica(service="chat", slot=slot, state=state, job=str(slot), node=node, places={node: gpus})


def test_the_sum_over_ready_and_draining_replicas() -> None:
    mine = [
        replica(0, 0b0011),
        replica(1, 0b1100, ReplicaState.DRAINING),
        replica(2, 0b0001, ReplicaState.STARTING, "n2"),
    ]
    found = busy_load(SPEC, mine, {"n1": read(50, 100, 20, 0, at=90.0), "n2": read(100)})
    assert found.reading is not None
    assert (round(found.reading.value, 9), found.reading.at) == (1.7, 90.0)
    assert (found.replicas[0], found.replicas[2], found.idle) == (1.5, None, frozenset())


@pytest.mark.parametrize("nodes", [{}, {"n1": read(50, None)}, {"n1": read(50)}, {"n1": read(None, None)}])
def test_what_is_not_told_makes_the_load_unknown(nodes: dict[str, NodeReadings]) -> None:
    found = busy_load(SPEC, [replica(0, 0b11)], nodes)
    assert (found.reading, found.replicas) == (None, {0: None})
    assert found.problems == ("service chat: load of replica 0 is unknown: there is no fresh reading of its GPUs",)


def test_without_a_ready_replica_it_is_unknown() -> None:
    for mine in ([], [replica(0, 1, ReplicaState.DRAINING)], [replica(0, 1, ReplicaState.PLACING)]):
        assert busy_load(SPEC, mine, {"n1": read(50)}).reading is None


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8))
def test_it_is_between_none_and_all_of_the_gpus(sm: list[int]) -> None:
    found = busy_load(SPEC, [replica(0, (1 << len(sm)) - 1)], {"n1": read(*sm)}).reading
    assert found is not None
    assert 0 <= found.value <= len(sm)


def test_the_service_file() -> None:
    assert (SPEC.load.measure, load_targets(SPEC, [replica(0, 1)], {"n1": "10.0.0.1"})) == (Measure.BUSY, ())
    assert any("tells work from none" in warning for warning in service_warnings(SPEC))
    with pytest.raises(BadFile, match=r"load\.url: must not be given"):
        parse_service(TEXT.replace("[ready]", 'url = "http://h/m"\n[ready]'), "f")
    with pytest.raises(BadFile, match=r"load\.url: is missing"):
        parse_service(TEXT.replace('measure = "busy_gpus"', ""), "f")


def test_a_replica_on_two_nodes_needs_the_readings_of_both() -> None:
    wide = Replica(service="chat", slot=0, state=ReplicaState.READY, job="1", node="n1", places={"n1": 0b1, "n2": 0b11})
    found = busy_load(SPEC, [wide], {"n1": read(50, at=90.0), "n2": read(100, 50)})
    assert found.reading is not None
    assert (found.reading.value, found.reading.at) == (2.0, 90.0)
    assert busy_load(SPEC, [wide], {"n1": read(50)}).reading is None
