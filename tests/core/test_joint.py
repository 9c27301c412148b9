"""Several replicas at once: against brute force, jobs on several nodes, waiting instead of evicting, spreading."""

from itertools import combinations, product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, filled_views, replica, service, view

from coloc_topology.fit import fit_table
from coloc_topology.shape import Shape, bits, mask_of
from colocd.core.actions import Place, encode_plan
from colocd.core.index import PlannerIndex
from colocd.core.openings import open_keys
from colocd.core.plan import plan
from colocd.core.reclaim import ground
from colocd.core.search import NEVER
from colocd.core.service import Mode, ServiceSpec
from colocd.core.together import Want, place_all
from colocd.core.view import HandoverBrief, Reading, ServiceView, View


def places(v: View) -> list[Place]:
    return [a for a in plan(v).actions if isinstance(a, Place)]


def lacking(many: int, name: str = "chat", **changes: object) -> ServiceView:
    return ServiceView(spec=service(name, min_replicas=many, **changes), load=Reading(1.0, AT))


Seat = tuple[str, int, bool, frozenset[str]]


def seats(v: View, spec: ServiceSpec) -> list[Seat]:
    """(node, GPUs, waits, jobs on them) of every place a replica could have."""
    land = ground(v)
    found: list[Seat] = []
    for node in v.nodes:
        table = fit_table(v.shapes[node.shape or ""])
        held = {r: (j.gpus or {})[node.name] for r, j in land.victims.items() if node.name in (j.gpus or {})}
        reach = land.free[node.name] | mask_of(i for m in held.values() for i in bits(m))
        for members in combinations(bits(reach), spec.gpus_per_replica):
            gpus = mask_of(members)
            if table.level_of(gpus) >= spec.level:
                jobs = frozenset(r for r, m in held.items() if m & gpus)
                found += [(node.name, gpus, waits, jobs) for waits in (False, True)]
    return found


def cheapest_pair(v: View, one: ServiceSpec, two: ServiceSpec) -> float | None:
    """Least cost of a replica of each, by looking at all pairs of places."""
    costs = ground(v).costs
    best: float | None = None
    for a, b in product(seats(v, one), seats(v, two)):
        if (a[0] == b[0] and (a[1] & b[1] or (not a[2] and not b[2]))) or (a[2] and b[2] and (a[3] or b[3])):
            continue
        paid = (frozenset() if a[2] else a[3], frozenset() if b[2] else b[3])
        if paid[0] & paid[1] or (a[2] and not a[3] <= paid[1]) or (b[2] and not b[3] <= paid[0]):
            continue
        cost = sum(costs[r] for r in paid[0] | paid[1])
        best = cost if best is None or cost < best else best
    return best


@st.composite
def with_wide_jobs(draw: st.DrawFn) -> View:
    """A filled view of two nodes in which some pairs of jobs are one job on both."""
    v = draw(filled_views().filter(lambda v: len(v.nodes) == 2))
    first = [j for j in v.jobs if j.gpus and "n1" in j.gpus and j.checkpoint is not None]
    second = [j for j in v.jobs if j.gpus and "n2" in j.gpus]
    jobs = {j.ref: j for j in v.jobs}
    for a, b in zip(first, second, strict=False):
        if draw(st.booleans()):
            del jobs[b.ref]
            jobs[a.ref] = msgspec.structs.replace(a, gpus={**(a.gpus or {}), **(b.gpus or {})})
    return msgspec.structs.replace(v, jobs=tuple(sorted(jobs.values(), key=lambda j: j.order)))


@settings(max_examples=60, deadline=None)
@given(with_wide_jobs(), st.sampled_from([(2, 2), (4, 2), (4, 4), (1, 2)]))
def test_two_replicas_cost_the_least_of_all_pairs(v: View, sizes: tuple[int, int]) -> None:
    spec = msgspec.structs.replace(v.services[0].spec, mode=Mode.GUARANTEED)
    one, two = (msgspec.structs.replace(spec, name=f"s{i}", gpus_per_replica=size) for i, size in enumerate(sizes))
    land = ground(v)
    joint = place_all(land, [Want(one, 1), Want(two, 1)])
    best = cheapest_pair(v, one, two)
    if best is None:
        assert sum(len(s) for s in joint.spots) < 2
        return
    assert [len(s) for s in joint.spots] == [1, 1]
    gone = [job.ref for spots in joint.spots for spot in spots for job in spot.victims]
    assert len(gone) == len(set(gone)), "a job is paid once"
    assert sum(land.costs[ref] for ref in gone) == pytest.approx(best, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(filled_views(), min_size=1, max_size=4))
def test_a_warm_index_gives_the_same_plan(views: list[View]) -> None:
    index = PlannerIndex()
    for at, v in enumerate(views):
        now = msgspec.structs.replace(v, at=v.at + at)
        assert encode_plan(plan(now, index)) == encode_plan(plan(now))
        fewer = msgspec.structs.replace(now, jobs=now.jobs[1:], at=now.at + 400)
        assert encode_plan(plan(fewer, index)) == encode_plan(plan(fewer))
        spent = msgspec.structs.replace(
            fewer, facts={r: msgspec.structs.replace(f, evictions=3) for r, f in fewer.facts.items()}
        )
        assert encode_plan(plan(spent, index)) == encode_plan(plan(spent))


