"""GPUs that have failed are never given out, whoever frees them, and are no batch job's either."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, filled_views, service, view

from coloc_topology.shape import bits
from colocd.core.actions import Place, Release, encode_plan
from colocd.core.index import PlannerIndex
from colocd.core.plan import plan
from colocd.core.readings import FailedGpu
from colocd.core.view import Node, Reading, ServiceView, View


def with_failed(v: View, masks: dict[str, int]) -> View:
    def mark(node: Node) -> Node:
        bad = tuple(FailedGpu(gpu, "XID 79") for gpu in bits(masks.get(node.name, 0)))
        return msgspec.structs.replace(node, unfit=bad)

    return msgspec.structs.replace(v, nodes=tuple(mark(node) for node in v.nodes))


@settings(max_examples=150, deadline=None)
@given(filled_views(), st.lists(st.integers(0, 255), min_size=3, max_size=3))
def test_no_place_is_on_a_failed_gpu(v: View, masks: list[int]) -> None:
    failed = {node.name: mask for node, mask in zip(v.nodes, masks, strict=False)}
    hurt = with_failed(v, failed)
    index = PlannerIndex()
    plan(v, index)  # the index knows the nodes as whole ones
    result = plan(hurt, index)
    assert encode_plan(result) == encode_plan(plan(hurt))
    for action in result.actions:
        if isinstance(action, Place):
            assert not any(gpus & failed.get(name, 0) for name, gpus in action.places.items())
        if isinstance(action, Release):
            by_name = {node.name: node for node in hurt.nodes}
            assert all(not by_name[n].failed & ~(by_name[n].used or 0) for n in action.nodes)
    assert encode_plan(plan(v, index)) == encode_plan(plan(v))  # and as whole ones again


def test_a_victim_is_not_taken_for_gpus_that_failed() -> None:
    """Both jobs of the node's left island cost the same to evict, but what one of them frees is of no use."""
    jobs = [batch(1, {"n1": 0b0000_0011}), batch(2, {"n1": 0b0000_1100}), batch(3, {"n1": 0b1111_0000})]
    wanted = ServiceView(spec=service("chat", gpus_per_replica=2, link_level="NVLINK"), load=Reading(1.0, AT))
    for mask, victim in ((0b0011, "2"), (0b1100, "1")):
        v = with_failed(view(*jobs, services=(wanted,), at=AT), {"n1": mask})
        (action,) = [a for a in plan(v).actions if isinstance(a, Place)]
        assert action.victims == (victim,)
