"""Where batch jobs are put, and what is kept for services: by what Slurm's own pick within a node would leave."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers.views import AT, SHAPES, batch, filled_views, service, view

from coloc_topology.fit import fit_table
from colocd.core.actions import Release
from colocd.core.arrays import popcount
from colocd.core.dear import residents
from colocd.core.fill import waiting
from colocd.core.ground import Ground
from colocd.core.need import counted, need, reserve
from colocd.core.pack import Pack
from colocd.core.picks import lowest, shape_picks, sockets
from colocd.core.plan import plan
from colocd.core.policy import Policy
from colocd.core.reclaim import ground
from colocd.core.service import Mode
from colocd.core.valleys import kept_back
from colocd.core.victims import dearness, is_dear
from colocd.core.view import (
    Checkpoint,
    Forecast,
    HandoverBrief,
    Held,
    Job,
    JobFacts,
    JobState,
    Quantiles,
    Reading,
    ServiceView,
    View,
)

SAVES = Checkpoint(signal="USR1", interval=300.0, cost=10.0)
"""Of a job that is cheap to evict."""


def put(v: View, ref: str) -> tuple[str, ...]:
    (found,) = (a for a in plan(v).actions if isinstance(a, Release) and a.job == ref)
    return found.nodes


def kept_one_by_one(v: View, land: Ground, until: float) -> dict[str, int]:
    """`kept_back` by looking at every node for every replica."""
    free = dict(land.free)
    kept: dict[str, int] = {}
    for s in sorted(v.services, key=lambda s: (-s.spec.priority, s.spec.name)):
        spec = s.spec
        short = need(s, v.policy, v.at).now - len(counted(s))
        for nth in range(reserve(s, v.policy, v.at, until)):
            best = None
            for size in range(spec.gpus_per_replica, 0, -1) if nth < short else (spec.gpus_per_replica,):
                for node in v.nodes:
                    fit = fit_table(v.shapes[node.shape or ""]).best(free[node.name], size)
                    if node.name in land.closed or spec.partition not in node.partitions or fit is None:
                        continue
                    if spec.mode is Mode.GUARANTEED and fit.level < spec.level:
                        continue
                    rank = (
                        -min(fit.level, spec.level),
                        free[node.name].bit_count(),
                        -fit.strength,
                        node.name,
                        fit.gpus,
                    )
                    best = rank if best is None or rank < best else best
                if best is not None:
                    break
            if best is None:
                break
            free[best[3]] &= ~best[4]
            kept[best[3]] = kept.get(best[3], 0) | best[4]
    return kept


@settings(max_examples=80, deadline=None)
@given(filled_views(), st.integers(0, 6))
def test_what_is_kept_is_what_a_look_at_every_node_keeps(v: View, gone: int) -> None:
    v = msgspec.structs.replace(v, jobs=v.jobs[gone:])
    used = dict.fromkeys((n.name for n in v.nodes), 0)
    for job in v.jobs:
        for name, mask in (job.gpus or {}).items():
            used[name] |= mask
    v = msgspec.structs.replace(v, nodes=tuple(msgspec.structs.replace(n, used=used[n.name]) for n in v.nodes))
    land = ground(v)
    found = dict(zip(land.index.row, kept_back(v, land, 0.0, {}).tolist(), strict=True))
    assert {name: mask for name, mask in found.items() if mask} == kept_one_by_one(v, land, 0.0)


@settings(max_examples=100, deadline=None)
@given(filled_views(), st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), max_size=8))
def test_jobs_are_put_where_gpus_are_left_and_never_on_more(v: View, asked: list[tuple[int, int]]) -> None:
    land = ground(v)
    pack, kept = Pack(land, {}), kept_back(v, land, 0.0, {})
    room = dict(zip(land.index.row, (popcount(land.free_masks) - popcount(kept)).tolist(), strict=True))
    for number, (gpus, nodes) in enumerate(asked):
        job = batch(900 + number, gpus_requested=gpus * nodes, gpus_per_node=gpus, nodes_requested=nodes)
        hosts = pack.hosts(job, JobFacts(), kept)
        fits = [name for name, left in room.items() if left >= gpus and name not in land.closed]
        assert (hosts is None) == (len(fits) < nodes)
        if hosts is not None:
            assert len(set(hosts)) == nodes
            assert set(hosts) <= set(fits)
            pack.take(job, JobFacts(), hosts)
            for name in hosts:
                room[name] -= gpus
    assert (pack.gpus == popcount(pack.free)).all()


def test_slurms_pick_is_on_one_socket_where_the_shape_tells_of_sockets() -> None:
    quads = SHAPES["quads"]
    assert sockets(quads) == (0x0F, 0xF0)
    assert shape_picks(quads, 2).pick(0b1111_0001).gpus == 0b0011_0000
    assert shape_picks(quads, 4).pick(0b0111_0111).gpus == 0b0001_0111
    assert shape_picks(SHAPES["pairs"], 2).pick(0b1111_0110).gpus == 0b0000_0110
    assert shape_picks(None, 2).pick(0b1010).gpus == 0b1010
    assert lowest(0b1011_0000, 2) == 0b0011_0000


def test_a_job_goes_where_it_straddles_no_islands() -> None:
    """n1 has two free GPUs on two sockets, n2 an island with three: the fuller node would have the job straddle."""
    v = view(
        batch(1, {"n1": 0b1110_1110}), batch(2, {"n2": 0b1000_1111}), batch(7, gpus_requested=2), nodes=2,
    )  # fmt: skip
    assert put(v, "7") == ("n2",)


def test_a_job_fills_a_broken_island_before_it_breaks_a_whole_one() -> None:
    v = view(batch(1, {"n1": 0xF0}), batch(2, {"n2": 0b0011}), batch(7, gpus_requested=2), nodes=2)
    # n1 is fuller, but has a whole island left; on n2 the socket with more free GPUs is taken: that breaks one, too.
    assert put(v, "7") == ("n1",)
    v = view(batch(1, {"n1": 0xF0}), batch(2, {"n2": 0b1000_0011}), batch(7, gpus_requested=1), nodes=2)
    assert put(v, "7") == ("n2",)


def test_a_job_avoids_a_node_where_it_would_take_what_is_kept() -> None:
    wants = ServiceView(spec=service(gpus_per_replica=4, max_replicas=1, min_replicas=0), load=None)
    v = view(
        batch(1, {"n1": 0b0001_1110}), batch(2, {"n2": 0b1111_1110}), batch(7, gpus_requested=1), nodes=2, services=(wants,),
    )  # fmt: skip
    land = ground(v)
    assert kept_back(v, land, 0.0, {}).tolist() == [0, 0]
    v = view(
        batch(1, {"n1": 0b0000_1110}), batch(2, {"n2": 0b0011_1111}), batch(7, gpus_requested=1), nodes=2, services=(wants,),
    )  # fmt: skip
    assert kept_back(v, ground(v), 0.0, {}).tolist() == [0xF0, 0]
    assert put(v, "7") == ("n2",)


def located(v: View, **where: str) -> View:
    """The view with leaf and NVLink domain per node: `n1="leaf/domain"`."""
    nodes = []
    for node in v.nodes:
        leaf, _, domain = where[node.name].partition("/")
        nodes.append(msgspec.structs.replace(node, leaf=leaf or None, nvlink_domain=domain or None, block="b"))
    return msgspec.structs.replace(v, nodes=tuple(nodes))


@pytest.mark.parametrize(
    ("where", "hosts"),
    [
        ({"n1": "x", "n2": "y", "n3": "x", "n4": "y"}, ("n1", "n3")),
        ({"n1": "x/d", "n2": "y/e", "n3": "x/f", "n4": "y/e"}, ("n2", "n4")),
        ({"n1": "", "n2": "", "n3": "", "n4": ""}, ("n1", "n2")),
        ({"n1": "x", "n2": "x", "n3": "x", "n4": "y"}, ("n1", "n2")),
    ],
)
def test_nodes_of_one_job_are_near_each_other(where: dict[str, str], hosts: tuple[str, ...]) -> None:
    wide = batch(7, gpus_requested=8, gpus_per_node=4, nodes_requested=2, checkpoint=SAVES)
    assert put(located(view(wide, nodes=4), **where), "7") == hosts


def test_a_released_job_counts_until_it_starts() -> None:
    waits = batch(7, gpus_requested=4, held=Held.NO, required_nodes=("n1",), reason="Resources")
    other: Job = batch(8, gpus_requested=8)
    facts = {"7": JobFacts(released_at=AT - 10, ever_released=True, pinned=True)}
    v = view(waits, other, nodes=1, facts=facts, services=())
    assert not [a for a in plan(v).actions if isinstance(a, Release)]


@pytest.mark.parametrize(
    ("hold", "facts", "waits"),
    [
        (None, JobFacts(), True),
        ("user", JobFacts(), False),
        ("user", JobFacts(ever_released=True), False),
        ("user", JobFacts(ever_released=True, ours=True), True),
        (None, JobFacts(ever_released=True), False),
    ],
)
def test_a_hold_of_the_users_own_stays_theirs(hold: str | None, facts: JobFacts, waits: bool) -> None:
    job = Job(
        ref="7", user="ann", name="x", partition="batch", state=JobState.PENDING, held=Held.USER,
        checkpoint=Checkpoint(hold=hold),
    )  # fmt: skip
    assert waiting(job, facts, Policy()) is waits


@pytest.mark.parametrize(("mark", "node"), [(SAVES, "n1"), (Checkpoint(signal="USR1"), "n2")])
def test_jobs_sit_beside_jobs_that_are_as_dear_to_evict(mark: Checkpoint, node: str) -> None:
    """Both nodes have one GPU left in an island: beside a job that saves often on n1, beside one that never does on n2."""
    v = view(
        batch(1, {"n1": 0b0000_0111}, checkpoint=SAVES), batch(2, {"n1": 0xF0}, checkpoint=None),
        batch(3, {"n2": 0b0000_0111}), batch(4, {"n2": 0xF0}, checkpoint=None),
        batch(7, gpus_requested=1, checkpoint=mark), nodes=2,
    )  # fmt: skip
    assert put(v, "7") == (node,)


@pytest.mark.parametrize(("mark", "node"), [(SAVES, "n1"), (Checkpoint(signal="USR1"), "n3")])
def test_dear_jobs_go_where_services_expand_last(mark: Checkpoint, node: str) -> None:
    """The service will want one more replica within hours; it would sit on n1, the first of equal nodes."""
    points = tuple(Quantiles(900.0 * i, {"0.9": float(i > 8)}) for i in range(1, 13))
    ahead = Forecast(points=points, step=900.0, trust=1.0, basis="told")
    grows = ServiceView(
        spec=service(gpus_per_replica=4, min_replicas=0, max_replicas=4), load=Reading(0.0, AT), forecast=ahead
    )
    blocked = [batch(i, {f"n{i}": 0x0F}, checkpoint=None) for i in (1, 2, 3)]
    v = view(*blocked, batch(7, gpus_requested=4, checkpoint=mark), nodes=3, services=(grows,))
    assert put(v, "7") == (node,)


def test_a_job_that_may_not_be_evicted_again_counts_as_the_dearest() -> None:
    v = view(batch(1, {"n1": 0b1}, checkpoint=SAVES), nodes=1)
    job, spent = batch(7, checkpoint=SAVES), JobFacts(evictions=3)
    assert dearness(job, JobFacts(), v) < dearness(batch(8), JobFacts(), v) < dearness(job, spent, v) == 31
    assert not is_dear(job, JobFacts(), v)
    assert is_dear(job, spent, v)
    assert residents(v, ground(v).index).tolist() == [[dearness(job, JobFacts(), v), *[0] * 7]]
    facts = {"1": spent}
    again = msgspec.structs.replace(v, facts=facts)
    assert residents(again, ground(again).index).tolist() == [[31, *[0] * 7]]


def test_a_victim_is_not_started_while_its_handover_is_open() -> None:
    """Slurm fails a job that starts in the second in which it was requeued on the same node."""
    job = batch(7, held=Held.ADMIN)
    brief = HandoverBrief(id=1, service="chat", slot=0, places={"n1": 1}, victims=("7",), state="requeued")
    free = view(job, facts={"7": JobFacts(ours=True, ever_released=True)})
    started = [a.job for a in plan(free).actions if isinstance(a, Release)]
    then = plan(msgspec.structs.replace(free, handovers=(brief,)))
    leaving = [a.job for a in then.actions if isinstance(a, Release)]
    assert (started, leaving) == (["7"], [])
    assert [n.text for n in then.notes if n.subject == "job:7"] == [
        "waits until its GPUs have gone to chat (handover 1)"
    ]


def test_a_job_is_not_started_in_the_seconds_after_its_requeue() -> None:
    """Slurm's submit time of a requeued job is its requeue; that of a new job means nothing here."""

    def told(**facts: object) -> tuple[list[str], list[str]]:
        job = msgspec.structs.replace(batch(7, held=Held.ADMIN), **facts)
        made = plan(view(job, facts={"7": JobFacts(ours=True, ever_released=True)}))
        why = [n.text for n in made.notes if n.subject == "job:7"]
        return [a.job for a in made.actions if isinstance(a, Release)], why

    assert told(restarts=1, submitted=AT - 1.5) == ([], ["was requeued just now: Slurm may start it again in 0.5 s"])
    assert told(restarts=1, submitted=AT - 2.0)[0] == ["7"]
    assert told(restarts=0, submitted=AT - 0.1)[0] == ["7"]