def test_an_index_is_not_built_again_for_other_jobs() -> None:
    index = PlannerIndex()
    v = view(batch(1, {"n1": 0b11}), batch(2, {"n2": 0b1100}), nodes=2)
    assert index.update(v) == 2
    assert index.update(v) == 0
    moved = view(batch(1, {"n1": 0b11}), batch(2, {"n2": 0b110000}), nodes=2)
    assert index.update(moved) == 1
    assert index.rebuilds == 1
    assert index.update(view(batch(1, {"n1": 0b11}), nodes=1)) == 1
    assert index.rebuilds == 2


def test_one_big_victim_instead_of_two() -> None:
    """Each small job alone is cheaper than the big one; for two replicas the big one is cheaper than both."""
    v = view(
        batch(1, {"n1": 0xFF}, started=AT - 330),
        batch(2, {"n2": 0x0F}, started=AT - 600),
        batch(3, {"n2": 0xF0}, checkpoint=None),
        batch(4, {"n3": 0x0F}, started=AT - 600),
        batch(5, {"n3": 0xF0}, checkpoint=None),
        nodes=3,
        services=(lacking(2, gpus_per_replica=4),),
    )
    (place,) = places(v)
    assert place.victims == ("1",)
    (note,) = (n for n in plan(v).notes if n.subject == "service:chat")
    assert "wait" in note.text


def test_what_a_wide_victim_frees_elsewhere_costs_nothing() -> None:
    v = view(
        batch(1, {"n1": 0x0F, "n2": 0x0F}, started=AT - 400),
        batch(2, {"n1": 0xF0}, checkpoint=None),
        batch(3, {"n2": 0xF0}, started=AT - 400),
        nodes=2,
        services=(lacking(2, gpus_per_replica=4),),
    )
    assert [p.victims for p in places(v)] == [("1",)]


def test_a_replica_waits_for_free_gpus_rather_than_evict() -> None:
    """The second replica fits on free GPUs of the node that the first one's handover closes."""
    v = view(batch(1, {"n2": 0xFF}, started=AT - 400), nodes=2, services=(lacking(2, gpus_per_replica=4),))
    (place,) = places(v)
    assert (list(place.places), place.victims) == (["n1"], ())
    begun = msgspec.structs.replace(
        v,
        nodes=(msgspec.structs.replace(v.nodes[0], fence="coloc-1"), v.nodes[1]),
        services=(
            msgspec.structs.replace(v.services[0], replicas=(replica(0, places=place.places, node="n1", job="90"),)),
        ),
        handovers=(HandoverBrief(id=1, service="chat", slot=0, places=place.places, victims=(), state="fenced"),),
    )
    assert places(begun) == [], "the second one keeps waiting for the node"


def test_gpus_that_a_replica_waits_for_go_to_no_batch_job() -> None:
    v = view(
        batch(1, {"n1": 0x0F, "n2": 0x0F}, started=AT - 400),
        batch(2, {"n1": 0xF0}, checkpoint=None),
        batch(7, gpus_requested=4),
        nodes=2,
        services=(lacking(2, gpus_per_replica=8, link_level="SYS"),),
    )
    # Replica 0 may sit on n2 (four free GPUs, four of job 1); the second has no place: nothing of n2 is filled.
    actions = plan(v).actions
    assert [type(a).__name__ for a in actions] == ["Place"]


def test_replicas_that_spread_share_no_node() -> None:
    v = view(nodes=2, services=(lacking(3, spread=True),))
    assert sorted(name for p in places(v) for name in p.places) == ["n1", "n2"]
    assert any("needs 3 replicas" in n.text for n in plan(v).notes)
    one = msgspec.structs.replace(v.services[0], replicas=(replica(0, places={"n1": 0b11}, node="n1", job="90"),))
    assert [list(p.places) for p in places(msgspec.structs.replace(v, services=(one,)))] == [["n2"]]
    together = view(nodes=2, services=(lacking(3),))
    assert any("wait" in n.text for n in plan(together).notes)


def test_a_large_joint_request_says_that_it_gave_up() -> None:
    # Each replica needs a cheap and a dear job; that the plan is near the cheapest is shown where all are served.
    cheap = [batch(i, {f"n{i}": 0x33}, started=AT - 300 - i) for i in range(1, 61)]
    dear = [batch(100 + i, {f"n{i}": 0xCC}, started=AT - 3000 - i) for i in range(1, 61)]
    services = tuple(lacking(10, name, max_replicas=10, gpus_per_replica=4) for name in "abcd")
    v = view(*cheap, *dear, nodes=60, services=services)
    assert len([a for a in plan(v).actions if isinstance(a, Place)]) == 20
    assert not any("not all tried" in n.text for n in plan(v).notes)
    few = view(*cheap[:9], *dear[:9], nodes=9, services=services)
    assert any(n.subject == "coloc" and "may cost over 2 % less" in n.text for n in plan(few).notes)


