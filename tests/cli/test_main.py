"""The command line itself: help, errors, exit codes, quiet ends."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from tests.api.fake_backend import AT, FakeBackend
from tests.cli.conftest import Coloc, python_path
from tests.helpers.views import batch, service
from tests.helpers.views import view as filled

from coloc_cli import main
from coloc_cli.main import COMMANDS, LazyGroup, cli
from colocd.api.server import ApiServer
from colocd.core.actions import encode_plan
from colocd.core.plan import plan
from colocd.core.view import Node, ServiceView, View, encode_view
from colocd.errors import ColocError
from colocd.store.schema import check

ROOT = Path(__file__).parents[2]
Fresh = Callable[..., subprocess.CompletedProcess[bytes]]


def kinds(base: type[ColocError] = ColocError) -> Iterator[type[ColocError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_exit_codes_are_unique_and_documented() -> None:
    text = (ROOT / "docs" / "exit-codes.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| `?(\w*)", text, re.M))
    known = {kind.__name__: kind for kind in kinds()}
    assert len({kind.exit_code for kind in known.values()}) == len(known)
    assert {str(kind.exit_code): name for name, kind in known.items()} == {c: n for c, n in rows.items() if n in known}
    for kind in known.values():
        assert kind.hint
        assert not kind.hint.endswith(".")
        assert kind.__doc__
        assert f"| {kind.exit_code} |" in text
    assert set(rows) == {str(kind.exit_code) for kind in known.values()} | {"0", "130"}


def test_help_shows_every_command_without_importing_any(fresh: Fresh) -> None:
    code = """
import sys
from coloc_cli.main import run
code = run(["--help"])
heavy = ("httpx", "rich", "numpy", "sqlalchemy", "msgspec", "starlette", "uvicorn", "coloc_cli.commands", "asyncio")
print([name for name in heavy if name in sys.modules], code)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=python_path(), check=True)
    *text, last = done.stdout.splitlines()
    assert last == "[] 0"
    for name, line in COMMANDS.items():
        assert any(shown.split(None, 1) == [name, line] for shown in text if shown.strip())


def test_help_lines_are_the_commands_own() -> None:
    assert isinstance(cli, LazyGroup)
    own = {path[0]: command.get_short_help_str(200) for path, command in commands(cli) if len(path) == 1}
    assert own == {name: line.rstrip(".") + "." for name, line in COMMANDS.items()}


def test_every_command_explains_itself(coloc: Coloc) -> None:
    for path, command in commands(cli):
        assert command.help, path
        if path != ("sbatch",):
            assert coloc(*path, "--help").code == 0


def test_documented(coloc: Coloc) -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    for path, _ in commands(cli):
        assert f"coloc {' '.join(path)}" in text


@pytest.mark.parametrize(
    ("argv", "sentence", "hint"),
    [
        (["nonsense"], "No such command 'nonsense'", "coloc --help"),
        (["--nonsense"], "No such option", "coloc --help"),
        (["explain"], "Missing argument", "coloc explain --help"),
        (["service", "apply"], "Missing argument", "coloc service apply --help"),
        (["history", "-n", "many"], "Invalid value", "coloc history --help"),
    ],
)
def test_usage_errors(coloc: Coloc, argv: list[str], sentence: str, hint: str) -> None:
    said = coloc(*argv)
    assert (said.code, said.out) == (64, "")
    first, second = said.err.splitlines()
    assert first.startswith("coloc: ")
    assert sentence in first
    assert (second[:2], hint in second) == ("  ", True)


@pytest.mark.parametrize("argv", [[], ["service"], ["db"]])
def test_without_a_command_help_is_shown(coloc: Coloc, argv: list[str]) -> None:
    said = coloc(*argv)
    assert (said.code, "Usage: coloc" in said.out, said.err) == (0, True, "")


def test_version(coloc: Coloc) -> None:
    assert coloc("--version").out.startswith("coloc ")


def test_no_daemon(coloc: Coloc) -> None:
    said = coloc("status")
    assert (said.code, "colocd is not running" in said.err) == (72, True)


@pytest.mark.parametrize("argv", [("--config", "FILE", "status"), ("status", "--config", "FILE")])
def test_config_option(
    coloc: Coloc, daemon: ApiServer, config_file: Path, argv: tuple[str, ...], tmp_path: Path
) -> None:
    words = [str(config_file) if word == "FILE" else word for word in argv]
    assert coloc(*words, COLOC_CONFIG="/nowhere").code == 0
    words = [str(tmp_path / "none") if word == "FILE" else word for word in argv]
    assert coloc(*words).code == 78


