"""What holds of every choice, for one replica, several services together, several nodes and pairs.

Feasible: each GPU is free or freed, and given once. Minimal: with one victim fewer there is no way. Monotone: more free GPUs
never cost more. Deterministic: the same view gives the same places.
"""

from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.test_joint import with_chains, with_wide_jobs
from tests.helpers.views import filled_views, service

from coloc_topology.fit import fit_table
from colocd.core.groups import Part, choose_group
from colocd.core.joint import Spot
from colocd.core.reclaim import ground
from colocd.core.service import Closeness, ServiceSpec
from colocd.core.together import Want, place_all
from colocd.core.view import View, decode_view, encode_view


class Choice(NamedTuple):
    """Places by service, whether all asked for are served, and whether a bound ended the search."""

    spots: tuple[tuple[Spot, ...], ...]
    served: bool
    gave_up: bool

    @property
    def victims(self) -> list[str]:
        return [job.ref for spots in self.spots for spot in spots for job in spot.victims]


KINDS = ("one", "joint", "nodes", "pair")


def specs_of(kind: str, sizes: tuple[int, int]) -> tuple[ServiceSpec, ServiceSpec]:
    one, two = (service(name, gpus_per_replica=size, link_level="SYS") for name, size in zip("ab", sizes, strict=True))
    return (msgspec.structs.replace(one, nodes=2) if kind == "nodes" else one), two


def chosen(v: View, kind: str, sizes: tuple[int, int]) -> Choice:
    land, (one, two) = ground(v), specs_of(kind, sizes)
    if kind in ("one", "joint"):
        wants = [Want(one, 1)] if kind == "one" else [Want(one, 2), Want(two, 1)]
        joint = place_all(land, wants)
        served = all(len(spots) == want.many for spots, want in zip(joint.spots, wants, strict=True))
        return Choice(joint.spots, served, joint.gave_up)
    parts = [Part(one, 2)] if kind == "nodes" else [Part(one), Part(two)]
    group, _ = choose_group(land, parts, [Closeness.ANY])
    return Choice((), False, False) if group is None else Choice(group.spots, True, group.gave_up)


def only_evictable(v: View, refs: set[str]) -> View:
    """The same view in which nobody else may be evicted."""
    jobs = tuple(j if j.ref in refs else msgspec.structs.replace(j, checkpoint=None) for j in v.jobs)
    return msgspec.structs.replace(v, jobs=jobs)


def without(v: View, ref: str) -> View:
    """The same view after a job has ended."""
    gone = next(j for j in v.jobs if j.ref == ref)
    held = gone.gpus or {}
    nodes = tuple(msgspec.structs.replace(n, used=(n.used or 0) & ~held.get(n.name, 0)) for n in v.nodes)
    return msgspec.structs.replace(v, jobs=tuple(j for j in v.jobs if j is not gone), nodes=nodes)


def cost(v: View, found: Choice) -> float:
    costs = ground(v).costs
    return sum(costs[ref] for ref in found.victims)


VIEWS = st.one_of(filled_views(), with_wide_jobs(), with_chains())
SIZES = st.sampled_from([(1, 1), (2, 2), (2, 4), (4, 2), (4, 4), (1, 2)])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(VIEWS, SIZES)
def test_what_is_chosen_is_feasible_and_always_the_same(kind: str, v: View, sizes: tuple[int, int]) -> None:
    found = chosen(v, kind, sizes)
    assert chosen(decode_view(encode_view(v)), kind, sizes) == found
    land, specs = ground(v), specs_of(kind, sizes)
    assert len(found.victims) == len(set(found.victims)), "a job is paid once"
    assert set(found.victims) <= land.victims.keys()
    room = {node.name: node.free for node in v.nodes}
    for ref in found.victims:
        for name, mask in (land.victims[ref].gpus or {}).items():
            room[name] |= mask
    for spec, spots in zip(specs, found.spots, strict=False):
        for spot in spots:
            node = land.index.nodes[spot.row]
            assert spot.gpus.bit_count() == spec.gpus_per_replica
            assert fit_table(v.shapes[node.shape or ""]).level_of(spot.gpus) >= spec.level
            assert spot.gpus & ~room[node.name] == 0, "each GPU is free or freed, and given once"
            room[node.name] &= ~spot.gpus
        if kind == "nodes" and spots:
            assert len({spot.row for spot in spots}) == 2


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(VIEWS, SIZES)
def test_no_victim_can_be_dropped(kind: str, v: View, sizes: tuple[int, int]) -> None:
    found = chosen(v, kind, sizes)
    if not found.served or found.gave_up:
        return
    for ref in found.victims:
        fewer = chosen(only_evictable(v, set(found.victims) - {ref}), kind, sizes)
        assert not fewer.served, f"{ref} need not be evicted"


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(VIEWS, SIZES)
def test_more_free_gpus_never_cost_more(kind: str, v: View, sizes: tuple[int, int]) -> None:
    before = chosen(v, kind, sizes)
    running = [job.ref for job in v.jobs if job.gpus]
    if not before.served or before.gave_up or not running:
        return
    for ref in {running[0], running[-1]}:
        now = without(v, ref)
        after = chosen(now, kind, sizes)
        assert after.served
        assert cost(now, after) <= cost(v, before) + 1e-6
