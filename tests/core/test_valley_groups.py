"""A valley keeps room for replicas on several nodes and for pairs as whole places, near each other."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_groups import located
from tests.helpers.views import AT, batch, filled_views, replica, service, view

from colocd.core.actions import Place
from colocd.core.plan import plan
from colocd.core.reclaim import ground
from colocd.core.service import Closeness
from colocd.core.tide import tide
from colocd.core.valleys import kept_back
from colocd.core.view import Reading, ServiceView, View


def kept(v: View) -> dict[str, int]:
    land = ground(v)
    found = kept_back(v, land, 3600.0, {}).tolist()
    return {name: mask for name, mask in zip(land.index.row, found, strict=True) if mask}


def asks(name: str, **facts: object) -> ServiceView:
    return ServiceView(spec=service(name, **{"max_replicas": 1, **facts}), load=Reading(1.0, AT))


PAIR = (asks("prefill", gpus_per_replica=4, beside="decode"), asks("decode", gpus_per_replica=8, link_level="SYS"))


def test_a_replica_on_two_nodes_keeps_two_nodes_of_one_leaf() -> None:
    wide = asks("wide", nodes=2, gpus_per_replica=8, link_level="SYS", closeness=Closeness.LEAF)
    v = view(batch(1, {"n2": 0xFF}, checkpoint=None), nodes=4, services=(wide,))
    near = located(v, n1="x", n2="x", n3="y", n4="y")
    assert kept(near) == {"n3": 0xFF, "n4": 0xFF}
    far = located(v, n1="x", n2="x", n3="y", n4="z")
    assert kept(far) == {"n1": 0xFF, "n3": 0xFF}, "what fits nowhere near keeps its parts one by one"


def test_a_pair_keeps_room_for_both_near_each_other() -> None:
    jobs = (batch(1, {"n1": 0xF0}, checkpoint=None), batch(2, {"n2": 0xFF}, checkpoint=None))
    v = located(view(*jobs, nodes=4, services=PAIR), n1="x", n2="x", n3="y", n4="y")
    assert kept(v) == {"n3": 0xFF, "n4": 0x0F}, "each alone would keep n1 for prefill, where decode never fits"
    free = {name: 8 * (name > "n2") - mask.bit_count() for name, mask in kept(v).items()}
    assert free == {"n3": 0, "n4": 4}
    slot = tide(v, 3600.0, 3600.0).slots[0]
    assert (slot.needs, slot.free) == ({"decode": 1, "prefill": 1}, 8), "the 4 of n1 and 4 of n4"


def test_a_partner_keeps_room_beside_the_one_that_is_there() -> None:
    there = msgspec.structs.replace(PAIR[1], replicas=(replica(0, name="decode", node="n4", places={"n4": 0xFF}),))
    jobs = (batch(1, {"n1": 0xF0}, checkpoint=None), batch(2, {"n4": 0xFF}, checkpoint=None))
    v = located(view(*jobs, nodes=4, services=(PAIR[0], there)), n1="x", n2="x", n3="y", n4="y")
    assert kept(v) == {"n3": 0x0F}


def test_one_more_than_its_partners_is_kept_beside_a_pair() -> None:
    two = msgspec.structs.replace(PAIR[0], spec=msgspec.structs.replace(PAIR[0].spec, min_replicas=2, max_replicas=2))
    v = located(view(nodes=4, services=(two, PAIR[1])), n1="x", n2="x", n3="y", n4="y")
    found = kept(v)
    assert sum(mask.bit_count() for mask in found.values()) == 16
    assert set(found) in ({"n1", "n2"}, {"n3", "n4"})


def test_replicas_that_spread_keep_a_node_each() -> None:
    spread = asks("chat", gpus_per_replica=2, min_replicas=3, max_replicas=3, spread=True)
    assert kept(view(nodes=4, services=(spread,))) == {"n1": 0b11, "n2": 0b11, "n3": 0b11}
    there = msgspec.structs.replace(spread, replicas=(replica(0, node="n1", places={"n1": 0b11}),))
    busy = batch(1, {"n1": 0b11}, checkpoint=None)
    assert kept(view(busy, nodes=3, services=(there,))) == {"n2": 0b11, "n3": 0b11}
    wide = asks("wide", nodes=2, gpus_per_replica=2, min_replicas=2, max_replicas=2, spread=True)
    assert set(kept(view(nodes=4, services=(wide,)))) == {"n1", "n2", "n3", "n4"}


@settings(max_examples=60, deadline=None)
@given(
    filled_views(),
    st.integers(1, 2),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.lists(st.sampled_from(["x", "y"]), min_size=3, max_size=3),
)
def test_what_is_kept_is_enough(v: View, nodes: int, one: int, two: int, pair: bool, leaves: list[str]) -> None:
    """If a group fits on free GPUs at all, it also fits when everything that is not kept is given away."""
    first = asks("wide", nodes=nodes, gpus_per_replica=one, closeness=Closeness.LEAF, beside="mate" if pair else None)
    services = (first, *((asks("mate", gpus_per_replica=two),) if pair else ()))
    jobs = tuple(msgspec.structs.replace(j, checkpoint=None) for j in v.jobs if j.gpus)[::2]
    used = dict.fromkeys((n.name for n in v.nodes), 0)
    for job in jobs:
        for name, mask in (job.gpus or {}).items():
            used[name] |= mask
    where = {f"n{k}": leaf for k, leaf in enumerate(leaves, start=1)}
    known = tuple(msgspec.structs.replace(n, used=used[n.name], leaf=where[n.name]) for n in v.nodes)
    v = msgspec.structs.replace(v, services=services, jobs=jobs, nodes=known, facts={})
    if sum(isinstance(a, Place) for a in plan(v).actions) < len(services):
        return
    left = kept(v)
    full = tuple(msgspec.structs.replace(n, used=0xFF & ~left.get(n.name, 0)) for n in v.nodes)
    again = plan(msgspec.structs.replace(v, nodes=full))
    assert sum(isinstance(a, Place) for a in again.actions) == len(services), (left, again.notes)
