"""Slurm's `Key=Value` configuration lines: comments, quotes and line continuation, each value with its place."""

import re
from bisect import bisect_right
from typing import NamedTuple

from coloc_topology.errors import TopologyError

_SETTING = re.compile(r"([A-Za-z0-9_.]+)\s*[-*+/]?=\s*(?:\"([^\"]*)\"|([^\s\"]\S*))(?=\s|$)")
_COMMENT = re.compile(r"(?<!\\)#.*")
_CONTINUED = re.compile(r"\\\s*$")


class Value(NamedTuple):
    """A value and where it starts (from 1)."""

    text: str
    line: int
    column: int


class Line(NamedTuple):
    """One logical line: number of its first physical line, and its values by lower-case key (the last one wins)."""

    number: int
    values: dict[str, Value]

    def text(self, key: str) -> str | None:
        """The value of a key; None: not given."""
        value = self.values.get(key)
        return None if value is None else value.text


def read_lines(text: str, skip_includes: bool = False) -> tuple[Line, ...]:
    """All lines that set something. `#` starts a comment, a backslash at the end joins the next line.

    Raises `TopologyError` at the first thing that is not `Key=Value`, and for `Include`, which is not followed, unless
    `skip_includes` passes over such lines.
    """
    found: list[Line] = []
    pieces: list[str] = []
    first = 0
    physical = text.split("\n")
    for number, raw in enumerate(physical, start=1):
        line = _COMMENT.sub("", raw.rstrip("\r")).replace("\\#", "#")
        continued = _CONTINUED.search(line)
        first = first if pieces else number
        pieces.append(line[: continued.start()] + " " if continued else line)
        if continued is None or number == len(physical):
            include = skip_includes and pieces[0].split()[:1] and pieces[0].split()[0].lower() == "include"
            values = {} if include else _values(pieces, first)
            if values:
                found.append(Line(first, values))
            pieces = []
    return tuple(found)


def _values(pieces: list[str], first: int) -> dict[str, Value]:
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    joined = "".join(pieces)

    def place(offset: int) -> tuple[int, int]:
        index = min(bisect_right(starts, offset) - 1, len(pieces) - 1)
        return first + index, offset - starts[index] + 1

    values: dict[str, Value] = {}
    at = len(joined) - len(joined.lstrip())
    while at < len(joined):
        setting = _SETTING.match(joined, at)
        if setting is None:
            word = joined[at:].split()[0]
            if word.lower() == "include":
                raise TopologyError("Include is not followed here; give coloc the included file itself", *place(at))
            raise TopologyError(f"{word[:60]!r} is not of the form Key=Value", *place(at))
        group = 2 if setting[2] is not None else 3
        values[setting[1].lower()] = Value(setting[group], *place(setting.start(group)))
        at = setting.end()
        at += len(joined[at:]) - len(joined[at:].lstrip())
    return values
