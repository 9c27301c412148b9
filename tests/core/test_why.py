"""Every node that is not chosen can be explained."""

from hypothesis import given, settings
from tests.helpers.views import AT, batch, filled_views, service, view

from colocd.core.reclaim import choose, ground
from colocd.core.view import View
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


def test_reasons_of_many_nodes_are_counted() -> None:
    jobs = tuple(batch(i, {f"n{i}": 0xFF}, checkpoint=None) for i in range(1, 21))
    text = where(service(), ground(view(*jobs, nodes=20)))
    assert "n1 and 19 more only 0 GPUs are free or can be freed" in text
    assert len(text) < 200
