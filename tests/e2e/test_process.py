"""colocd as a process under (a stand-in for) systemd: readiness, watchdog, end, refusals at the start."""

import os
import sqlite3

import pytest
from tests.helpers.live import LiveSite

from colocd.testcluster import processes

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


def test_systemd_is_told(site: LiveSite) -> None:
    site.load(5)
    site.begin()
    colocd = site.colocd
    assert colocd is not None
    site.until(lambda: colocd.said("WATCHDOG=1") >= 4, "four finished cycles")
    first = colocd.messages[0].splitlines()
    assert first[0] == "READY=1"
    for message in list(colocd.messages):
        lines = message.splitlines()
        assert "WATCHDOG=1" in lines
        assert any(line.startswith("STATUS=") and len(line) > 10 for line in lines)
    assert "STOPPING=1" not in colocd.messages
    sockets = [site.base / "c.sock", site.base / "a.sock"]
    assert all(s.exists() for s in sockets)
    assert colocd.stop() == 0
    assert colocd.said("STOPPING=1") == 1
    assert not any(s.exists() for s in sockets)
    assert "colocd has ended cleanly" in site.tail()
    assert site.coloc("status", check=False).returncode == 72


def test_the_watchdog_hears_nothing_while_a_cycle_hangs(site: LiveSite) -> None:
    site.begin()
    colocd = site.colocd
    assert colocd is not None
    site.cluster.pause_controller()
    try:
        before = colocd.said("WATCHDOG=1")
        site.clock.sleep(3.0)
        assert colocd.said("WATCHDOG=1") <= before + 1  # at most the cycle that was under way
        assert site.ask("status")["mode"] == "act"  # people still get answers
    finally:
        site.cluster.resume_controller()
    site.until(lambda: colocd.said("WATCHDOG=1") > before + 1, "the next cycle")


def test_a_start_without_slurm(site: LiveSite) -> None:
    """colocd is ready all the same, says what is wrong, and begins when Slurm comes back."""
    site.settings["slurm"]["timeout"] = 2.0
    site.write_config("act")
    site.load(5)
    site.cluster.stop_controller()
    try:
        site.begin()
        assert site.colocd is not None
        assert "nothing was done" in site.colocd.status()[0]
        status = site.ask("status")
        assert (status["slurm"], status["gpus"]) == (None, None)
        assert site.coloc("plan", check=False).returncode == 69
    finally:
        site.cluster.start_controller()
    site.until(lambda: site.ready() == 1, "the first replica")


def test_a_schema_that_is_not_at_head(site: LiveSite) -> None:
    colocd = site.start(ready=False)
    assert colocd.wait() == 76
    assert "coloc db upgrade" in site.tail()
    assert not (site.base / "c.sock").exists()
    site.upgrade()
    with sqlite3.connect(site.base / "coloc.db") as base:
        base.execute("UPDATE alembic_version SET version_num = 'of the future'")
    base.close()
    colocd = site.start(ready=False)
    assert colocd.wait() == 76
    assert colocd.messages == []


def test_two_at_once(site: LiveSite) -> None:
    """The second colocd must not take the sockets of the first one, nor act beside it."""
    site.load(5)
    site.begin()
    site.until(lambda: site.ready() == 1, "the first replica")
    first = site.colocd
    second = site.start(ready=False)
    code = second.wait()
    site.colocd = first
    assert code not in (0, None)
    assert "Traceback" not in site.tail()
    assert site.ask("status")["mode"] == "act"
    assert len(site.replicas()) == 1


def test_bad_configuration(site: LiveSite) -> None:
    site.config.write_text("mode = 3\n")
    assert site.start(ready=False).wait() == 78
    site.config.unlink()
    assert site.start(ready=False).wait() == 78
    assert "systemd/colocd.toml.example" in site.tail()


def test_interrupt_ends_it_as_well(site: LiveSite) -> None:
    site.upgrade()
    colocd = site.start()
    os.kill(colocd.process.pid, 2)
    assert colocd.wait() == 0


def test_replicas_see_nothing_of_the_daemons_environment(site: LiveSite) -> None:
    site.load(5)
    os.environ["COLOC_TEST_SECRET"] = "hush"
    try:
        site.begin()
    finally:
        del os.environ["COLOC_TEST_SECRET"]
    site.until(lambda: site.ready() == 1, "the first replica")
    server = str(site.base / "chat_server.py")
    servers = [p for p in processes.every() if server in p.argv]
    assert servers
    for process in servers:
        assert not [word for word in process.environ if "hush" in word]
