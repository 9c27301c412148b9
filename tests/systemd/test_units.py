"""The unit is accepted by systemd without a warning, and hardened; sysusers and tmpfiles parse."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = UNITS / "colocd.service"


def systemd(*words: str, root: Path | None = None) -> str:
    """Run a systemd tool; its complaints and output together. The tools run offline, without a running systemd."""
    argv = [words[0], *([f"--root={root}"] if root else []), *words[1:]]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.fail(f"{words[0]} is missing: run tools/setup.sh packages")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here."""
    text = SERVICE.read_text()
    assert "ExecStart=/usr/bin/colocd " in text
    copy = tmp_path / "colocd.service"
    copy.write_text(text.replace("/usr/bin/colocd", "/bin/true"))
    return copy


def values(key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", SERVICE.read_text(), re.MULTILINE)


def test_verify_is_silent(unit: Path) -> None:
    assert systemd("systemd-analyze", "verify", str(unit)) == ""


def test_verify_would_complain(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("UMask=", "UMaks="))
    assert "UMaks" in systemd("systemd-analyze", "verify", str(unit))


def test_exposure(unit: Path) -> None:
    said = systemd("systemd-analyze", "security", "--offline=true", "--no-pager", str(unit))
    found = re.search(r"Overall exposure level for colocd.service: ([0-9.]+)", said)
    assert found, said
    assert float(found.group(1)) <= 2.0


def test_no_capability_is_left() -> None:
    assert values("CapabilityBoundingSet") == [""]
    assert values("AmbientCapabilities") == [""]
    assert values("User") == ["root"]


def test_lives_through_a_restart_of_slurm() -> None:
    (after,) = values("After")
    assert {"munge.service", "slurmctld.service"} <= set(after.split())
    assert values("Requires") == []
    assert values("BindsTo") == []
    assert values("PartOf") == []


def test_errors_that_a_restart_cannot_mend_end_it() -> None:
    """The exit codes of bad files, rights, schema and configuration, taken from the error classes themselves."""
    from colocd.errors import BadConfig, BadFile, BadRequest, NotAllowed, SchemaOutdated

    (codes,) = values("RestartPreventExitStatus")
    expected = {e.exit_code for e in (BadConfig, BadFile, BadRequest, NotAllowed, SchemaOutdated)}
    assert {int(code) for code in codes.split()} == expected


def test_folders_of_the_unit_match_the_defaults_of_the_configuration() -> None:
    from colocd.config import Config

    config = Config()
    assert values("StateDirectory") == values("RuntimeDirectory") == values("ConfigurationDirectory") == ["coloc"]
    assert config.database.url.startswith("sqlite:////var/lib/coloc/")
    assert {str(Path(s).parent) for s in (config.api.socket, config.api.admin_socket)} == {"/run/coloc"}


def test_every_key_is_written_once_unless_it_adds_up() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(SERVICE.read_text())
    for section in parser.sections():
        for key in parser[section]:
            times = len(re.findall(rf"^{key}=", SERVICE.read_text(), re.MULTILINE | re.IGNORECASE))
            assert times == 1 or key == "systemcallfilter", f"[{section}] {key} is written {times} times"


def test_sysusers_and_tmpfiles(tmp_path: Path) -> None:
    """In an empty root: the group is made, then the folders it owns."""
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc" / name).touch()
    systemd("systemd-sysusers", str(UNITS / "colocd.sysusers"), root=tmp_path)
    assert re.search(r"^coloc:x:\d+:", (tmp_path / "etc/group").read_text(), re.MULTILINE)
    (user,) = re.findall(r"^coloc:.*$", (tmp_path / "etc/passwd").read_text(), re.MULTILINE)
    assert user.endswith("nologin"), "operators' account is for membership only"
    rules = (UNITS / "colocd.tmpfiles").read_text()
    kinds = {line.split()[0] for line in rules.splitlines() if line and not line.startswith("#")}
    assert kinds == {"d", "z"}, "nothing is ever removed or emptied"
