"""What groups cost: against all ways to place them, with jobs that are on several nodes."""

from itertools import combinations, product

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_groups import located, rows
from tests.helpers.views import AT, batch, service, view

from coloc_topology.shape import Shape, bits, mask_of
from colocd.core.groups import Part, choose_group
from colocd.core.reclaim import ground
from colocd.core.service import Closeness
from colocd.core.view import Job, View


@st.composite
def sharing(draw: st.DrawFn) -> View:
    """Four small nodes on two leaves, most jobs on two or three of them."""
    left = {f"n{i}": list(range(4)) for i in range(1, 5)}
    jobs: list[Job] = []
    for name in left:
        while left[name]:
            size = min(len(left[name]), draw(st.sampled_from([1, 2, 4])))
            others = draw(st.sets(st.sampled_from(sorted(left.keys() - {name})), max_size=2))
            gpus = {n: mask_of(left[n][:size]) for n in (name, *sorted(others)) if len(left[n]) >= size}
            for n in gpus:
                del left[n][:size]
            age = draw(st.sampled_from([400.0, 700.0, 1500.0, 3000.0]))
            if draw(st.integers(0, 9)):  # else these GPUs are free
                number = len(jobs) + 1
                jobs.append(batch(number, gpus, user=draw(st.sampled_from(["ann", "bob"])), started=AT - age - number))
    small = Shape("small", tuple(tuple("X" if i == j else "NV4" for j in range(4)) for i in range(4)))
    v = view(*jobs, nodes=4)
    used = {n.name: mask_of(i for j in jobs for i in bits((j.gpus or {}).get(n.name, 0))) for n in v.nodes}
    nodes = tuple(msgspec.structs.replace(n, gpus=4, shape="small", used=used[n.name]) for n in v.nodes)
    same = draw(st.booleans())
    v = msgspec.structs.replace(v, shapes={"small": small}, nodes=nodes)
    return located(v, n1="x", n2="x", n3="x" if same else "y", n4="x" if same else "y")


def least_cost(v: View, parts: list[Part], near: Closeness) -> float | None:
    """Least cost of a group, by looking at every set of nodes and every set of victims on each."""
    land = ground(v)
    domains: dict[str | None, list[str]] = {}
    for node in v.nodes:
        domains.setdefault("" if near is Closeness.ANY else node.leaf, []).append(node.name)
    held = {
        n.name: {r: (j.gpus or {})[n.name] for r, j in land.victims.items() if n.name in (j.gpus or {})}
        for n in v.nodes
    }

    def ways(name: str, sizes: tuple[int, ...]) -> set[frozenset[str]]:
        """The sets of jobs on a node that make room for these parts side by side, all of them linked."""
        whole = land.free[name] | mask_of(i for m in held[name].values() for i in bits(m))
        found = set()
        for members in combinations(bits(whole), sum(sizes)):
            gpus = mask_of(members)
            found.add(frozenset(r for r, m in held[name].items() if m & gpus & ~land.free[name]))
        return found

    best: float | None = None
    for names in domains.values():
        seats = [list(combinations(names, part.nodes)) for part in parts]
        for chosen in product(*seats):
            on = [tuple(p.spec.gpus_per_replica for p, c in zip(parts, chosen, strict=True) if n in c) for n in names]
            for sets in product(
                *(ways(n, sizes) if sizes else [frozenset()] for n, sizes in zip(names, on, strict=True))
            ):
                cost = sum(land.costs[r] for r in frozenset().union(*sets))
                best = cost if best is None or cost < best else best
    return best


SHAPES_OF_GROUPS = [((1, 2),), ((2, 2),), ((2, 3),), ((4, 2),), ((1, 1), (2, 1)), ((2, 1), (2, 1)), ((3, 1), (1, 2))]


@settings(max_examples=150, deadline=None)
@given(sharing(), st.sampled_from(SHAPES_OF_GROUPS), st.sampled_from([Closeness.LEAF, Closeness.ANY]))
def test_a_group_costs_the_least_of_all_ways(v: View, sizes: tuple[tuple[int, int], ...], near: Closeness) -> None:
    parts = [Part(service(name, gpus_per_replica=g), many) for name, (g, many) in zip("ab", sizes, strict=False)]
    group, _ = choose_group(ground(v), parts, [near])
    best = least_cost(v, parts, near)
    assert (group is None) == (best is None)
    if group is None or best is None:
        return
    assert not group.gave_up
    gone = [job.ref for spots in group.spots for spot in spots for job in spot.victims]
    assert len(gone) == len(set(gone)), "a job is paid once"
    assert sum(ground(v).costs[ref] for ref in gone) == pytest.approx(best, abs=1e-6)
    room = {
        n.name: n.free | mask_of(i for j in v.jobs if j.ref in gone for i in bits((j.gpus or {}).get(n.name, 0)))
        for n in v.nodes
    }
    for part, spots in zip(parts, group.spots, strict=True):
        assert len({spot.row for spot in spots}) == part.nodes
        for spot in spots:
            name = v.nodes[spot.row].name
            assert spot.gpus.bit_count() == part.spec.gpus_per_replica
            assert spot.gpus & ~room[name] == 0
            room[name] &= ~spot.gpus


def test_two_wide_jobs_are_cheaper_than_the_cheapest_nodes() -> None:
    """Each of the two wide jobs is dearer than any of the others, and frees two nodes."""
    wide = [batch(k, {f"n{2 * k - 1}": 0xFF, f"n{2 * k}": 0xFF}, started=AT - 500 - k) for k in (1, 2)]
    single = [batch(k, {f"n{k}": 0xFF}, started=AT - 800) for k in (5, 6, 7, 8)]
    land = ground(view(*wide, *single, nodes=8))
    assert max(land.costs[str(k)] for k in (5, 6, 7, 8)) < land.costs["1"]
    group, _ = choose_group(land, [Part(service(gpus_per_replica=8, link_level="SYS"), 4)], [Closeness.ANY])
    assert rows(group) == [[0, 1, 2, 3]]
