"""Nobody is evicted for a replica that could not start for want of CPUs."""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, batch, service, view

from colocd.core.actions import Place
from colocd.core.plan import plan
from colocd.core.victims import cpus_per_node
from colocd.core.view import Job, Reading, ServiceView, View


def with_cpus(found: View, cpus: dict[str, tuple[int, int]]) -> View:
    """`cpus`: all and used, by node."""
    nodes = tuple(msgspec.structs.replace(n, cpus=cpus[n.name][0], cpus_used=cpus[n.name][1]) for n in found.nodes)
    return msgspec.structs.replace(found, nodes=nodes)


def asking(count: int, cpus: int, **changes: Any) -> ServiceView:
    spec = service(gpus_per_replica=4, cpus_per_replica=cpus, min_replicas=count, **changes)
    return ServiceView(spec=spec, load=Reading(1.0, AT))


def places(found: View) -> list[Place]:
    return [action for action in plan(found).actions if isinstance(action, Place)]


def hosts(found: View) -> list[str]:
    return [name for action in places(found) for name in action.places]


def test_a_node_whose_cpus_others_hold_is_left_alone() -> None:
    cheap, dear = batch(1, {"n1": 255}, cpus_requested=1), batch(2, {"n2": 255}, cpus_requested=8)
    cheap = msgspec.structs.replace(cheap, started=AT - 400)  # less would be lost on n1
    found = view(cheap, dear, services=(asking(1, 8),), nodes=2)
    assert hosts(found) == ["n1"]
    found = with_cpus(found, {"n1": (16, 16), "n2": (16, 16)})
    (place,) = places(found)
    assert (list(place.places), place.victims) == (["n2"], ("2",))


def test_free_gpus_without_cpus_are_not_enough() -> None:
    found = with_cpus(view(services=(asking(1, 8),), nodes=2), {"n1": (16, 12), "n2": (16, 8)})
    assert hosts(found) == ["n2"]
    found = with_cpus(found, {"n1": (16, 12), "n2": (16, 9)})
    assert places(found) == []
    assert any("too few CPUs" in note.text for note in plan(found).notes)


def test_victims_that_bring_too_few_cpus_are_passed_over() -> None:
    # On n1 one job of the wrong quad holds the CPUs; on n2 each holds its share.
    jobs = [batch(1, {"n1": 15}, cpus_requested=1), batch(2, {"n1": 240}, cpus_requested=15)]
    jobs[0] = msgspec.structs.replace(jobs[0], started=AT - 400)
    jobs += [batch(3, {"n2": 15}, cpus_requested=8), batch(4, {"n2": 240}, cpus_requested=8)]
    found = with_cpus(view(*jobs, services=(asking(1, 8),), nodes=2), {"n1": (16, 16), "n2": (16, 16)})
    (place,) = places(found)
    assert list(place.places) == ["n2"]


def test_unknown_cpus_are_no_obstacle() -> None:
    assert hosts(view(services=(asking(1, 64),))) == ["n1"]


@st.composite
def crowded(draw: st.DrawFn) -> View:
    nodes = draw(st.integers(1, 3))
    jobs: list[Job] = []
    cpus: dict[str, tuple[int, int]] = {}
    for n in range(1, nodes + 1):
        held = 0
        for mask in draw(st.sampled_from([(), (255,), (15, 240), (3, 12, 240), (1, 2, 60)])):
            mine = draw(st.integers(1, 6))
            held += mine
            jobs.append(
                batch(
                    len(jobs) + 1,
                    {f"n{n}": mask},
                    cpus_requested=mine,
                    started=AT - draw(st.sampled_from([100.0, 400.0, 5000.0])),
                )
            )
        alien = draw(st.integers(0, 12))
        cpus[f"n{n}"] = (held + alien + draw(st.integers(0, 6)), held + alien)
    services = tuple(
        asking(draw(st.integers(1, 3)), draw(st.integers(1, 8)), name=name)
        for name in draw(st.sampled_from([("a",), ("a", "b")]))
    )
    return with_cpus(view(*jobs, services=services, nodes=nodes), cpus)


@settings(deadline=None)
@given(crowded())
def test_every_place_has_its_cpus(found: View) -> None:
    jobs = {job.ref: job for job in found.jobs}
    need = {s.spec.name: s.spec.cpus_per_replica for s in found.services}
    for node in found.nodes:
        here = [p for p in places(found) if node.name in p.places]
        freed = {ref for p in places(found) for ref in p.victims if node.name in (jobs[ref].gpus or {})}
        assert node.cpus is not None
        assert node.cpus_used is not None
        room = node.cpus - node.cpus_used + sum(cpus_per_node(jobs[ref]) for ref in freed)
        assert sum(need[p.service] for p in here) <= room
