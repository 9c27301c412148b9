"""The table inside an output of `nvidia-smi topo`: columns, and per row the cells with their places. No meaning yet."""

import re
from typing import NamedTuple

from coloc_topology import ansi
from coloc_topology.errors import TopologyError

ALIASES = {"SOC": "SYS", "PSB": "PIX"}
"""Words of older drivers and what they are called now."""

FACTS = ("CPU Affinity", "NUMA Affinity", "GPU NUMA ID")
"""Columns after the devices, in nvidia-smi's order."""

_FACT = re.compile(r"CPU\s*Affinity|NUMA\s*Affinity|GPU\s*NUMA\s*ID")
_GLUED = re.compile(r"(?<=[0-9])(?=GPU[0-9]|NIC[0-9]|mlx)")
# A word ends at a blank or where the next glued word starts; NV4 followed by "0-31" or "-3" could mean anything.
_WORD = re.compile(r"(NV[1-9][0-9]{0,2}|NODE|SYS|SOC|PHB|PXB|PIX|PSB|X)(?=[A-Z\s]|$)")
_DEVICE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*[0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_HEADER = re.compile(r"\s*GPU0(?![0-9])\s*(\S.*)", re.DOTALL)
_GPU_ROW = re.compile(r"\s*((?:GPU|NIC)[0-9]+)(?![0-9:])")
_CUT_END = re.compile(r"(NV[0-9]*|[0-9,-]+)$")
_INSIDE = re.compile(r"\S.*?(?=\s*GPU0\s+(GPU1|NIC0|CPU\s*Affinity)\b)")
_REST = re.compile(
    r"((?!GPU|NIC|mlx)\S*\s+)?((NV[0-9]+|NODE|SYS|SOC|PHB|PXB|PIX|PSB|X|N/A|[0-9][0-9,-]*)(\s+|$))+|.*Affinity.*"
)


class Cell(NamedTuple):
    """A link word and the column of the text where it starts."""

    word: str
    column: int


class Stop(NamedTuple):
    """Where a row stopped to be readable: column, the word there ("": the row ends), and the device whose cell it should be.

    `device` None: behind the last one. `cut`: the text itself ends in this line.
    """

    column: int
    word: str
    device: str | None
    cut: bool

    def may_be(self, word: str) -> bool:
        """Whether a link word may have stood there: run together with what follows it, cut, or lost."""
        return self.word.startswith(word) or not self.word or (self.cut and word.startswith(self.word))


class Row(NamedTuple):
    """One device's row: cells by column name, facts by name, and where reading stopped; None: it was read to its end."""

    line: int
    cells: dict[str, Cell]
    facts: dict[str, str]
    stop: Stop | None


class Table(NamedTuple):
    """The whole matrix: line of the header, device columns in order, rows by device, and the lines below it."""

    line: int
    devices: tuple[str, ...]
    rows: dict[str, Row]
    below: tuple[str, ...]


def read_table(text: str) -> Table:
    """Find and split the matrix. Raises `TopologyError` if there is none, two, or one that does not fit its header."""
    lines = [ansi.plain(line) for line in text.removeprefix("\ufeff").split("\n")]
    if lines[-1].strip():
        # The text ends inside a line: a number at its very end may be the first half of a longer one.
        lines[-1] = _CUT_END.sub("", lines[-1])
    start = next((i for i, line in enumerate(lines) if _is_header(line)), None)
    if start is None:
        raise _no_header(lines)
    devices, facts = _columns(lines[start], start + 1)
    rows: dict[str, Row] = {}
    end = start + 1
    second = next((i for i, line in enumerate(lines) if i > start and _is_header(line)), None)
    if second is not None:
        raise TopologyError("a second matrix starts here; give the output of one command", second + 1, 1)
    while end < len(lines) and "Legend:" not in lines[end]:
        line, number = lines[end], end + 1
        end += 1
        name = _label(line, devices)
        gpu = _GPU_ROW.match(line)
        if name is None and gpu is None:
            if _REST.fullmatch(line.strip()):
                reason = (
                    "cells without a device in front: lines were wrapped; give them as long as nvidia-smi prints them"
                )
                raise TopologyError(reason, number, 1)
            continue
        if name is None or (gpu is not None and gpu[1] != name):
            raise TopologyError(f"row {gpu[1] if gpu else name} has no column in the header", number, 1)
        row = _row(line, number, name, devices, facts, end == len(lines))
        if not row.cells and end == len(lines):
            continue  # only a cut label
        if name in rows:
            raise TopologyError(f"a second row of {name}; the first is in line {rows[name].line}", number, 1)
        rows[name] = row
    return Table(start + 1, devices, rows, tuple(lines[end:-1]))  # the last line has no end: empty, or perhaps cut


def _no_header(lines: list[str]) -> TopologyError:
    for number, line in enumerate(lines, start=1):
        inside = _INSIDE.match(line.lstrip())
        if inside is not None:
            reason = f"{inside[0][:40]!r} stands before GPU0; give the matrix without it (`pdsh -N`, srun without -l)"
            return TopologyError(reason, number, len(line) - len(line.lstrip()) + 1)
    return TopologyError("this is no output of `nvidia-smi topo -m`: no line names GPU0 and further columns")


def _is_header(line: str) -> bool:
    """A header names GPU0 and more, and holds no link word."""
    found = _HEADER.match(line)
    return found is not None and not _WORD.match(found[1]) and not any(map(_WORD.fullmatch, line.split()))


def _columns(line: str, number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    fact = _FACT.search(line)
    devices = tuple(part for word in line[: fact.start() if fact else None].split() for part in _GLUED.split(word))
    found = [re.sub(r"\s", "", name) for name in _FACT.findall(line)]
    facts = tuple(name for name in FACTS if name.replace(" ", "") in found)
    gpus = [name for name in devices if re.fullmatch(r"GPU[0-9]+", name)]
    if not gpus or gpus != [f"GPU{i}" for i in range(len(gpus))] or len(set(devices)) != len(devices):
        raise TopologyError("the header does not name GPU0, GPU1 and so on, each once and in order", number, 1)
    strange = next((name for name in devices if not _DEVICE.fullmatch(name)), None)
    if strange is not None:
        reason = f"{strange[:40]!r} in the header is no device and no whole name of a further column"
        raise TopologyError(reason, number, line.index(strange) + 1)
    return devices, facts


def _label(line: str, devices: tuple[str, ...]) -> str | None:
    """The device that a row is about: the longest device name it starts with; None: it is no row."""
    body = line.lstrip()
    found = [name for name in devices if body.startswith(name)]
    name = max(found, key=len, default=None)
    if name is None or (rest := body[len(name) :]) == "" or rest[0].isspace() or _WORD.match(rest):
        return name
    return None


def _row(line: str, number: int, name: str, devices: tuple[str, ...], facts: tuple[str, ...], last: bool) -> Row:
    at = len(line) - len(line.lstrip()) + len(name)
    cells: dict[str, Cell] = {}
    position = 0
    while position < len(devices):
        blank = at
        while at < len(line) and line[at] in " \t":
            at += 1
        position += max(0, line.count("\t", blank, at) - 1)  # two tabs: an empty cell between them
        word = _WORD.match(line, at)
        if word is None or position >= len(devices):
            stop = line[at:].split()[0][:40] if line[at:].split() else ""
            device = devices[position] if position < len(devices) else None
            return Row(number, cells, {}, Stop(at + 1, stop, device, last))
        cells[devices[position]] = Cell(ALIASES.get(word[1], word[1]), at + 1)
        position += 1
        at = word.end()
    rest = line[at:]
    extra = _WORD.match(rest.lstrip())
    if extra is not None:
        raise TopologyError(
            f"row {name} has more cells than the header has columns", number, line.index(extra[1], at) + 1
        )
    return Row(number, cells, _facts(rest, facts), None)


def _facts(rest: str, facts: tuple[str, ...]) -> dict[str, str]:
    """What stands after the device cells, by column. Only where it is certain which column a word belongs to."""
    words = rest.split()
    if len(words) == len(facts):
        return dict(zip(facts, words, strict=True))
    before, *fields = (field.strip() for field in rest.split("\t"))
    if facts[-1:] == FACTS[-1:] and len(fields) == len(facts) + 1 and not fields[-2]:
        del fields[-2]  # nvidia-smi itself writes two tabs before this column
    elif facts[-1:] == FACTS[-1:]:
        return {}
    if before or len(fields) != len(facts):
        return {}
    return {name: field for name, field in zip(facts, fields, strict=True) if field}
