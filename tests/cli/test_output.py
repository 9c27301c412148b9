import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coloc_cli.output import cells, clean, cut, table, wrap
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
