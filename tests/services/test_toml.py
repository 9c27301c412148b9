import string
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.config import Config, parse_config
from colocd.errors import BadConfig
from colocd.toml import decode, key_name
from colocd.toml_lines import Path, key_lines
from colocd.units import seconds

TEXT = '''\
mode = "act"  # [not.a.table]
policy.grace = """
[cycle]
period = 3
"""
database = { url = "a = 1, b", "keep_load" = [1,
  2], 'keep.decisions' = { x = 1 } }

[cycle]
"per\\u0069od" = 1
horizon.deep.er = \'\'\'
]] = \'\'\'\'\'

[[topology.sources]]
nodes = "n1"   # "
list = [ # ]
  "]",

  { a = 1,  b = 2 },
]
[topology.sources.inner]
z = 1979-05-27T07:32:00Z
[[topology.sources]]
file = "x"
[ topology . "sources" . other ]
k = +1e3
'''

KEYS = "mode, database, slurm, topology, cycle, telemetry, forecast, policy, api, hook, routing"


def test_lines_of_every_way_to_write_a_key() -> None:
    tomllib.loads(TEXT)
    lines = key_lines(TEXT)
    expected: dict[Path, int] = {
        ("mode",): 1,
        ("policy", "grace"): 2,
        ("database",): 6,
        ("database", "url"): 6,
        ("database", "keep_load"): 6,
        ("database", "keep_load", 1): 7,
        ("database", "keep.decisions", "x"): 7,
        ("cycle",): 9,
        ("cycle", "period"): 10,
        ("cycle", "horizon", "deep", "er"): 11,
        ("topology",): 14,
        ("topology", "sources", 0): 14,
        ("topology", "sources", 0, "nodes"): 15,
        ("topology", "sources", 0, "list"): 16,
        ("topology", "sources", 0, "list", 0): 17,
        ("topology", "sources", 0, "list", 1, "b"): 19,
        ("topology", "sources", 0, "inner", "z"): 22,
        ("topology", "sources", 1): 23,
        ("topology", "sources", 1, "file"): 24,
        ("topology", "sources", 1, "other", "k"): 26,
    }
    assert {path: lines.get(path) for path in expected} == expected


def test_lines_do_not_depend_on_line_ends() -> None:
    assert key_lines(TEXT.replace("\n", "\r\n")) == key_lines(TEXT)


def paths(data: Any, path: Path = ()) -> list[Path]:
    found = [path]
    items: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for name, value in items:
        found += paths(value, (*path, name))
    return found


words = st.text(string.ascii_letters + "-_", min_size=1, max_size=4) | st.text(max_size=4)
scalars = st.sampled_from(
    ["1", "-0.5e3", "true", "inf", "2024-01-02", "''", "'#]'", '"\\"}"', '"""\n"a"\n"""', "'''\n'\n'''"]
)


@st.composite
def toml_values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.integers(0, 2)) if depth else 0
    if kind == 1:
        gap = draw(st.sampled_from([" ", "\n", " # ]\n"]))
        return "[" + "".join(f"{gap}{item},{gap}" for item in draw(st.lists(toml_values(depth - 1), max_size=3))) + "]"
    if kind == 2:
        return "{" + ", ".join(draw(st.lists(toml_pairs(depth - 1), max_size=3))) + "}"
    return draw(scalars)


@st.composite
def toml_pairs(draw: st.DrawFn, depth: int = 2) -> str:
    return f"{draw(toml_keys())} = {draw(toml_values(depth))}"


@st.composite
def toml_keys(draw: st.DrawFn) -> str:
    def quoted(word: str) -> str:
        if word and all(char in string.ascii_letters + "-_" for char in word):
            return word
        return '"' + "".join(f"\\U{ord(char):08x}" for char in word if not 0xD800 <= ord(char) < 0xE000) + '"'

    return " . ".join(quoted(word) for word in draw(st.lists(words, min_size=1, max_size=3)))


