"""Replicas on several nodes and services that belong together."""

from itertools import combinations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, filled_views, replica, service, view

from colocd.core.actions import Place, encode_plan
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


def test_a_search_that_gave_up_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = ServiceView(
        spec=service(nodes=2, gpus_per_replica=8, link_level="SYS", closeness=Closeness.LEAF, min_replicas=1),
        load=Reading(1.0, AT),
    )
    # Two jobs on x share n5 only, so that halves of both are less than the one on both nodes of y, which is cheaper.
    jobs = [batch(k, {f"n{k}": 0xFF, "n5": 0xF0 if k == 1 else 0xF}, started=AT - 500) for k in (1, 2)]
    both = batch(3, {"n3": 0xFF, "n4": 0xFF}, started=AT - 700)
    where = {"n1": "x", "n2": "x", "n5": "x", "n3": "y", "n4": "y"}
    full = located(view(*jobs, both, nodes=5, services=(wide,)), **where)
    apart = [batch(k, {f"n{k}": 0xFF}, started=AT - 400 * k) for k in (1, 2, 3, 4)]
    sure = located(view(*apart, nodes=5, services=(wide,)), **where)
    free = located(view(nodes=5, services=(wide,)), **where)

    def told(v: View) -> list[str]:
        return [n.text for n in plan(v).notes if n.subject == "coloc"]

    assert told(full) == []
    assert [a.victims for a in plan(full).actions if isinstance(a, Place)] == [("3",)]
    monkeypatch.setattr("colocd.core.groups.MOST_STEPS", 1)
    assert "there may be cheaper ones" in told(full)[0]
    assert told(free) == [], "nothing is cheaper than free GPUs"
    assert told(sure) == [], "nodes that share no job cost what they look like"


def places(v: View) -> list[Place]:
    return [a for a in plan(v).actions if isinstance(a, Place)]


def test_a_replica_on_two_nodes_is_started_with_one_victim_on_both() -> None:
    wide = ServiceView(
        spec=service(nodes=2, gpus_per_replica=8, link_level="SYS", closeness=Closeness.LEAF, min_replicas=1),
        load=Reading(1.0, AT),
    )
    v = view(batch(1, {"n3": 0xFF, "n4": 0xFF}), batch(2, {"n1": 0xF}, checkpoint=None), nodes=4, services=(wide,))
    (place,) = places(located(v, n1="x", n2="x", n3="y", n4="y"))
    assert (place.places, place.victims, place.closeness) == ({"n3": 0xFF, "n4": 0xFF}, ("1",), "leaf")
    (note,) = [n for n in plan(v).notes if n.subject == "service:chat"]
    assert "no open node is in a known leaf domain" in note.text


def test_a_reclaim_over_several_nodes_tells_the_next_best_place() -> None:
    wide = ServiceView(
        spec=service(nodes=2, gpus_per_replica=8, link_level="SYS", closeness=Closeness.LEAF, min_replicas=1),
        load=Reading(1.0, AT),
    )
    jobs = (batch(1, {"n3": 0xFF, "n4": 0xFF}, started=AT - 400), batch(2, {"n1": 0xFF}, started=AT - 3000))
    where = {"n1": "x", "n2": "x", "n3": "y", "n4": "y"}
    (place,) = places(located(view(*jobs, nodes=4, services=(wide,)), **where))
    assert place.victims == ("1",)
    assert place.why.endswith("from 1 for 7000 GPU-seconds; the next best place is on n[1-2] for 24600"), place.why
    taken = batch(2, {"n1": 0xFF}, checkpoint=None)
    (place,) = places(located(view(jobs[0], taken, nodes=4, services=(wide,)), **where))
    assert place.why.endswith("; there is no other place for it")


def pair(**changes: object) -> tuple[ServiceView, ServiceView]:
    prefill = service("prefill", gpus_per_replica=4, beside="decode", **changes)
    decode = service("decode", gpus_per_replica=8, link_level="SYS")
    return ServiceView(spec=prefill, load=Reading(1.0, AT)), ServiceView(spec=decode, load=Reading(1.0, AT))


