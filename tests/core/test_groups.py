"""Replicas on several nodes and services that belong together."""

from itertools import combinations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, service, view

from colocd.core.groups import Group, Part, choose_group, parts_of
from colocd.core.plan import plan
from colocd.core.reclaim import ground
from colocd.core.service import Closeness, Mode
from colocd.core.view import Job, Reading, ServiceView, View


def located(v: View, **where: str) -> View:
    """The view with leaf and NVLink domain per node: `n1="leaf/domain"`."""
    nodes = []
    for node in v.nodes:
        leaf, _, domain = where[node.name].partition("/")
        nodes.append(msgspec.structs.replace(node, leaf=leaf or None, nvlink_domain=domain or None, block="b"))
    return msgspec.structs.replace(v, nodes=tuple(nodes))


def rows(group: Group | None) -> list[list[int]]:
    assert group is not None
    return [[spot.row for spot in spots] for spots in group.spots]


def test_nodes_of_one_replica_are_on_one_leaf() -> None:
    v = located(view(batch(1, {"n2": 0xFF}, checkpoint=None), nodes=4), n1="x", n2="x", n3="y", n4="y")
    group, _ = choose_group(ground(v), [Part(service(gpus_per_replica=4), 2)], [Closeness.LEAF])
    assert rows(group) == [[2, 3]]
    assert group is not None
    assert group.domain == "y"
    none, reason = choose_group(ground(v), [Part(service(gpus_per_replica=4), 3)], [Closeness.LEAF])
    assert none is None
    assert "no leaf domain" in reason
    wide, _ = choose_group(ground(v), [Part(service(gpus_per_replica=4), 3)], [Closeness.LEAF, Closeness.ANY])
    assert rows(wide) == [[0, 2, 3]]


def test_unknown_domains_promise_nothing() -> None:
    v = view(nodes=2)
    none, reason = choose_group(ground(v), [Part(service(), 2)], [Closeness.NVLINK])
    assert none is None
    assert "known nvlink domain" in reason


def test_prefill_and_decode_sit_in_one_nvlink_domain_else_on_one_leaf() -> None:
    prefill, decode = (
        service("prefill", gpus_per_replica=4, beside="decode"),
        service("decode", gpus_per_replica=8, link_level="SYS"),
    )
    parts, near = parts_of(prefill, decode)
    assert near == (Closeness.NVLINK, Closeness.LEAF)
    busy = batch(1, {"n1": 0xFF}, checkpoint=None)
    v = located(view(busy, nodes=4), n1="x/d1", n2="x/d1", n3="x/d2", n4="x/d2")
    group, _ = choose_group(ground(v), parts, near)
    assert group is not None
    assert (group.closeness, group.domain) == (Closeness.NVLINK, "d2")
    full = located(
        view(busy, batch(2, {"n3": 0xFF}, checkpoint=None), nodes=4), n1="x/d1", n2="x/d1", n3="x/d2", n4="x/d2"
    )
    group, _ = choose_group(ground(full), parts, near)
    assert group is not None
    assert (group.closeness, group.domain) == (Closeness.LEAF, "x")
    both = located(view(nodes=1), n1="x/d1")
    small, near = parts_of(prefill, service("decode", gpus_per_replica=4))
    assert rows(choose_group(ground(both), small, near)[0]) == [[0], [0]], "both fit on one node"


def test_a_wide_victim_is_paid_once() -> None:
    jobs = (
        batch(1, {"n1": 0xFF, "n2": 0xFF}, started=AT - 2000),
        batch(2, {"n3": 0xFF}, started=AT - 1500),
        batch(3, {"n4": 0xFF}, started=AT - 3600),
    )
    land = ground(view(*jobs, nodes=4))
    group, _ = choose_group(land, [Part(service(gpus_per_replica=8, link_level="SYS"), 2)], [Closeness.ANY])
    assert group is not None
    assert sorted(rows(group)[0]) == [0, 1]
    assert [job.ref for spots in group.spots for spot in spots for job in spot.victims] == ["1"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from([0, 2, 4, 8]), min_size=3, max_size=5),
    st.integers(2, 3),
    st.randoms(use_true_random=False),
)
def test_groups_without_wide_jobs_cost_the_least(held: list[int], many: int, rng: object) -> None:
    jobs: list[Job] = []
    for i, count in enumerate(held, start=1):
        if count:
            started = AT - 300 - rng.randrange(3000)  # type: ignore[attr-defined]
            jobs.append(batch(i, {f"n{i}": (1 << count) - 1}, started=started))
    land = ground(view(*jobs, nodes=len(held)))
    spec = service(gpus_per_replica=8, link_level="SYS")
    group, _ = choose_group(land, [Part(spec, many)], [Closeness.ANY])
    costs = [land.costs.get(str(i), 0.0) for i in range(1, len(held) + 1)]
    best = min((sum(c) for c in combinations(costs, many)), default=None)
    assert (group is None) == (best is None)
    if group is not None and best is not None:
        assert land.cost([j for s in group.spots for p in s for j in p.victims]) == pytest.approx(best)


def test_preferences_follow_the_mode() -> None:
    firm = service(nodes=2, closeness=Closeness.LEAF)
    assert parts_of(firm, None)[1] == (Closeness.LEAF,)
    soft = msgspec.structs.replace(firm, mode=Mode.BEST_EFFORT)
    assert parts_of(soft, None)[1] == (Closeness.LEAF, Closeness.BLOCK, Closeness.ANY)


def test_groups_are_told_and_not_started() -> None:
    wide = ServiceView(spec=service(nodes=2, gpus_per_replica=8, link_level="SYS"), load=Reading(1.0, AT))
    result = plan(view(nodes=2, services=(wide,)))
    assert result.actions == ()
    (note,) = result.notes
    assert "not supported yet" in note.text
    assert "n1:0-7, n2:0-7" in note.text
    pair = ServiceView(spec=service(beside="decode"), load=Reading(1.0, AT))
    assert "decode is not known" in plan(view(services=(pair,))).notes[0].text
