"""What is learned reaches the view, survives a restart, and starts are measured."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.helpers.daemon_rig import SERVICE, DaemonRig

from colocd.core.lead import ENOUGH
from colocd.core.view import decode_view


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DaemonRig]:
    rig = DaemonRig(tmp_path)
    yield rig
    rig.close()


def body(running: float, waiting: float) -> str:
    return f"vllm:num_requests_running {running}\nvllm:num_requests_waiting {waiting}\n"


def test_minutes_become_capacity_and_outlive_a_restart(rig: DaemonRig) -> None:
    """One request a replica waits whenever it carries eight: 10 was too much to ask."""
    text = SERVICE.format(name="chat", port=rig.endpoint.port).replace("/metrics", "/metrics?slot={slot}")
    rig.daemon.answers.apply_service(text, "chat.toml")
    rig.endpoint.value = 4.0
    rig.run(20)
    for n in range(20):
        rig.endpoint.body = body(4.0, 0.0) if n % 2 else body(7.0, 1.0)
        for _ in range(20):  # ten minutes, a cycle each thirty seconds
            rig.daemon.cycle()
            rig.clock.advance(30)
    data = rig.store.learned("capacity")["chat"].data
    assert sum(good + bad for good, bad in data["bins"].values()) > 100
    assert 9.0 < data["capacity"] < 10.0
    rig.restart()
    rig.daemon.cycle()
    (seen,) = decode_view(rig.daemon.answers.view()).services
    assert seen.capacity is not None
    assert seen.capacity.learned
    assert "waited for room" in seen.capacity.why


def test_starts_are_measured(rig: DaemonRig) -> None:
    rig.apply()
    rig.endpoint.value = 5.0
    rig.run(20)
    for _ in range(ENOUGH):
        (job,) = rig.jobs("coloc-chat")
        rig.slurm.cancel([job.ref])
        rig.run(40)
    starts = rig.store.learned("lead")["chat"].data["starts"]
    assert len(starts) == ENOUGH + 1
    assert all(0 <= s["reclaim"] < 20 and 0 <= s["start"] < 20 and 0 <= s["ready"] < 20 for s in starts)
    rig.daemon.cycle()
    (seen,) = decode_view(rig.daemon.answers.view()).services
    assert seen.lead is not None
    assert seen.lead.seconds < 20
    assert "6 starts" in seen.lead.why
