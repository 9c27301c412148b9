import io
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.conftest import python_path

from coloc_cli.output import as_json, cells, clean, cut, say, settle, table, warn, wrap
from coloc_cli.words import ago, gpu_set, joined, span

text = st.text(max_size=40)


@given(st.lists(st.lists(st.one_of(text, st.none(), st.integers(), st.floats()), min_size=3, max_size=3), max_size=5))
def test_a_table_fits_and_says_everything_without_a_terminal(rows: list[list[object]]) -> None:
    titles = ("A", "NUMBER", "WHY")
    wide = table(titles, rows, right="NUMBER")
    assert len(wide) == len(rows) + 1
    for line, row in zip(wide[1:], rows, strict=True):
        assert all(clean(value).strip() in line for value in row)
    for line in table(titles, rows, right="NUMBER", width=60):
        assert cells(line) <= 60
        assert all(unicodedata.category(c) != "Cc" for c in line)


@given(text.map(clean), st.integers(2, 30))
def test_wrapping_loses_nothing_but_spaces(line: str, size: int) -> None:
    lines = wrap(line, size)
    assert "".join(lines).replace(" ", "") == line.replace(" ", "")
    assert all(cells(part) <= size for part in lines)
    assert cells(cut(line, size)) <= size


def test_a_table() -> None:
    lines = table(("ID", "NAME", "WHY"), [(7, "a" * 30, "one two three four"), (12, None, "-")], right="ID", width=44)
    assert lines == [
        "ID  NAME                  WHY",
        " 7  aaaaaaaaaaaaaaaaaaa…  one two three four",
        "12  ?                     -",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "?"),
        (-5, "0 s"),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7500, "2 h 05 min"),
        (172_800, "2 d 0 h"),
    ],
)
def test_spans(seconds: float | None, words: str) -> None:
    assert span(seconds) == words


def test_words() -> None:
    assert ago(None, 5) == "?"
    assert ago(3, 5) == "2 s ago"
    assert (gpu_set(0b10111), gpu_set("0-2,4"), gpu_set(None), gpu_set(0)) == ("0-2,4", "0-2,4", "?", "-")
    assert (joined([]), joined(None), joined(["1", 2])) == ("-", "?", "1 2")


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "utf-8"])
def test_a_terminal_of_any_encoding_is_written_to(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, wrong = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr("sys.stdout", shown)
    monkeypatch.setattr("sys.stderr", wrong)
    settle()
    say("█▅▁▒░… é 界")
    as_json({"name": "é界"})
    warn("█ 界")
    shown.flush()
    line, _, rest = shown.buffer.getvalue().decode(encoding).partition("\n")
    assert line == {"ascii": "##_:.~ ? ?", "iso-8859-1": "##_:.~ é ?", "utf-8": "█▅▁▒░… é 界"}[encoding]
    assert json.loads(rest) == {"name": "é界"}, "programs lose nothing"


def test_the_command_settles_first(tmp_path: Path) -> None:
    """As a whole: the help of a command, which has no sign beyond ASCII, and an error that quotes one that has."""
    env = {"PATH": "/usr/bin:/bin", "PYTHONIOENCODING": "ascii", **python_path()}
    argv = [sys.executable, "-c", "from coloc_cli.main import main; main()", "topo", "show", f"{tmp_path}/界█"]
    done = subprocess.run(argv, capture_output=True, env=env, timeout=60, check=False)
    assert done.returncode not in (0, 1, 70)
    assert b"?#" in done.stderr