def test_a_chain_of_shared_jobs_is_evicted_together() -> None:
    """Job i is on nodes i and i+1: one of the chain alone is dear for what it gives, all of them are the cheapest plan."""
    chain = [batch(i, {f"n{i}": 0xF0, f"n{i + 1}": 0x0F}, started=AT - 700) for i in range(1, 5)]
    ends = [batch(10, {"n1": 0x0F}, checkpoint=None), batch(11, {"n5": 0xF0}, checkpoint=None)]
    single = [batch(20 + i, {f"n{5 + i}": 0xFF}, started=AT - 1300) for i in range(1, 5)]
    v = view(*chain, *ends, *single, nodes=9)
    land = ground(v)
    wants = [Want(service("a", gpus_per_replica=4), 4), Want(service("b", gpus_per_replica=4), 4)]
    joint = place_all(land, wants)
    gone = sorted(job.ref for spots in joint.spots for spot in spots for job in spot.victims)
    assert [len(spots) for spots in joint.spots] == [4, 4]
    assert not joint.gave_up
    assert gone == ["1", "2", "3", "4"]


@st.composite
def with_chains(draw: st.DrawFn) -> View:
    """Three small nodes in which jobs may be on two neighbouring nodes."""
    jobs = []
    left = {f"n{i}": list(range(4)) for i in range(1, 4)}
    number = 1
    for i in range(1, 4):
        name, other = f"n{i}", f"n{i % 3 + 1}"
        while left[name]:
            size = min(len(left[name]), draw(st.sampled_from([1, 2, 2, 4])))
            gpus = {name: mask_of(left[name][:size])}
            del left[name][:size]
            if draw(st.booleans()) and other != name and len(left[other]) >= size:
                gpus[other] = mask_of(left[other][:size])
                del left[other][:size]
            age = draw(st.sampled_from([400.0, 700.0, 1500.0, 3000.0]))
            jobs.append(batch(number, gpus, started=AT - age - number))
            number += 1
    nodes = view(nodes=3).nodes
    small = Shape("small", tuple(tuple("X" if i == j else "NV4" for j in range(4)) for i in range(4)))
    used = {n.name: 0 for n in nodes}
    for job in jobs:
        for name, mask in (job.gpus or {}).items():
            used[name] |= mask
    placed = tuple(msgspec.structs.replace(n, gpus=4, shape="small", used=used[n.name]) for n in nodes)
    return msgspec.structs.replace(view(*jobs, nodes=3), shapes={"small": small}, nodes=placed)


def cheapest_many(v: View, spec: ServiceSpec, many: int) -> float | None:
    """Least cost of so many replicas by looking at all ways to pick seats: one that pays a node, others wait for what is paid."""
    costs = ground(v).costs
    options = seats(v, spec)
    best: float | None = None
    for chosen in combinations(options, many):
        pays = [s for s in chosen if not s[2]]
        if len({s[0] for s in pays}) < len(pays):
            continue
        paid = [r for s in pays for r in s[3]]
        if len(set(paid)) < len(paid) or not all(s[3] <= set(paid) for s in chosen if s[2]):
            continue
        if any(a[0] == b[0] and a[1] & b[1] for a, b in combinations(chosen, 2)):
            continue
        cost = sum(costs[r] for r in paid)
        best = cost if best is None or cost < best else best
    return best


@settings(max_examples=40, deadline=None)
@given(with_chains(), st.sampled_from([(2, 3), (1, 2), (4, 2), (2, 2)]))
def test_replicas_on_nodes_that_share_jobs_cost_the_least_of_all_ways(v: View, asked: tuple[int, int]) -> None:
    size, many = asked
    spec = service("a", gpus_per_replica=size)
    land = ground(v)
    joint = place_all(land, [Want(spec, many)])
    best = cheapest_many(v, spec, many)
    assert (best is None) == (len(joint.spots[0]) < many)
    if best is not None:
        gone = {job.ref for spot in joint.spots[0] for job in spot.victims}
        assert not joint.gave_up
        assert sum(land.costs[ref] for ref in gone) == pytest.approx(best, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(filled_views(), st.sampled_from([1, 2, 4]), st.integers(1, 3), st.booleans())
def test_bounds_instead_of_keys_give_the_same_cheapest_nodes(v: View, size: int, enough: int, strict: bool) -> None:
    mode = Mode.GUARANTEED if strict else Mode.BEST_EFFORT
    spec = service(gpus_per_replica=size, link_level="NVLINK", mode=mode)
    exact = open_keys(ground(v), spec)
    found = open_keys(ground(v), spec, enough)
    assert (found <= exact).all()
    cheapest = sorted(exact.tolist())[:enough]
    assert sorted(found.tolist())[:enough] == cheapest
    last = cheapest[-1] if enough <= len(cheapest) else NEVER
    assert ((found <= last) == (exact <= last)).all()