def test_a_pair_starts_as_one_decision() -> None:
    v = view(batch(1, {"n3": 0xFF, "n4": 0xFF}), batch(2, {"n1": 0xFF}, checkpoint=None), nodes=4, services=pair())
    lead, follower = places(located(v, n1="x", n2="x", n3="y", n4="y"))
    assert (lead.service, follower.service) == ("prefill", "decode")
    assert {*lead.places, *follower.places} == {"n3", "n4"}
    assert (lead.victims, follower.victims, follower.follows) == (("1",), (), "prefill/0")
    assert (lead.beside, follower.beside) == (tuple(follower.places), tuple(lead.places))
    assert lead.closeness == "leaf"


def test_a_partner_follows_near_the_one_that_is_there() -> None:
    prefill, decode = pair()
    there = msgspec.structs.replace(
        decode, replicas=(replica(0, name="decode", node="n4", places={"n4": 0xFF}, job="90"),)
    )
    v = located(view(batch(9, {"n4": 0xFF}, checkpoint=None), nodes=4, services=(prefill, there)),
                n1="x", n2="x", n3="y", n4="y")  # fmt: skip
    (place,) = places(v)
    assert (place.service, list(place.places), place.beside, place.follows) == ("prefill", ["n3"], ("n4",), None)
    full = msgspec.structs.replace(
        v, nodes=tuple(n if n.name != "n3" else msgspec.structs.replace(n, used=0xFF) for n in v.nodes)
    )
    assert places(full) == []
    assert any("beside decode on n4" in n.text and "no leaf domain" in n.text for n in plan(full).notes)


def test_whoever_comes_alone_leaves_room_for_its_partner() -> None:
    prefill, decode = pair()
    late = msgspec.structs.replace(prefill, retry_at=AT + 60)
    v = located(view(batch(1, {"n1": 0xFF}, checkpoint=None), nodes=4, services=(late, decode)),
                n1="x", n2="x", n3="y", n4="y")  # fmt: skip
    (place,) = places(v)
    assert place.service == "decode"
    assert next(iter(place.places)) in ("n3", "n4")


def test_on_an_unknown_network_a_pair_shares_a_node() -> None:
    prefill, _ = pair()
    decode = ServiceView(spec=service("decode", gpus_per_replica=4), load=Reading(1.0, AT))
    lead, follower = places(view(nodes=2, services=(prefill, decode)))
    assert list(lead.places) == list(follower.places)
    assert lead.closeness is None
    lonely = ServiceView(spec=service(beside="nobody"), load=Reading(1.0, AT))
    assert "nobody is not known" in plan(view(services=(lonely,))).notes[0].text


def test_what_a_pair_asks_of_its_own_nodes_holds_for_both() -> None:
    wide = service("prefill", nodes=2, closeness=Closeness.NVLINK, beside="decode")
    assert parts_of(wide, service("decode"))[1] == (Closeness.NVLINK,)
    soft = msgspec.structs.replace(wide, mode=Mode.BEST_EFFORT)
    assert parts_of(soft, service("decode"))[1] == tuple(Closeness)


@settings(max_examples=40, deadline=None)
@given(filled_views(), st.integers(1, 3), st.booleans(), st.booleans())
def test_plans_with_groups_are_feasible(v: View, nodes: int, together: bool, same_leaf: bool) -> None:
    """No GPU twice, no victim twice, every GPU free or freed by a victim of the plan, all nodes of a replica different."""
    groups = [msgspec.structs.replace(s.spec, nodes=nodes, gpus_per_replica=2) for s in v.services]
    if together and len(groups) > 1:
        groups[0] = msgspec.structs.replace(groups[0], beside=groups[1].name)
    services = tuple(msgspec.structs.replace(s, spec=g) for s, g in zip(v.services, groups, strict=True))
    known = tuple(msgspec.structs.replace(n, leaf="x" if same_leaf else None) for n in v.nodes)
    v = msgspec.structs.replace(v, services=services, nodes=known)
    first = plan(v)
    assert encode_plan(plan(v)) == encode_plan(first)
    found = [a for a in first.actions if isinstance(a, Place)]
    gone = [ref for a in found for ref in a.victims]
    assert len(gone) == len(set(gone))
    room = {n.name: n.free for n in v.nodes}
    for job in v.jobs:
        if job.ref in gone:
            for name, mask in (job.gpus or {}).items():
                room[name] |= mask
    for action in found:
        spec = next(s.spec for s in services if s.spec.name == action.service)
        assert len(action.places) == spec.nodes
        for name, mask in action.places.items():
            assert mask.bit_count() == spec.gpus_per_replica
            assert mask & ~room[name] == 0
            room[name] &= ~mask
