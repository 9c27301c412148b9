"""Many replicas at once, by prices: no plan costs less than the bound, every plan can be carried out and is near the cheapest."""

from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.core.test_relevant import crowd, gone
from tests.helpers.views import AT, SHAPES, batch, service, view

from coloc_topology.fit import fit_table
from colocd.core.actions import encode_plan
from colocd.core.index import PlannerIndex
from colocd.core.many import ManySolver
from colocd.core.plan import plan
from colocd.core.prices import worth
from colocd.core.reclaim import ground
from colocd.core.relevant import Relevance, unit_floors
from colocd.core.search import NEVER, job_key
from colocd.core.service import ServiceSpec
from colocd.core.together import Joint, Want, place_all
from colocd.core.victims import COST_SCALE
from colocd.core.view import Reading, ServiceView, View

ASKED = [((1, 3), (2, 2)), ((4, 3), (4, 2)), ((2, 3), (4, 2)), ((1, 4), (2, 3), (4, 3)), ((1, 9),), ((8, 2), (1, 5))]


def wanted(asked: tuple[tuple[int, int], ...], spread: bool = False) -> list[Want]:
    return [
        Want(service(name, gpus_per_replica=size, link_level="SYS", spread=spread and name == "a"), many)
        for name, (size, many) in zip("abc", asked, strict=False)
    ]


