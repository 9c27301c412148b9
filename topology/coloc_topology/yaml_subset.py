"""The part of YAML that Slurm's topology.yaml is written in: block maps and lists, plain and quoted words, `[a, b]`.

Everything else of YAML is refused with its line: nothing is guessed, and no YAML library is needed.
"""

import re
from typing import NamedTuple

from coloc_topology.errors import TopologyError

MAX_DEPTH = 16
_KEY = re.compile(r"([A-Za-z0-9_./-]+)[ ]*:(?:[ ]+(.*))?")
_PLAIN = re.compile(r"[^\s\[\]{}&*!|>'\"%@`#,:-][^\"'{}]*")
_ITEM = re.compile(r"\"[^\"\\]*\"|'[^']*'|[^,\"'\[\]{}\s]+(?:\[[0-9,-]+\][^,\"'\[\]{}\s]*)*")


class Item(NamedTuple):
    """A value and where it starts: a word, a list, a map, or None for an empty value."""

    value: "str | list[Item] | dict[str, Item] | None"
    line: int
    column: int = 1


class _Row(NamedTuple):
    indent: int
    text: str
    line: int


def read_yaml(text: str) -> Item:
    """The document; raises `TopologyError` with line and column for anything beyond the subset."""
    rows: list[_Row] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = re.sub(r"(^|\s)#.*", "", raw.rstrip("\r")).rstrip()
        body = line.lstrip(" ")
        if not body or (body == "---" and not rows):
            continue
        if body.startswith("\t"):
            raise TopologyError("a tab in the indentation", number, len(line) - len(body) + 1)
        rows.append(_Row(len(line) - len(body), body, number))
    if not rows:
        return Item(None, 1)
    item, end = _block(rows, 0, 0)
    if end < len(rows):
        raise _refuse(rows[end], "does not fit the indentation above it")
    return item


def _block(rows: list[_Row], at: int, depth: int) -> tuple[Item, int]:
    """The list or map that starts at row `at`, and the row after it."""
    first = rows[at]
    if depth > MAX_DEPTH:
        raise TopologyError(f"more than {MAX_DEPTH} levels", first.line, first.indent + 1)
    items: list[Item] = []
    values: dict[str, Item] = {}
    is_list = _dash(first)
    while at < len(rows) and rows[at].indent == first.indent and _dash(rows[at]) == is_list:
        row = rows[at]
        if is_list:
            inner = row.text[1:].lstrip(" ")
            if inner:
                # What follows the dash is a block of its own, indented to where it stands.
                rows[at] = _Row(row.indent + len(row.text) - len(inner), inner, row.line)
                is_block = _dash(rows[at]) or _KEY.fullmatch(inner)
                item, at = _block(rows, at, depth + 1) if is_block else (_scalar(rows[at]), at + 1)
            else:
                item, at = _below(rows, at, depth)
            items.append(item)
            continue
        key = _KEY.fullmatch(row.text)
        if key is None:
            raise _refuse(row, "is not of the form key: value")
        if key[1] in values:
            raise _refuse(row, f"repeats the key of line {values[key[1]].line}")
        if key[2]:
            item, at = _scalar(_Row(row.indent + key.start(2), key[2], row.line)), at + 1
        else:
            item, at = _below(rows, at, depth)
        values[key[1]] = item
    return Item(items if is_list else values, first.line, first.indent + 1), at


def _below(rows: list[_Row], at: int, depth: int) -> tuple[Item, int]:
    """The block under a key or a dash; a list may stand as far left as its key."""
    row, after = rows[at], rows[at + 1] if at + 1 < len(rows) else None
    if after is None or after.indent < row.indent or (after.indent == row.indent and (_dash(row) or not _dash(after))):
        return Item(None, row.line), at + 1
    return _block(rows, at + 1, depth + 1)


def _scalar(row: _Row) -> Item:
    text = row.text
    if text[0] in "\"'" and _ITEM.fullmatch(text):
        return Item(text[1:-1], row.line, row.indent + 2)
    if text[0] == "[" and text[-1] == "]":
        found = list(_ITEM.finditer(text, 1, len(text) - 1))
        if re.sub(r"\s", "", text[1:-1]).rstrip(",") != ",".join(re.sub(r"\s", "", word[0]) for word in found):
            raise _refuse(row, "is no list of plain words")
        words = [Item(word[0].strip("\"'"), row.line, row.indent + word.start() + 1) for word in found]
        return Item(list(words), row.line, row.indent + 1)
    if not _PLAIN.fullmatch(text) or ": " in text or text.endswith(":"):
        raise _refuse(row, "is YAML that is not read here")
    return Item(None if text in ("null", "~") else text, row.line, row.indent + 1)


def _dash(row: _Row) -> bool:
    return row.text == "-" or row.text.startswith("- ")


def _refuse(row: _Row, reason: str) -> TopologyError:
    return TopologyError(f"{row.text[:40]!r} {reason}", row.line, row.indent + 1)
