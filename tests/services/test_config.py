import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd import config as module
from colocd import servicefile
from colocd.config import RULES, Config, check_config, config_warnings, load_config, parse_config
from colocd.core.service import ServiceSpec
from colocd.errors import BadConfig

ROOT = Path(__file__).parents[2]


def leaves(kind: type[msgspec.Struct], prefix: str = "") -> set[str]:
    """Dotted names of all keys that a file can hold, array items as `[]`."""
    found: set[str] = set()
    for name, hint in typing.get_type_hints(kind).items():
        key = prefix + name
        inner = next((arg for arg in typing.get_args(hint) if arg is not type(None)), hint)
        if typing.get_origin(hint) is tuple:
            found.add(key)
            found |= leaves(inner, f"{key}[].") if issubclass(inner, msgspec.Struct) else {f"{key}[]"}
        elif isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            found |= leaves(hint, f"{key}.")
        else:
            found.add(key)
    return found


@pytest.mark.parametrize(
    ("kind", "rules", "extra"), [(Config, RULES, set()), (ServiceSpec, servicefile.RULES, {"script_file"})]
)
def test_every_key_has_a_rule_and_every_rule_a_key(
    kind: type[msgspec.Struct], rules: dict[str, Any], extra: set[str]
) -> None:
    assert leaves(kind) | extra == set(rules)


def test_defaults_obey_the_rules() -> None:
    assert parse_config("", "f") == Config()
    assert config_warnings(Config()) == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("database.url = 'sqlite://'", "database.url"),
        ("database.url = 'sqlite:///relative.db'", "database.url"),
        ("database.url = 'sqlite:///:memory:'", "database.url"),
        ("database.url = 'mysql://x/y'", "database.url"),
        ("database.url = 'postgresql+psycopg://'", "database.url"),
        ("database.keep_load = 0", "database.keep_load"),
        ("slurm.conf = 'slurm.conf'", "slurm.conf"),
        ("slurm.bin_dir = ''", "slurm.bin_dir"),
        ("slurm.timeout = '11m'", "slurm.timeout"),
        ("topology.sources = [{ nodes = 'n[1-', file = '/x' }]", "topology.sources[0].nodes"),
        ("topology.sources = [{ nodes = '', file = '/x' }]", "topology.sources[0].nodes"),
        ("topology.sources = [{ nodes = 'n1', file = 'x' }]", "topology.sources[0].file"),
        ("cycle.period = 0", "cycle.period"),
        ("cycle.handover_period = 11", "cycle.handover_period"),
        ("cycle.horizon = 1", "cycle.horizon"),
        ("policy.peak_quantile = 1", "policy.peak_quantile"),
        ("policy.valley_quantile = 0.0", "policy.valley_quantile"),
        ("policy.batch_partitions = []", "policy.batch_partitions"),
        ("policy.batch_partitions = ['']", "policy.batch_partitions[0]"),
        ("policy.spare_replicas = -1", "policy.spare_replicas"),
        ("policy.eviction_cost = inf", "policy.eviction_cost"),
        ("policy.cooldown = -0.1", "policy.cooldown"),
        ("api.socket = 'coloc.sock'", "api.socket"),
        ("api.socket = '/" + "x" * 107 + "'", "api.socket"),
        ("api.socket = '/" + "é" * 54 + "'", "api.socket"),
        ('api.socket = "/a\\u0000b"', "api.socket"),
        ("api.socket = '/s'\napi.admin_socket = '/s'", "api.admin_socket"),
        ("api.group = ' '", "api.group"),
    ],
)
def test_values_out_of_range_are_refused(text: str, key: str) -> None:
    with pytest.raises(BadConfig, match=rf"^f:\d+: {key}: ".replace("[0]", r"\[0\]")):
        parse_config(text, "f")


@pytest.mark.parametrize(
    "text",
    [
        "database.url = 'sqlite:////a.db?timeout=3'",
        "database.url = 'postgresql+psycopg://coloc@db/coloc'",
        "api.socket = '/" + "x" * 106 + "'",
        "policy.grace = '1h30m'",
        "policy.max_evictions_per_job = 0",
        "policy.cooldown = 0",
    ],
)
def test_values_at_the_edge_are_taken(text: str) -> None:
    parse_config(text, "f")


@pytest.mark.parametrize(
    "text",
    [
        "policy.stale_after = 15",
        "cycle.period = 1",
        "slurm.timeout = 61",
        "policy.peak_quantile = 0.4",
        "policy.valley_quantile = 0.4",
        "policy.grace = 5",
        "policy.grace = '2h'",
        "policy.max_evictions_per_job = 0",
        "policy.max_unsaved = 0",
        "database.keep_load = '2d'",
        "database.keep_raw = '3d'",
    ],
)
def test_odd_values_are_warned_of(text: str, tmp_path: Path) -> None:
    path = tmp_path / "colocd.toml"
    path.write_text(text)
    assert any(warning.startswith(f"{path}: {text.split(' ')[0]} ") for warning in check_config(path))


def test_a_readable_password_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "colocd.toml"
    path.write_text("database.url = 'postgresql+psycopg://coloc:secret@db/coloc'")
    path.chmod(0o644)
    (warning,) = check_config(path)
    assert "chmod" in warning
    assert "secret" not in warning
    path.chmod(0o640)
    assert check_config(path) == []


def test_which_file_is_read(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.toml", tmp_path / "theirs.toml"
    ours.write_text("mode = 'act'")
    theirs.write_text("")
    environ = {"COLOC_CONFIG": str(ours)}
    assert load_config(None, environ).mode == "act"
    assert load_config(theirs, environ).mode == "advise"
    assert module.config_path(None, {}) == Path("/etc/coloc/colocd.toml")


@pytest.mark.parametrize("name", ["missing.toml", ".", "missing/x.toml", "a\0b"])
def test_no_file_is_one_sentence_and_a_next_step(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load_config(tmp_path / name, {})
    assert caught.value.hint


def test_not_utf8_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "colocd.toml"
    path.write_bytes(b"\n\nmode = '\xff'")
    with pytest.raises(BadConfig, match=r"colocd.toml:3: is not UTF-8"):
        load_config(path, {})


keys = st.sampled_from([*sorted(RULES), "policy", "api", "x"]).map(lambda key: key.replace("[]", ""))
values = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["true", "''", "'/x'", "'5m'", "[]", "[1]", "['a']", "{}", "2024-01-01", "[{}]", '"\\u0000"', "'1e999d'"]
    ),
)


@given(st.lists(st.tuples(keys, values), max_size=4, unique_by=lambda pair: pair[0]))
def test_any_value_is_taken_or_refused_with_a_line(pairs: list[tuple[str, str]]) -> None:
    text = "\n".join(f"{key} = {value}" for key, value in pairs)
    said = ""
    try:
        config_warnings(parse_config(text, "f"))
    except BadConfig as error:
        said = str(error)
    assert not said or said.startswith(tuple(f"f:{line + 1}: " for line in range(len(pairs))))
