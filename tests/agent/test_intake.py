"""Each sample counts once, holes are holes, and silence mends nothing."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.agent.batches import batch, gpus, infos

from colocd.agent import wire
from colocd.agent.buffer import Buffer
from colocd.agent.wire import Sample
from colocd.gpus.intake import LIVE, Intake


def test_samples_are_taken_once() -> None:
    intake = Intake()
    assert intake.take(batch(), 100.0) == wire.Reply(True, 1)
    assert intake.take(batch(), 107.0) == wire.Reply(True, 1)  # the answer was lost, so the agent sends it again
    assert intake.take(batch(first=1, count=3), 115.0).taken == 3
    assert (intake.count.samples, intake.count.repeated) == (4, 3)
    assert intake.latest()["n1"].at == 115.0
    assert [(s.at, s.seconds) for s in intake.drain()["n1"]] == [(100.0, 5.0), (110.0, 10.0), (115.0, 5.0)]
    assert intake.drain() == {}


def test_a_hole_stands_for_nothing() -> None:
    intake = Intake()
    intake.take(batch(count=1), 100.0)
    intake.take(batch(first=1, count=1), 140.0)
    assert intake.drain() == {}
    intake.take(batch(first=2, count=1), 145.0)
    assert [s.seconds for s in intake.drain()["n1"]] == [5.0]


def test_another_start_of_the_agent_counts_anew() -> None:
    intake = Intake()
    intake.take(batch(first=500), 100.0)
    assert intake.take(batch(run="run-0002", first=0), 110.0) == wire.Reply(True, 1)
    assert [s.at for s in intake.drain()["n1"]] == [100.0, 110.0]


def test_late_samples_do_not_become_the_newest() -> None:
    intake = Intake()
    intake.take(batch(count=1), 100.0)
    late = (Sample(0, 60.0, gpus(sm=99)),)
    intake.take(batch(run="run-0002", samples=late), 101.0)
    assert intake.latest()["n1"].samples[0].sm == 50


def test_an_agent_without_gpus_tells_why() -> None:
    intake = Intake()
    intake.take(batch(gpus=(), samples=(), problems=("Driver Not Loaded",)), 100.0)
    assert intake.latest()["n1"].problems == ("Driver Not Loaded",)
    assert intake.latest()["n1"].gpus == ()


def test_a_backlog_waits_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage all agents send an hour at once: what is to be summed up is bounded, and nothing is lost."""
    monkeypatch.setattr("colocd.gpus.intake.SPELLS", 100)
    intake = Intake()
    assert intake.take(batch("n1", count=70), 1000.0).ok
    refused = intake.take(batch("n2", count=20), 1000.0)
    assert (refused.ok, refused.taken) == (False, -1)
    assert "send it again" in refused.why
    assert intake.take(batch("n3", count=LIVE), 1000.0).ok, "what is live is taken all the same"
    assert sum(map(len, intake.drain().values())) == 69 + LIVE - 1
    assert intake.take(batch("n2", count=20), 1000.0).taken == 19


def test_while_nobody_sums_up_the_newest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm is down for hours, so no cycle asks for what was measured."""
    monkeypatch.setattr("colocd.gpus.intake.SPELLS", 100)
    intake = Intake()
    for first in range(0, 2000, 2):
        for node in ("n1", "n2", "n3"):
            assert intake.take(batch(node, first=first), 1000.0 + 5 * first).ok
    kept = intake.drain()
    assert 100 <= sum(map(len, kept.values())) <= 103
    assert all(spells[-1].at == 1000.0 + 5 * 1998 for spells in kept.values())
    assert all(len(spells) > 20 for spells in kept.values())


def test_nodes_that_are_gone_are_forgotten() -> None:
    intake = Intake()
    intake.take(batch(), 100.0)
    intake.keep({"n2"})
    assert intake.latest() == {}


def test_the_buffer_is_bounded_and_keeps_the_newest() -> None:
    buffer = Buffer("n1", "run-0001", 5.0, 3)
    for second in range(5):
        buffer.add(float(second), infos(), gpus())
    found = buffer.batch(10.0, 512)
    assert ([s.seq for s in found.samples], [s.age for s in found.samples]) == ([2, 3, 4], [8.0, 7.0, 6.0])
    assert found.dropped == 2
    buffer.taken(3)
    assert [s.seq for s in buffer.batch(10.0, 512).samples] == [4]
    buffer.taken(-1)
    assert len(buffer) == 1


def test_a_batch_is_of_one_set_of_gpus() -> None:
    buffer = Buffer("n1", "run-0001", 5.0, 10)
    buffer.add(0.0, infos(8), gpus(8))
    buffer.add(5.0, infos(7), gpus(7))
    assert len(buffer.batch(5.0, 512).samples) == 1
    buffer.taken(0)
    assert len(buffer.batch(5.0, 512).gpus) == 7


@given(st.binary(max_size=400))
def test_garbage_is_no_batch(data: bytes) -> None:
    with pytest.raises(wire.NotABatch):
        wire.decode_batch(data)


@given(st.data())
def test_a_damaged_batch_is_refused_or_is_a_batch(data: st.DataObject) -> None:
    whole = bytearray(wire.encode(batch(count=1)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = wire.decode_batch(bytes(whole))
    except wire.NotABatch:
        return
    assert all(len(s.gpus) == len(found.gpus) for s in found.samples)
    Intake().take(found, 1e9)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": 2}, "version 2"),
        ({"node": "n" * 65}, "length"),
        ({"samples": (Sample(1, 0.0, gpus()), Sample(1, 0.0, gpus()))}, "not in order"),
        ({"samples": (Sample(1, 0.0, gpus(7)),)}, "another number of GPUs"),
        ({"samples": (Sample(1, -1.0, gpus()),)}, "age"),
        ({"samples": (Sample(1, 0.0, gpus(sm=101)),)}, "<= 100"),
        ({"gpus": infos(4) + infos(4)}, "the same index"),
        ({"period": 0.0}, "> 0"),
        ({"samples": tuple(Sample(i, 0.0, ()) for i in range(513)), "gpus": ()}, "length <= 512"),
    ],
)
def test_what_a_batch_may_not_be(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(wire.NotABatch) as found:
        wire.decode_batch(wire.encode(batch(**changes)))
    assert why in str(found.value) or "`$" in str(found.value)


def test_a_batch_of_the_buffer_survives_the_way() -> None:
    whole = batch(count=12)
    data = wire.encode(whole)
    assert wire.decode_batch(data) == whole
    assert len(data) < 12_000
    with pytest.raises(wire.NotABatch, match="at most"):
        wire.decode_batch(data + b"\0" * wire.MAX_PAYLOAD)
    assert msgspec.msgpack.decode(data)[1] == "n1"