@st.composite
def toml_texts(draw: st.DrawFn) -> str:
    line = toml_pairs() | toml_keys().map(lambda key: f"[{key}]") | toml_keys().map(lambda key: f"[[ {key} ]] # x")
    return "\n".join(draw(st.lists(line | st.just(""), max_size=8)))


@given(toml_texts())
def test_every_key_of_a_valid_text_has_a_line(text: str) -> None:
    try:
        data = tomllib.loads(text)
    except ValueError:
        assert key_lines(text)
        return
    lines = key_lines(text)
    assert set(paths(data)) == set(lines)
    assert max(lines.values()) <= text.count("\n") + 1


@given(st.text() | toml_texts())
def test_any_text_is_a_config_or_a_bad_config(text: str) -> None:
    said = ""
    try:
        decode(text, "f", Config, {}, BadConfig)
    except BadConfig as error:
        said = str(error)
    assert "\n" not in said
    assert not said or said.startswith("f:")


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "x" * (2 << 20), "policy.grace = 1" + "0" * 4000]
)
def test_absurd_texts_are_refused(text: str) -> None:
    with pytest.raises(BadConfig):
        parse_config(text, "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\nmode = ", "f:3: is not valid TOML: Invalid value at the end of the file"),
        ("\nmode = x", "f:2: is not valid TOML: Invalid value (column 8)"),
        ("a\n", "f:1: is not valid TOML: Expected '=' after a key in a key/value pair (column 2)"),
        ("[policy]\n\ngrase = 3", "f:3: policy.grase: is not a known key; did you mean 'grace'?"),
        ("[api]\nxyz = 3", "f:2: api.xyz: is not a known key; known here: socket, admin_socket, group"),
        ("policy.grace = true", "f:1: policy.grace: must be a number, not a boolean"),
        ("policy.grace = -1", "f:1: policy.grace: must be above 0 and at most 31622400, not -1"),
        ("policy.grace = nan", "f:1: policy.grace: must be a finite number, not nan"),
        ("policy.spare_replicas = 1.5", "f:1: policy.spare_replicas: must be a whole number, not 1.5"),
        (
            "[policy]\n\nbatch_partitions = ['a',\n'b', 3]",
            "f:4: policy.batch_partitions[2]: must be a text, not a whole number",
        ),
        ("policy.batch_partitions = 'a'", "f:1: policy.batch_partitions: must be an array, not a text"),
        ("mode = 'Act'", "f:1: mode: must be one of 'advise', 'act', not 'Act'; did you mean 'act'?"),
        ("mode = 2024-01-01", "f:1: mode: must be one of 'advise', 'act', not datetime.date(2024, 1, 1)"),
        ("policy = 3", "f:1: policy: must be a table, not a whole number"),
        ("[topology]\n[[topology.sources]]\nnodes = 'n'\n", "f:2: topology.sources[0].file: is missing"),
        (
            "'a b' = 1",
            f"f:1: 'a b': is not a known key; known here: {KEYS}",
        ),
        ("mode = 1\n\n[api]\nsocket = 2", "f:1: mode: must be one of 'advise', 'act', not 1 (more on line 4)"),
    ],
)
def test_messages_name_line_key_and_reason(text: str, message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse_config(text, "f")
    assert str(caught.value) == message


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    assert parse_config('\ufeffmode = "act"\r\n[policy]\r\ngrace = 3\r\n', "f").policy.grace == 3.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172800),
        ("1w", 604800),
        ("0.5", 0.5),
        ("250ms", 0.25),
        ("1.5h", 5400),
    ],
)
def test_durations(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "s", "5 m", "-5m", "5x", "5m5", "5m5m", "1e3", "nan", "inf", "1s ", "\uff11s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a number of seconds|names a unit twice"):
        seconds(text)


def test_key_names_are_readable() -> None:
    assert key_name(("a", 0, "b-c", "d e")) == "a[0].b-c.'d e'"
