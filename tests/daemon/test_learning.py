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


def test_replicas_behind_one_url_are_learned_from_their_sum(rig: DaemonRig) -> None:
    """Two replicas read as one: at 14 requests together one waits for room in each, at 8 none does."""
    text = SERVICE.format(name="chat", port=rig.endpoint.port).replace("min_replicas = 1", "min_replicas = 2")
    rig.daemon.answers.apply_service(text.replace("max_replicas = 6", "max_replicas = 2"), "chat.toml")
    rig.endpoint.value = 8.0
    rig.run(20)
    for n in range(12):
        rig.endpoint.body = body(8.0, 0.0) if n % 2 else body(14.0, 2.0)
        for _ in range(20):
            rig.daemon.cycle()
            rig.clock.advance(30)
    data = rig.store.learned("capacity")["chat"].data
    seen = {round(1.1 ** int(i), 1): counts for i, counts in data["bins"].items()}
    assert all(load < 9.0 for load in seen), "a replica's part, not the sum"
    assert all((good > 20) == (load < 5.0) and (bad > 20) == (load > 7.0) for load, (good, bad) in seen.items()), seen
    assert 9.0 < data["capacity"] < 10.0
    rig.daemon.cycle()
    (chat,) = decode_view(rig.daemon.answers.view()).services
    assert chat.capacity is not None
    assert chat.capacity.learned
    assert "count as equally loaded" in chat.capacity.why


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


def test_growth_becomes_a_margin_that_is_told_and_outlives_a_restart(rig: DaemonRig) -> None:
    """The load jumps by half every few minutes: a replica more than it needs now stands ready for the next jump."""
    text = SERVICE.format(name="chat", port=rig.endpoint.port).replace(
        "target_use = 1.0", "learn = false\ntarget_use = 1.0"
    )
    rig.daemon.answers.apply_service(text, "chat.toml")
    rig.endpoint.value = 8.0
    rig.run(20)
    for n in range(150):
        rig.endpoint.value = 12.0 if n % 5 == 4 else 8.0
        rig.daemon.cycle()
        rig.clock.advance(60)
    rig.endpoint.value = 8.0
    rig.run(120)
    rig.restart()
    rig.daemon.cycle()
    rig.clock.advance(5)
    rig.daemon.cycle()
    (seen,) = decode_view(rig.daemon.answers.view()).services
    assert seen.surge is not None
    assert 0.4 < seen.surge.share <= 0.5
    (row,) = rig.daemon.answers.status()["services"]
    assert row["need"] == 2
    assert row["surge"]["share"] == seen.surge.share
    assert row["capacity"]["why"] == "configured"
    now = rig.daemon.answers.explain("chat")["now"]
    assert "a replica carries 10 (configured), used up to 100%" in now
    assert "s ahead (configured: 20 s" in now
    assert f"{seen.surge.share:.0%} is added to its load (in 90% of cases it grew by no more" in now
    text = rig.daemon.answers.metrics().decode()
    assert 'coloc_service_capacity{service="chat",source="configured"} 10.0' in text
    assert 'coloc_service_lead_seconds{service="chat"}' in text
    assert f'coloc_service_margin_ratio{{service="chat"}} {seen.surge.share}' in text
