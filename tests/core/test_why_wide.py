"""Every node can be explained for a replica on several nodes and for a pair, too."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_groups import located, pair
from tests.helpers.views import AT, batch, filled_views, replica, service, view

from colocd.core.actions import Place
from colocd.core.plan import plan
from colocd.core.reclaim import ground
from colocd.core.service import Closeness
from colocd.core.view import Reading, ServiceView, View
from colocd.core.why_wide import why_place


def wide(**changes: object) -> ServiceView:
    facts: dict[str, object] = {"nodes": 2, "gpus_per_replica": 8, "link_level": "SYS", "closeness": Closeness.LEAF}
    spec = service("chat", **{**facts, **changes})
    return ServiceView(spec=spec, load=Reading(1.0, AT))


def why(v: View, node: str, name: str = "chat") -> str:
    return why_place(next(s for s in v.services if s.spec.name == name), v, ground(v), node)


def test_a_replica_on_two_nodes() -> None:
    jobs = (
        batch(1, {"n1": 0xFF}, started=AT - 400),
        batch(2, {"n3": 0xFF, "n4": 0xFF}, started=AT - 400),
        batch(3, {"n5": 0xFF}, checkpoint=None),
    )
    v = located(view(*jobs, nodes=7, services=(wide(),)),
                n1="x", n2="x", n3="y", n4="y", n5="z", n6="z", n7="")  # fmt: skip
    assert why(v, "n2") == (
        "would be part of its place: chat on GPUs 0-7 of n[1-2] (SYS), nodes in x (leaf), from 1 for 3800 GPU-seconds"
    )
    dear = why(v, "n3")
    assert dear.startswith(
        "goes elsewhere: here it would be chat on GPUs 0-7 of n[3-4] (SYS), nodes in y (leaf), from 2"
    )
    assert "; the best is chat on GPUs 0-7 of n[1-2]" in dear
    assert dear.endswith("here it costs 3200 GPU-seconds more")
    lonely = why(v, "n6")
    assert lonely.startswith(
        "cannot be part of a place: leaf z: 1 of 2 nodes have room for 8 GPUs of chat: n5 only 0 GPUs"
    )
    assert "job 3" in lonely
    assert why(v, "n5").startswith("cannot be part of a place: n5 only 0 GPUs are free")
    assert why(v, "n7").startswith("cannot be part of a place: its leaf domain is not known; the best is chat on")
    assert why(v, "n9") == "is not a node that Slurm has"


def test_nearer_comes_before_cheaper() -> None:
    soft = wide(mode="best-effort")
    v = view(batch(1, {"n1": 0xFF}, started=AT - 400), nodes=4, services=(soft,))
    v = located(v, n1="x", n2="x", n3="y", n4="")
    text = why(v, "n4")
    assert "nodes in b (block), all free" in text
    assert text.endswith("there the nodes are nearer each other (leaf)")


def test_a_pair_and_a_partner_that_is_there() -> None:
    prefill, decode = pair()
    busy = batch(9, {"n1": 0xFF}, checkpoint=None)
    v = located(view(busy, nodes=4, services=(prefill, decode)), n1="x", n2="x", n3="y", n4="y")
    text = why(v, "n3", "decode")
    assert text.startswith("would be part of its place: prefill on GPUs 0-3 of n")
    assert text.endswith("nodes in y (leaf), all free")
    alone = why(v, "n2", "prefill")
    assert "1 of 2 nodes have room for 4 GPUs of prefill" in alone
    assert "and 1 of 2 nodes have room for 8 GPUs of decode: n1 only 0 GPUs" in alone
    assert why(v, "n1", "prefill").startswith(
        "cannot be part of a place: n1 only 0 GPUs are free or can be freed (job 9"
    )
    there = msgspec.structs.replace(decode, replicas=(replica(0, name="decode", node="n4", places={"n4": 0xFF}),))
    seat = batch(7, {"n4": 0xFF}, checkpoint=None)
    v = located(view(busy, seat, nodes=4, services=(prefill, there)), n1="x", n2="x", n3="y", n4="y")
    assert why(v, "n3", "prefill").startswith("would be part of its place beside decode on n4: prefill on GPUs")
    far = why(v, "n2", "prefill")
    assert far.startswith("cannot be part of a place beside decode on n4: it is not in")
    lost = msgspec.structs.replace(v, services=(prefill,))
    assert why(lost, "n3", "prefill") == "goes nowhere: service decode is not known"


def test_a_node_with_a_replica_of_a_spread_service() -> None:
    spread = ServiceView(spec=service(spread=True), replicas=(replica(0, node="n1", places={"n1": 0b11}),))
    v = view(batch(1, {"n1": 0b11}, checkpoint=None), services=(spread,))
    assert why(v, "n1") == "cannot go there: n1 has a replica of chat already, and no node may have two"


def test_a_domain_without_room_is_explained_in_the_plan() -> None:
    v = view(batch(1, {"n2": 0xFF}, checkpoint=None), nodes=2, services=(wide(),))
    (note,) = [n for n in plan(located(v, n1="x", n2="x")).notes if n.subject == "service:chat"]
    assert "(x: 1 of 2 nodes have room for 8 GPUs of chat: n2 only 0 GPUs are free or can be freed" in note.text


@settings(max_examples=40, deadline=None)
@given(
    filled_views(), st.integers(1, 2), st.booleans(), st.lists(st.sampled_from(["x", "y", ""]), min_size=3, max_size=3)
)
def test_what_the_plan_takes_is_what_is_told(v: View, nodes: int, together: bool, leaves: list[str]) -> None:
    """The nodes of the first group that the plan places are the only ones that would be part of its place."""
    first = msgspec.structs.replace(
        v.services[0].spec, nodes=nodes, closeness=Closeness.LEAF, min_replicas=1, priority=1
    )
    specs = [first, *(msgspec.structs.replace(s.spec, gpus_per_replica=1) for s in v.services[1:])]
    if together and len(specs) > 1:
        specs[0] = msgspec.structs.replace(first, beside=specs[1].name)
    services = tuple(msgspec.structs.replace(s, spec=g) for s, g in zip(v.services, specs, strict=True))
    v = (
        located(msgspec.structs.replace(v, services=services), n1=leaves[0], n2=leaves[1], n3=leaves[2])
        if len(v.nodes) == 3
        else msgspec.structs.replace(v, services=services)
    )
    told = {node.name: why(v, node.name, first.name) for node in v.nodes}
    assert all(text.startswith(("would", "goes elsewhere", "cannot")) for text in told.values())
    places = [a for a in plan(v).actions if isinstance(a, Place) and a.service == first.name]
    if nodes > 1 and specs[0].beside is None and places:
        part = {name for name, text in told.items() if text.startswith("would be part")}
        assert part == set(places[0].places)