def test_wrong_configuration(coloc: Coloc, config_file: Path) -> None:
    config_file.write_text("[api]\nsocket = 3\n")
    said = coloc("status")
    assert (said.code, "[api]" in said.err, str(config_file) in said.err) == (78, True, True)


def test_unexpected_errors(coloc: Coloc, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> int:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(main, "_invoke", fail)
    said = coloc("status")
    assert (said.code, said.err.splitlines()[0]) == (70, "coloc: unexpected RuntimeError: two lines")
    assert "Traceback" not in said.err


def test_traceback_only_when_asked_for(coloc: Coloc, daemon: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coloc_cli.output.as_json", lambda value: 1 / 0)
    assert "Traceback" not in coloc("status", "--json").err
    said = coloc("status", "--json", "--verbose")
    assert (said.code, "Traceback" in said.err) == (70, True)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Commands do not inherit an interrupt that is ignored, as it is in the background of a shell script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_interrupted(config_file: Path, daemon: ApiServer, backend: FakeBackend, interruptible: None) -> None:
    backend.gate.clear()
    argv = [sys.executable, "-m", "coloc_cli.main", "queue"]
    env = {**python_path(), "COLOC_CONFIG": str(config_file)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        assert backend.waiting.wait(30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"", b"")


def test_reader_gone(config_file: Path, daemon: ApiServer) -> None:
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-m", "coloc_cli.main", "status"]
    env = {**python_path(), "COLOC_CONFIG": str(config_file)}
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, env=env, timeout=60, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (130, b"")


def test_db(coloc: Coloc, config_file: Path, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/c.db"
    config_file.write_text(f'[database]\nurl = "{url}"\n')
    assert (coloc("db", "check").code, coloc("db", "check", "--json").code) == (76, 76)
    assert "schema created" in coloc("db", "upgrade").out
    assert "nothing to do" in coloc("db", "upgrade").out
    assert coloc("db", "check").code == 0
    assert coloc("db", "check", "--json").json["up_to_date"] is True
    assert check(url).up_to_date
    assert coloc("db", "check", "--url", f"sqlite:///{tmp_path}/other.db").code == 76


def test_config_check(coloc: Coloc, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text('mode = "act"\n[database]\nurl = "sqlite:////var/lib/coloc/c.db"\n')
    assert coloc("config", "check", str(file)).code == 0
    file.write_text("[cycle]\nperiod = 1.0\n")
    assert "warning: " in coloc("config", "check", str(file)).out
    assert coloc("config", "check", "--strict", str(file)).code == 78
    assert coloc("--config", str(file), "config", "check", "--json").json["warnings"]
    file.write_text("mode = 3\n")
    said = coloc("config", "check", str(file))
    assert (said.code, f"{file}" in said.err) == (78, True)


def test_plan_of_a_file_that_is_no_view(coloc: Coloc, tmp_path: Path) -> None:
    file = tmp_path / "view.json"
    for text in ("{", '{"at": "yesterday"}', "\xff"):
        file.write_text(text, encoding="latin-1")
        said = coloc("plan", "--view", str(file))
        assert (said.code, "is not a view" in said.err) == (65, True)
    file.write_text('{"version": 99, "at": 1}')
    assert "version 99" in coloc("plan", "--view", str(file)).err
    assert coloc("plan", "--view", str(tmp_path / "none")).code == 65


def test_why_not_that_node(coloc: Coloc, tmp_path: Path) -> None:
    job = batch(1, {"n2": 0xFF})
    file = tmp_path / "view.json"
    file.write_bytes(encode_view(filled(job, nodes=2, services=(ServiceView(spec=service()),))))
    assert "would go there: GPUs 0-1 (NVLINK) are free" in coloc("plan", "--view", str(file), "--why", "n1").out
    told = coloc("plan", "--view", str(file), "--why", "n2", "--json").json["services"]["chat"]
    assert told.startswith("goes elsewhere: GPUs 0-1 (NVLINK) from 1 for 8600 GPU-seconds; the best is n1")
    said = coloc("plan", "--view", str(file), "--why", "n3")
    assert (said.code, "there is no node n3" in said.err) == (66, True)


def test_plan_of_a_view(coloc: Coloc, tmp_path: Path) -> None:
    view = View(at=AT, nodes=(Node(name="n1", address="127.0.0.1", up=True, gpus=8, used=0, shape="quads"),))
    file = tmp_path / "view.json"
    file.write_bytes(encode_view(view))
    assert coloc("plan", "--view", str(file), "--json").out.encode() == encode_plan(plan(view))
    assert coloc("plan", "--view", str(file)).out.startswith("plan ")
