"""The agent's unit is accepted by systemd without a warning, and hardened; its example configuration is a valid one."""

import re
from pathlib import Path

import pytest
from tests.systemd.test_units import UNITS, systemd

from colocd.agent.__main__ import FEED
from colocd.agent.sample import DriverReplaced
from colocd.agent.send import MOST, TIMEOUT
from colocd.agent.settings import Settings, load_settings
from colocd.errors import BadConfig, NotFound

SERVICE = UNITS / "coloc-agent.service"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    text = SERVICE.read_text()
    assert "ExecStart=/usr/bin/coloc-agent " in text
    copy = tmp_path / "coloc-agent.service"
    copy.write_text(text.replace("/usr/bin/coloc-agent", "/bin/true"))
    return copy


def values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", SERVICE.read_text(), re.MULTILINE)


def test_verify_is_silent(unit: Path) -> None:
    assert systemd("systemd-analyze", "verify", str(unit)) == ""


def test_exposure(unit: Path) -> None:
    said = systemd("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit))
    found = re.search(r"Overall exposure level for coloc-agent.service: ([0-9.]+)", said)
    assert found, said
    assert float(found.group(1)) <= 2.5


def test_no_right_is_left() -> None:
    assert values("CapabilityBoundingSet") == values("AmbientCapabilities") == [""]
    assert values("User") == ["coloc-agent"]
    assert values("NoNewPrivileges") == ["yes"]


def test_what_a_restart_mends() -> None:
    (never,) = values("RestartPreventExitStatus")
    assert {int(code) for code in never.split()} == {BadConfig.exit_code, NotFound.exit_code}
    assert str(DriverReplaced.exit_code) not in never.split()
    assert values("Restart") == ["always"]


def test_the_watchdog_is_slower_than_the_slowest_round() -> None:
    """A round waits `FEED`, and sends `MOST` batches that take `TIMEOUT` for the connection and for the answer each."""
    (told,) = values("WatchdogSec")
    assert int(told.removesuffix("min")) * 60 > FEED + MOST * 2 * TIMEOUT
    assert values("NotifyAccess") == ["main"]


def test_the_runtime_folder_is_where_faults_are_kept() -> None:
    (folder,) = values("RuntimeDirectory")
    assert str(Path(Settings(server="x:1").faults or "").parent) == f"/run/{folder}"
    assert values("RuntimeDirectoryPreserve") == ["yes"]


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    text = (UNITS / "agent.toml.example").read_text()
    shown = re.sub(r"^# (\w+ = \S+).*$", r"\1", text, flags=re.MULTILINE)
    (tmp_path / "agent.toml").write_text(shown)
    found = load_settings(tmp_path / "agent.toml")
    defaults = Settings(server=found.server)
    assert {f for f in Settings.__struct_fields__ if getattr(found, f) != getattr(defaults, f)} == {
        "node",
        "munge_socket",
    }
    assert set(re.findall(r"^(\w+) =", shown, re.MULTILINE)) == set(Settings.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "server: is missing"),
        ('server = "head"', "1: server: must be host:port"),
        ('server = "head:0"', "must be host:port"),
        ('server = "fe80::1:6822"', "must be host:port"),
        ('server = "h:1"\nperiod = 0', "2: period: must be above 0"),
        ('server = "h:1"\nperiod = 20', "send_every: must not be shorter than period"),
        ('server = "h:1"\nfaults = "x"', "must be an absolute path"),
        ('server = "h:1"\nservre = 1', "did you mean 'server'"),
    ],
)
def test_mistakes_in_the_configuration(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(BadConfig) as found:
        load_settings(tmp_path / "agent.toml")
    assert why in str(found.value)
