"""The valleys of the next hours: never what a service may need, always what nobody does."""

import msgspec
from hypothesis import given, settings
from tests.helpers.views import AT, batch, filled_views, replica, service, view

from colocd.core.arrays import popcount
from colocd.core.reclaim import ground
from colocd.core.tide import Tide, tide
from colocd.core.valleys import kept_back
from colocd.core.view import Forecast, Job, Quantiles, Reading, Replica, ServiceView, View

HOUR = 3600.0


def foreseen(*loads: float) -> Forecast:
    """One load an hour, the same at all quantiles."""
    points = tuple(
        Quantiles(n * 900.0, dict.fromkeys(("0.5", "0.9", "0.95"), loads[int(n / 4)])) for n in range(4 * len(loads))
    )
    return Forecast(points=points, step=900.0, trust=1.0, basis="test")


def day(*loads: float, jobs: tuple[Job, ...] = (), replicas: tuple[Replica, ...] = (), **facts: object) -> View:
    seen = ServiceView(spec=service(), replicas=replicas, load=Reading(loads[0], AT), forecast=foreseen(*loads))
    return view(*jobs, services=(msgspec.structs.replace(seen, **facts),), nodes=2)


def free(found: Tide) -> list[int]:
    return [slot.free for slot in found.slots]


def test_the_valley_is_what_the_forecast_leaves() -> None:
    found = tide(day(5.0, 5.0, 5.0, 35.0, 35.0, 5.0, 5.0), 6 * HOUR, HOUR)
    assert found.gpus == 16
    assert free(found) == [14, 14, 8, 8, 8, 14]  # points up to a quarter of an hour away count
    assert [slot.needs["chat"] for slot in found.slots] == [1, 1, 4, 4, 4, 1]
    for slot in found.slots:
        inside = sum(v.gpus.bit_count() for v in found.valleys if v.start <= slot.at < v.end)
        assert inside == slot.free, "the valleys by island are the same GPUs"
    assert all(v.gpus & ~v.island == 0 and v.gpus for v in found.valleys)


def test_batch_jobs_of_colocs_stand_on_usable_gpus_and_others_do_not() -> None:
    ours, theirs = batch(1, {"n1": 0b1111}), batch(2, {"n2": 0b1111}, checkpoint=None)
    found = tide(day(5.0, 5.0, jobs=(ours, theirs)), HOUR, HOUR)
    assert found.gpus == 12
    assert free(found) == [10]


def test_replicas_keep_their_place() -> None:
    held = tuple(replica(n, node="n2", places={"n2": mask}, job=str(50 + n)) for n, mask in ((0, 0b11), (1, 0b1100)))
    jobs = tuple(batch(50 + n, {"n2": mask}, checkpoint=None) for n, mask in ((0, 0b11), (1, 0b1100)))
    found = tide(day(15.0, 15.0, jobs=jobs, replicas=held), HOUR, HOUR)
    assert free(found) == [12]
    assert not any(v.node == "n2" and v.gpus & 0b1111 for v in found.valleys)


def test_unknown_keeps_the_maximum() -> None:
    for facts in ({"load": None}, {"forecast": None}, {"load": Reading(5.0, AT - 9999)}):
        found = tide(day(5.0, 5.0, **facts), 2 * HOUR, HOUR)
        assert free(found) == [0, 0]
        assert found.blind == ("chat",)
    assert free(tide(day(5.0, 5.0, removed=True), HOUR, HOUR)) == [16]
    assert free(tide(day(5.0, 5.0, recent=75.0), 2 * HOUR, HOUR))[0] == 0, "it was there a moment ago"


def test_nodes_that_are_down_or_reserved_have_none() -> None:
    seen = day(5.0, 5.0)
    for change in ({"up": False}, {"reserved": True}, {"used": None}):
        nodes = (seen.nodes[0], msgspec.structs.replace(seen.nodes[1], **change))
        assert tide(msgspec.structs.replace(seen, nodes=nodes), HOUR, HOUR).gpus == 8


@settings(max_examples=60)
@given(filled_views())
def test_it_agrees_with_itself_and_with_what_filling_keeps(seen: View) -> None:
    found = tide(seen, 2 * HOUR, HOUR)
    assert found == tide(seen, 2 * HOUR, HOUR)
    for slot in found.slots:
        covered = sum(v.gpus.bit_count() for v in found.valleys if v.start <= slot.at < v.end)
        assert covered == slot.free <= found.gpus
    if all(s.load is None for s in seen.services):
        land = ground(seen)
        kept = int(popcount(kept_back(seen, land, HOUR, {})).sum())
        assert found.gpus - found.slots[0].free >= kept, "what filling keeps back is no valley"
