"""Which nodes are looked at for several services: none that matters is left out, and the bound is one."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_joint import with_chains, with_wide_jobs
from tests.helpers.views import AT, batch, filled_views, service, view

from colocd.core.reclaim import ground
from colocd.core.relevant import Relevance
from colocd.core.search import job_key
from colocd.core.together import Joint, Want, place_all
from colocd.core.victims import COST_SCALE
from colocd.core.view import Job, View


def gone(joint: Joint) -> list[str]:
    return sorted(job.ref for spots in joint.spots for spot in spots for job in spot.victims)


def test_one_dear_job_serves_two_services_cheaper_than_two_cheap_ones() -> None:
    """More nodes than are combined at first are cheaper for any one replica than the node that has room for all."""
    small = [batch(k, {f"n{k}": 0x0F}, started=AT - 650 - k) for k in range(1, 41)]
    rest = [batch(100 + k, {f"n{k}": 0xF0}, checkpoint=None) for k in range(1, 41)]
    large = batch(99, {"n41": 0xFF}, started=AT - 500)
    land = ground(view(*small, *rest, large, nodes=41))
    assert max(land.costs[job.ref] for job in small) < land.costs["99"] < 2 * land.costs["1"]
    joint = place_all(land, [Want(service("a"), 2), Want(service("b", gpus_per_replica=4), 1)])
    assert gone(joint) == ["99"]
    assert not joint.gave_up


def test_what_no_node_can_ever_hold_spoils_nothing_else() -> None:
    """Four GPUs that are joined by NVLink are nowhere: the others get the cheapest plan, and nobody is told of a bound."""
    jobs = [batch(k, {f"n{k}": 0xFF}, started=AT - 400 * k) for k in (1, 2)]
    land = ground(view(*jobs, nodes=2, shape="pairs"))
    joint = place_all(land, [Want(service("a", gpus_per_replica=4, link_level="NVLINK"), 1), Want(service("b"), 2)])
    assert ([len(spots) for spots in joint.spots], gone(joint), joint.gave_up) == ([0, 2], ["1"], False)


@settings(max_examples=60, deadline=None)
@given(st.one_of(filled_views(), with_wide_jobs(), with_chains()), st.sampled_from([(1, 1), (2, 1), (2, 4), (4, 4)]))
def test_no_plan_costs_less_than_the_bound(v: View, sizes: tuple[int, int]) -> None:
    land = ground(v)
    wants = [Want(service(name, gpus_per_replica=size), 1) for name, size in zip("ab", sizes, strict=True)]
    joint = place_all(land, wants)
    if any(len(spots) < 1 for spots in joint.spots):
        return
    relevance = Relevance(land, wants)
    assert relevance.bound <= joint.score[-1]
    used = {spot.row for spots in joint.spots for spot in spots}
    assert used <= set(relevance.near(joint.score[-1] + 1).tolist())


def crowd(rng: Random, nodes: int, wide: bool) -> View:
    """A full cluster of nodes with jobs of 1 to 8 GPUs, some of them on two nodes."""
    left = {f"n{i}": list(range(8)) for i in range(1, nodes + 1)}
    jobs: list[Job] = []
    names = list(left)
    for at, name in enumerate(names):
        while left[name]:
            size = min(len(left[name]), rng.choice([1, 2, 4, 8]))
            on = [name, names[(at + 1) % nodes]] if wide and rng.random() < 0.1 else [name]
            held = {n: sum(1 << g for g in left[n][:size]) for n in on if len(left[n]) >= size}
            for n in held:
                del left[n][:size]
            if rng.random() < 0.95:
                jobs.append(batch(len(jobs) + 1, held, started=AT - 300 - rng.randrange(3000)))
    return view(*jobs, nodes=nodes)


ASKED = [((1, 3), (2, 2)), ((4, 3),), ((2, 3), (4, 2)), ((1, 4), (2, 3), (4, 3))]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 20), st.booleans(), st.sampled_from(ASKED))
def test_leaving_nodes_out_changes_no_cost(seed: int, wide: bool, asked: tuple[tuple[int, int], ...]) -> None:
    land = ground(crowd(Random(seed), 16, wide))
    wants = [Want(service(name, gpus_per_replica=size), many) for name, (size, many) in zip("abc", asked, strict=False)]
    joint = place_all(land, wants)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Relevance, "near", lambda self, _: self.rows)
        patch.setattr(Relevance, "limit", lambda _self, _row, below, _gpus: below)
        patch.setattr("colocd.core.together.TRIES", ((None, 96),))
        whole = place_all(land, wants)
    if joint.gave_up or whole.gave_up:
        assert wide
        return
    assert joint.score == whole.score
    cost = sum(job_key(round(land.costs[ref] * COST_SCALE)) for ref in gone(joint))
    assert joint.score[-1] == cost + sum(spot.waits for spots in joint.spots for spot in spots)


def test_a_plan_near_its_bound_is_no_search_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many combinations for the exact search: a note tells of it only where the plan may be 2 % above the cheapest."""
    jobs = [batch(k, {f"n{k}": 0xFF}, started=AT - 500 - k) for k in range(1, 5)]
    monkeypatch.setattr("colocd.core.together.MOST_STATES", 1)
    wants = [Want(service(name, gpus_per_replica=8, link_level="SYS"), 1) for name in "ab"]
    alike = view(*jobs, nodes=4)
    assert not place_all(ground(alike), wants).gave_up
    # Nine replicas need two nodes, of which the bound counts the second by the share of it that they use.
    joint = place_all(ground(alike), [Want(service("a", gpus_per_replica=1), 9)])
    assert (joint.gave_up, joint.less) == (True, 44)
