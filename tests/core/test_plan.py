"""Properties of every plan, and exactness of the victim choice against brute force."""

from itertools import combinations

import msgspec
from hypothesis import given, settings
from tests.helpers.views import AT, batch, filled_views, replica, service, view

from coloc_topology.fit import fit_table
from coloc_topology.shape import bits, mask_of
from colocd.core.actions import Drain, Place, Release, encode_plan
from colocd.core.plan import plan
from colocd.core.reclaim import choose, ground
from colocd.core.service import Mode
from colocd.core.view import JobState, Reading, ReplicaState, ServiceView, View, decode_view, encode_view


@settings(max_examples=150, deadline=None)
@given(filled_views())
def test_plans_are_feasible_and_deterministic(v: View) -> None:
    first = plan(v)
    assert encode_plan(plan(decode_view(encode_view(v)))) == encode_plan(first)
    jobs = {j.ref: j for j in v.jobs}
    specs = {s.spec.name: s.spec for s in v.services}
    taken: dict[str, int] = {}
    gone: set[str] = set()
    for action in first.actions:
        if not isinstance(action, Place):
            continue
        ((name, gpus),) = action.places.items()
        node = next(n for n in v.nodes if n.name == name)
        freed = node.free
        for ref in action.victims:
            job = jobs[ref]
            assert ref not in gone, "a victim is taken once"
            gone.add(ref)
            assert job.checkpoint is not None
            assert job.partition == "batch"
            assert job.started is not None
            assert v.at - job.started >= v.policy.protected_runtime
            assert v.facts[ref].evictions < v.policy.max_evictions_per_job
            assert (job.gpus or {})[name] & gpus, "no victim is taken for nothing"
            freed |= (job.gpus or {})[name]
        assert gpus & ~freed == 0
        assert gpus & taken.get(name, 0) == 0
        taken[name] = taken.get(name, 0) | gpus
        spec = specs[action.service]
        assert gpus.bit_count() == spec.gpus_per_replica
        level = fit_table(v.shapes[node.shape or ""]).level_of(gpus)
        assert level.name == action.level
        if spec.mode is Mode.GUARANTEED:
            assert level >= spec.level
    released = [a.job for a in first.actions if isinstance(a, Release)]
    assert len(released) == len(set(released))


@settings(max_examples=80, deadline=None)
@given(filled_views())
def test_victims_are_the_cheapest_of_all_subsets(v: View) -> None:
    """Brute force over *victim sets*, not over GPU sets as the planner does it; of equal costs the fewest jobs."""
    spec, land = v.services[0].spec, ground(v)
    if spec.mode is not Mode.GUARANTEED:
        spec = msgspec.structs.replace(spec, mode=Mode.GUARANTEED)
    choice, _ = choose(spec, v, land, {})
    best: tuple[int, int] | None = None
    for node in v.nodes:
        table = fit_table(v.shapes[node.shape or ""])
        holders = {r: (j.gpus or {})[node.name] for r, j in land.victims.items() if node.name in (j.gpus or {})}
        for size in range(len(holders) + 1):
            for refs in combinations(sorted(holders), size):
                room = land.free[node.name]
                for ref in refs:
                    room |= holders[ref]
                fits = any(
                    table.level_of(mask_of(c)) >= spec.level for c in combinations(bits(room), spec.gpus_per_replica)
                )
                cost = round(sum(land.costs[r] for r in refs) * 1000), size
                if fits and (best is None or cost < best):
                    best = cost
    assert (choice is None) == (best is None)
    if choice is not None and best is not None:
        assert (round(choice.cost * 1000), len(choice.victims)) == best


@settings(max_examples=60, deadline=None)
@given(filled_views())
def test_more_free_gpus_never_cost_more(v: View) -> None:
    spec = msgspec.structs.replace(v.services[0].spec, mode=Mode.GUARANTEED)
    before, _ = choose(spec, v, ground(v), {})
    running = [j for j in v.jobs if j.gpus]
    if not running:
        return
    fewer = tuple(j for j in v.jobs if j is not running[0])
    freed = dict((running[0].gpus or {}).items())
    nodes = tuple(msgspec.structs.replace(n, used=(n.used or 0) & ~freed.get(n.name, 0)) for n in v.nodes)
    after, _ = choose(
        spec,
        msgspec.structs.replace(v, jobs=fewer, nodes=nodes),
        ground(msgspec.structs.replace(v, jobs=fewer, nodes=nodes)),
        {},
    )
    if before is not None:
        assert after is not None
        assert after.cost <= before.cost + 1e-6


