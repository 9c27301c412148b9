"""Every node that is not chosen can be explained."""

import msgspec
from hypothesis import given, settings
from tests.helpers.views import AT, batch, filled_views, service, view

from colocd.core.ground import Ground
from colocd.core.reclaim import choose, ground
from colocd.core.service import Mode
from colocd.core.view import Node, View
from colocd.core.why import reasons, where, why_node


@settings(max_examples=40, deadline=None)
@given(filled_views())
def test_each_node_is_chosen_forbidden_or_dearer(v: View) -> None:
    spec, land = v.services[0].spec, ground(v)
    choice, told = choose(spec, v, land, {})
    assert told == reasons(spec, land)
    for node in v.nodes:
        text = why_node(spec, land, node.name)
        if choice is not None and node.name == choice.node:
            assert text.startswith("would go there")
        elif node.name in told:
            assert told[node.name] in text
        else:
            assert text.startswith("goes elsewhere")


def test_words() -> None:
    spec = service(gpus_per_replica=4)
    jobs = (
        batch(1, {"n1": 0x0F}, started=AT - 400),
        batch(2, {"n1": 0xF0}, started=AT - 5000),
        batch(3, {"n2": 0xFF}, started=AT - 1000),
        batch(4, {"n3": 0xFF}, started=AT - 10),
    )
    land = ground(view(*jobs, nodes=3))
    assert why_node(spec, land, "n1") == "would go there: GPUs 0-3 (NVLINK) from 1 for 2200 GPU-seconds"
    dear = why_node(spec, land, "n2")
    assert "from 3 for 8600 GPU-seconds; the best is n1" in dear
    assert dear.endswith("here it costs 6400 GPU-seconds more")
    assert "job 4 protected for another 290 s" in why_node(spec, land, "n3")
    assert why_node(spec, land, "n9") == "is not a node that Slurm has"
    assert where(spec, land).startswith("n3 only 0 GPUs")


def test_each_kind_of_refusal_has_its_words() -> None:
    """What forbids a node, from what will never change to what changes soon."""
    own = batch(9, {"n1": 0x0F}, checkpoint=None, comment="[coloc-own key=k.replica-0]")
    other = batch(8, {"n1": 0xE0}, checkpoint=None)
    land = ground(view(own, other))

    def said(land: Ground, **changes: object) -> str:
        return why_node(service("chat", **changes), land, "n1")

    assert said(land, gpus_per_replica=9).endswith("n1 has 8 GPUs, never 9")
    never = "n1 can never hold it: no 5 of its 8 GPUs reach NVLINK, even when all are free"
    assert said(land, gpus_per_replica=5).endswith(never)
    assert "never" not in said(land, gpus_per_replica=5, mode=Mode.BEST_EFFORT)
    few = "n1 only 1 GPUs are free or can be freed (job 8 not submitted through coloc; job 9 is one of coloc itself)"
    assert said(land).endswith(few)
    assert said(land, partition="other").endswith("n1 is not in partition other")
    apart = ground(view(batch(8, {"n1": 0b1110_1110}, checkpoint=None)))
    assert "n1 no 2 of GPUs 0,4 reach NVLINK (job 8" in said(apart)
    node = view().nodes[0]

    def of(**changes: object) -> Ground:
        return ground(with_node(node, **changes))

    assert "its topology is unknown" in said(of(shape=None))
    assert said(of(up=False, state="DOWN")).startswith("cannot go there: n1 ")
    assert said(of(reserved=True)).startswith("cannot go there: n1 ")
    assert said(of(used=None)).startswith("cannot go there: n1 ")
    assert "has too few CPUs: a replica needs 4" in said(of(cpus=8, cpus_used=6), cpus_per_replica=4)


def with_node(node: Node, **changes: object) -> View:
    return msgspec.structs.replace(view(), nodes=(msgspec.structs.replace(node, **changes),))


def test_reasons_of_many_nodes_are_counted() -> None:
    jobs = tuple(batch(i, {f"n{i}": 0xFF}, checkpoint=None) for i in range(1, 21))
    text = where(service(), ground(view(*jobs, nodes=20)))
    assert "n1 and 19 more only 0 GPUs are free or can be freed" in text
    assert len(text) < 200
