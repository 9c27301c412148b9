"""Documents and examples say what the program does."""

import json
import re
import typing
from pathlib import Path

import msgspec
import pytest
from tools import gen_docs

from colocd.config import RULES, Config, check_config, parse_config
from colocd.core.service import ServiceSpec
from colocd.servicefile import parse_service, service_warnings
from colocd.telemetry.names import CUSTOM, FACTS, SERVERS, SPREADS

ROOT = Path(__file__).parents[2]


def test_the_configuration_page_is_current() -> None:
    assert gen_docs.TARGET.read_text(encoding="utf-8") == gen_docs.render(), "run python tools/gen_docs.py"


def test_the_check_finds_an_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "configuration.md"
    monkeypatch.setattr(gen_docs, "TARGET", page)
    monkeypatch.setattr("sys.argv", ["gen_docs.py", "--check"])
    with pytest.raises(SystemExit, match="not current"):
        gen_docs.main()
    page.write_text(gen_docs.render(), encoding="utf-8")
    gen_docs.main()


def test_the_example_configuration_is_fine_and_only_advises(tmp_path: Path) -> None:
    path = ROOT / "systemd" / "colocd.toml.example"
    assert check_config(path) == []
    assert parse_config(path.read_text(), "f").mode == "advise"


def test_the_example_configuration_shows_the_defaults() -> None:
    text = (ROOT / "systemd" / "colocd.toml.example").read_text()
    shown = re.sub(r"^# (?=\w+ = |\[)", "", text, flags=re.MULTILINE)
    config = parse_config(shown, "f")
    assert config.policy == Config().policy
    assert msgspec.structs.replace(config.cycle, wake_file=None) == Config().cycle
    assert config.database == Config().database
    keys = {key for key in RULES if "[]" not in key} - {"topology.sources", "slurm.adapter"}
    section, seen = "", set()
    for line in shown.splitlines():
        if header := re.fullmatch(r"\[+([\w.]+)\]+", line):
            section = header[1] + "."
        elif pair := re.match(r"(\w+) = ", line):
            seen.add(section + pair[1])
    assert keys <= seen


def test_the_example_service_is_fine() -> None:
    spec = parse_service((ROOT / "systemd" / "service.toml.example").read_text(), "f")
    assert service_warnings(msgspec.structs.replace(spec, user="root")) == []


def rows(text: str) -> dict[str, str]:
    """First column (without backticks) to second column of all tables of a page."""
    return {match[1]: match[2].strip() for match in re.finditer(r"^\| `(\w+)` \|([^|]*)\|", text, re.MULTILINE)}


def test_the_service_page_has_every_key_with_its_default() -> None:
    text = (ROOT / "docs" / "service-file.md").read_text()
    head, *tables = re.split(r"^`\[(?=\w+\]`)", text, flags=re.MULTILINE)
    pages = {"": rows(head), **{table.partition("]")[0]: rows(table) for table in tables}}
    assert pages[""].pop("script_file") == ""
    hints = typing.get_type_hints(ServiceSpec)
    kinds = {"": ServiceSpec, **{name: hints[name] for name in ("capacity", "slo", "drain", "load", "ready")}}
    for name, kind in kinds.items():
        expected = {}
        for field in msgspec.structs.fields(kind):
            if field.name in kinds and not name:
                continue
            if field.required:
                expected[field.name] = "must be given"
                continue
            default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
            expected[field.name] = "not set" if default is None else f"`{json.dumps(default)}`"
        assert pages[name] == expected


def test_the_metrics_page_names_every_series() -> None:
    text = (ROOT / "docs" / "serving-metrics.md").read_text()
    table = {
        cells[0].strip(): [cell.strip() for cell in cells[1:]]
        for cells in (
            line.strip("|").split("|")
            for line in text.partition("\n## ")[0].splitlines()
            if line.startswith("|") and "---" not in line
        )
    }
    servers = [cell.strip("`") for cell in table.pop("fact")]
    assert set(servers) == set(SERVERS) - {CUSTOM}
    assert tuple(table) == (*FACTS, *SPREADS)
    for fact, cells in table.items():
        for server, cell in zip(servers, cells, strict=True):
            shown = [
                source.name
                + "".join(f'{{{name}="{value}"}}' for name, value in source.labels)
                + (f" ({' * '.join(source.product)})" if source.product else "")
                for source in SERVERS[server].get(fact, ())
            ]
            assert cell == ", ".join(f"`{name}`" for name in shown)