def test_judged_by_where_the_replica_will_sit() -> None:
    """Two cheap victims on two sockets are no use; the dear one whose GPUs complete an island is."""
    v = view(
        batch(1, {"n1": 0b0000_0001}, started=AT - 400),
        batch(2, {"n1": 0b0001_0000}, started=AT - 400),
        batch(3, {"n1": 0b0000_1110}, started=AT - 4000),
        batch(4, {"n1": 0b1110_0000}, checkpoint=None),
        services=(ServiceView(spec=service(), load=Reading(5.0, AT)),),
    )
    (place,) = (a for a in plan(v).actions if isinstance(a, Place))
    assert place.victims in (("3",), ("1", "3"))
    assert place.level == "NVLINK"
    assert place.victims == ("3",)


def test_unknown_load_opens_no_valley_and_evicts_nobody() -> None:
    running = (replica(0, places={"n1": 0b11}, node="n1", job="90"),)
    waiting = batch(7, gpus_requested=1)
    blind = ServiceView(spec=service(max_replicas=8), replicas=running, load=None)
    plan_blind = plan(view(waiting, services=(blind,)))
    assert [a for a in plan_blind.actions if not isinstance(a, Release)] == []
    assert not any(isinstance(a, Release) for a in plan_blind.actions), plan_blind
    assert any("unknown" in n.text for n in plan_blind.notes if n.subject == "job:7")
    seeing = msgspec.structs.replace(blind, load=Reading(1.0, AT))
    assert any(isinstance(a, Release) for a in plan(view(waiting, services=(seeing,))).actions)


def test_stale_and_future_readings_count_as_unknown() -> None:
    for at in (AT - 3600, AT + 3600):
        low = ServiceView(
            spec=service(min_replicas=0),
            replicas=tuple(replica(i) for i in range(3)),
            load=Reading(0.0, at),
            low_since=AT - 9999,
        )
        assert not any(isinstance(a, Drain) for a in plan(view(services=(low,))).actions)


def test_drains_only_after_the_load_was_low_for_long() -> None:
    def drains(low_since: float | None) -> list[int]:
        low = ServiceView(
            spec=service(min_replicas=1),
            replicas=(replica(0, load=1.0), replica(1, load=5.0), replica(2, ReplicaState.STARTING)),
            load=Reading(6.0, AT),
            low_since=low_since,
        )
        return [a.slot for a in plan(view(services=(low,))).actions if isinstance(a, Drain)]

    assert drains(None) == []
    assert drains(AT - 10) == []
    assert drains(AT - 301) == [2, 0]


def test_paused_does_nothing() -> None:
    v = view(batch(1), services=(ServiceView(spec=service(), load=Reading(50.0, AT)),), paused="maintenance")
    assert plan(v).actions == ()
    assert "maintenance" in plan(v).summary


def test_unknown_gpus_and_topology_are_left_alone() -> None:
    hungry = ServiceView(spec=service(), load=Reading(5.0, AT))
    v = view(batch(1, {"n1": 0xFF}), services=(hungry,))
    unknown = msgspec.structs.replace(v, nodes=(msgspec.structs.replace(v.nodes[0], used=None),))
    shapeless = msgspec.structs.replace(v, nodes=(msgspec.structs.replace(v.nodes[0], shape=None),))
    unread = view(batch(1, state=JobState.RUNNING, gpus_requested=8, lost=True), services=(hungry,))
    for odd, word in ((unknown, "could not be read"), (shapeless, "topology is unknown")):
        result = plan(odd)
        assert not any(isinstance(a, Place) for a in result.actions)
        assert any(word in n.text for n in result.notes)
    busy = msgspec.structs.replace(unread, nodes=(msgspec.structs.replace(unread.nodes[0], used=0xFF),))
    result = plan(busy)
    assert not any(isinstance(a, Place) for a in result.actions)
    assert any("its GPUs could not be read" in n.text for n in result.notes)