def by_prices(v: View, wants: list[Want]) -> Joint:
    """The plan when there are too many combinations for the exact search."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("colocd.core.together.MOST_STATES", 1)
        return place_all(ground(v), wants)


def bound(v: View, wants: list[Want], joint: Joint) -> int:
    land = ground(v)
    used = [spot.row for spots in joint.spots for spot in spots]
    return ManySolver(land, wants, Relevance(land, wants), used, joint.score[-1]).solve().bound


def check(v: View, wants: list[Want], joint: Joint) -> None:
    """The plan can be carried out: each GPU is free or freed, given once; each job is paid once, one handover a node."""
    land = ground(v)
    refs = gone(joint)
    assert len(refs) == len(set(refs))
    room = {node.name: node.free for node in v.nodes}
    for ref in refs:
        for name, mask in (land.victims[ref].gpus or {}).items():
            room[name] |= mask
    begun = [spot.row for spots in joint.spots for spot in spots if not spot.waits]
    assert len(begun) == len(set(begun))
    for want, spots in zip(wants, joint.spots, strict=True):
        rows = [spot.row for spot in spots]
        assert not want.spec.spread or len(rows) == len(set(rows))
        for spot in spots:
            node = land.index.nodes[spot.row]
            assert spot.gpus.bit_count() == want.spec.gpus_per_replica
            assert fit_table(v.shapes[node.shape or ""]).level_of(spot.gpus) >= want.spec.level
            assert spot.gpus & ~room[node.name] == 0
            room[node.name] &= ~spot.gpus
    cost = sum(job_key(round(land.costs[ref] * COST_SCALE)) for ref in refs)
    assert joint.score[-1] == cost + sum(spot.waits for spots in joint.spots for spot in spots)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 20), st.booleans(), st.sampled_from(ASKED), st.booleans())
@example(404, True, ((1, 3), (2, 2)), False)
def test_the_bound_holds_and_the_plan_is_within_what_it_says(
    seed: int, wide: bool, asked: tuple[tuple[int, int], ...], spread: bool
) -> None:
    v = crowd(Random(seed), 12, wide)
    wants = wanted(asked, spread)
    exact, joint = place_all(ground(v), wants), by_prices(v, wants)
    check(v, wants, joint)
    if any(len(spots) < want.many for spots, want in zip(exact.spots, wants, strict=True)):
        return
    least = exact.score[-1]
    assert bound(v, wants, joint) <= least
    if not exact.gave_up:
        assert joint.score[-1] >= least
    if not joint.gave_up:
        assert 100 * joint.score[-1] <= 102 * least
    if joint.less is not None:
        assert 100 * least >= (100 - joint.less) * joint.score[-1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 20), st.booleans(), st.sampled_from(ASKED))
def test_no_victim_can_stay_where_it_is(seed: int, wide: bool, asked: tuple[tuple[int, int], ...]) -> None:
    """Each victim holds GPUs of a place, or makes room on a node for one that could not be there without it."""
    v = crowd(Random(seed), 12, wide)
    joint = by_prices(v, wanted(asked))
    land = ground(v)
    for spots in joint.spots:
        for spot in spots:
            name = land.index.nodes[spot.row].name
            for job in spot.victims:
                assert (job.gpus or {})[name] & spot.gpus, "a victim makes room for the replica that starts"


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1 << 20), st.booleans())
def test_an_index_kept_up_to_date_gives_the_same_plan(seed: int, wide: bool) -> None:
    services = tuple(
        ServiceView(
            spec=service(name, gpus_per_replica=size, min_replicas=many, max_replicas=many), load=Reading(1.0, AT)
        )
        for name, size, many in (("a", 1, 9), ("b", 2, 8), ("c", 4, 7), ("d", 4, 7))
    )
    index = PlannerIndex()
    for at in range(3):
        v = crowd(Random(seed + at), 20, wide)
        now = msgspec.structs.replace(v, at=v.at + at, services=services)
        assert encode_plan(plan(now, index)) == encode_plan(plan(now))


def test_sixty_four_replicas_are_near_the_cheapest_plan() -> None:
    """One service after the other each takes the nodes that another would make more of."""
    v = crowd(Random(3), 80, wide=False)
    wants = [Want(service(name, gpus_per_replica=size), 16) for name, size in zip("abcd", (1, 2, 4, 4), strict=True)]
    joint = place_all(ground(v), wants)
    check(v, wants, joint)
    assert [len(spots) for spots in joint.spots] == [16] * 4
    assert not joint.gave_up
    assert 100 * joint.score[-1] <= 101 * bound(v, wants, joint)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("colocd.core.many.ManySolver.solve", lambda _: (0, None))
        assert place_all(ground(v), wants).score[-1] > 1.1 * joint.score[-1]


def test_a_job_on_two_nodes_serves_replicas_of_several_services_on_both() -> None:
    """For two replicas of one service a job on two whole nodes is too dear, for all eight two such jobs are the cheapest."""
    pairs = [batch(k, {f"n{2 * k - 1}": 0xFF, f"n{2 * k}": 0xFF}, started=AT - 500 - k) for k in (1, 2)]
    cheap = [batch(10 + n, {f"n{n}": 0x0F}, started=AT - 800) for n in range(5, 15)]
    dear = [batch(30 + n, {f"n{n}": 0xF0}, checkpoint=None) for n in range(5, 15)]
    v = view(*pairs, *cheap, *dear, nodes=14)
    wants = [Want(service(name, gpus_per_replica=4, link_level="SYS"), 2) for name in "abcd"]
    joint = by_prices(v, wants)
    check(v, wants, joint)
    assert gone(joint) == ["1", "2"]
    assert not joint.gave_up
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("colocd.core.many.ManySolver.solve", lambda _: (0, None))
        assert len(gone(by_prices(v, wants))) > 2


def test_a_crowd_of_jobs_on_two_nodes_is_planned_cheaper_than_one_service_after_the_other() -> None:
    v = crowd(Random(5), 60, wide=True)
    wants = [Want(service(name, gpus_per_replica=size), 10) for name, size in zip("abcd", (1, 2, 4, 4), strict=True)]
    joint = place_all(ground(v), wants)
    check(v, wants, joint)
    assert bound(v, wants, joint) <= joint.score[-1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("colocd.core.many.ManySolver.solve", lambda _: (0, None))
        assert place_all(ground(v), wants).score[-1] > 1.05 * joint.score[-1]


def test_services_that_ask_for_the_same_are_served_by_priority() -> None:
    """Two services whose replicas are alike: those of the first start, those of the second wait for the same handover."""
    jobs = [batch(k, {f"n{k}": 0xFF}, started=AT - 400 - 100 * k) for k in range(1, 5)]
    wants = wanted(((4, 2), (4, 2)))
    land = ground(view(*jobs, nodes=4))
    picked = ManySolver(land, wants, Relevance(land, wants), [], 1 << 40).solve().picked
    assert picked is not None
    starts = [None if option.starts is None else option.starts[0] for _, _, option in picked]
    assert [(row, vector) for row, vector, _ in picked] == [(0, (1, 1)), (1, (1, 1))]
    assert starts == [0, 0]


def test_what_the_cheapest_gpus_cost_is_no_more_than_any_replica_there() -> None:
    v = view(batch(1, {"n1": 0x0F}, started=AT - 400), batch(2, {"n1": 0x70}, started=AT - 2000), nodes=1)
    land = ground(v)
    floors = unit_floors(land, np.array([0]), 8, 4)[0].tolist()
    cheap, dear = (job_key(round(land.costs[ref] * COST_SCALE)) for ref in "12")
    # One GPU is free, four are the cheap job's, three the dear one's.
    assert floors[:5] == [0, cheap, cheap, cheap, cheap]
    assert floors[5:] == [cheap // 4 * 4 + dear // 3 * k for k in (1, 2, 3)]
    assert max(floors) < NEVER >> 6


@given(st.lists(st.integers(1, 50), min_size=3, max_size=3))
def test_what_a_node_is_worth_is_the_most_that_fits(prices: list[int]) -> None:
    found = worth(prices, [1, 2, 4], 8)
    for room in range(9):
        ways = [a * prices[0] + b * prices[1] + c * prices[2] for a in range(9) for b in range(5) for c in range(3)
                if a + 2 * b + 4 * c <= room]  # fmt: skip
        assert found[room] == max(ways)


def test_a_best_effort_plan_that_misses_levels_is_left_as_it_is() -> None:
    jobs = [batch(k, {f"n{k}": 0xFF}, started=AT - 400) for k in (1, 2)]
    spec: ServiceSpec = service("a", gpus_per_replica=4, link_level="NVLINK", mode="best-effort")
    v = view(*jobs, nodes=2, shape="pairs")
    joint = by_prices(v, [Want(spec, 2)])
    assert len(joint.spots[0]) == 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 20), st.sampled_from(ASKED))
@example(16, ((4, 3), (4, 2)))
@example(14, ((1, 4), (2, 3), (4, 3)))
def test_a_kind_of_node_on_which_nothing_pays(seed: int, asked: tuple[tuple[int, int], ...]) -> None:
    """Nodes of two kinds, those of the second dear; a kind of which no node is worth looking at has no offers at all."""
    v, rng = crowd(Random(seed), 12, wide=True), Random(seed)
    shapes = {**v.shapes, "pairs": SHAPES["pairs"]}
    nodes = tuple(msgspec.structs.replace(n, shape=rng.choice([n.shape, "pairs"])) for n in v.nodes)
    dear = {n.name for n in nodes if n.shape == "pairs"}
    jobs = tuple(msgspec.structs.replace(j, started=AT - 80_000) if dear & set(j.gpus or ()) else j for j in v.jobs)
    v = msgspec.structs.replace(v, shapes=shapes, nodes=nodes, jobs=jobs)
    wants = wanted(asked)
    check(v, wants, by_prices(v, wants))
