"""Slurm's host lists (`n[1-4,07],gpu-a[01-02]b`), both ways; device file ranges have the same form."""

import re
from collections.abc import Iterable
from itertools import product

from coloc_topology.errors import TopologyError

MAX_NAMES = 65536
"""Slurm's own limit on one host list."""

_PIECE = re.compile(r"[^,\[\]\s]+")
_RANGE = re.compile(r"([0-9]{1,12})(?:-([0-9]{1,12}))?")
_LAST_NUMBER = re.compile(r"(.*?)([0-9]{1,12})([^0-9]*)", re.DOTALL)


def expand(text: str, line: int | None = None, column: int = 1) -> tuple[str, ...]:
    """All names of a host list, in its order, repeated where it repeats them.

    A range is padded with zeros to the width of its lower end, as in Slurm. Raises `TopologyError`; `line` and
    `column` tell where the list stands in its file.
    """
    names: list[str] = []
    at = 0
    while True:
        parts: list[tuple[str, ...]] = []
        start, count = at, 1
        while at < len(text) and text[at] != ",":
            if text[at] == "[":
                part, at = _numbers(text, at, line, column)
            elif piece := _PIECE.match(text, at):
                part, at = (piece[0],), piece.end()
            else:
                raise _error(text, at, f"{text[at]!r} is not allowed here", line, column)
            parts.append(part)
            count *= len(part)
            if len(names) + count > MAX_NAMES:
                raise _error(text, start, f"more than {MAX_NAMES} names", line, column)
        if not parts:
            raise _error(text, start, "a name is missing", line, column)
        names.extend(map("".join, product(*parts)))
        if at >= len(text):
            return tuple(names)
        at += 1


def _numbers(text: str, at: int, line: int | None, column: int) -> tuple[tuple[str, ...], int]:
    """The numbers of the bracket that opens at `at`, and the place after it."""
    close = text.find("]", at)
    if close < 0:
        raise _error(text, at, "the bracket is not closed", line, column)
    numbers: list[str] = []
    at += 1
    for item in text[at:close].split(","):
        found = _RANGE.fullmatch(item)
        if found is None:
            raise _error(text, at, f"{item[:20]!r} is no number and no range", line, column)
        low, high = found[1], found[2] or found[1]
        if int(low) > int(high):
            raise _error(text, at, f"the range {item} runs backwards", line, column)
        if int(high) - int(low) + len(numbers) >= MAX_NAMES:
            raise _error(text, at, f"more than {MAX_NAMES} names", line, column)
        numbers.extend(f"{number:0{len(low)}d}" for number in range(int(low), int(high) + 1))
        at += len(item) + 1
    return tuple(numbers), close + 1


def _error(text: str, at: int, reason: str, line: int | None, column: int) -> TopologyError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    if line is None:
        return TopologyError(f"host list {shown!r}, character {at + 1}: {reason}")
    return TopologyError(f"host list {shown!r}: {reason}", line, column + at)


def fold(names: Iterable[str]) -> str:
    """The shortest usual host list of these names, sorted, each name once; empty text for no names.

    Names are folded at their last number. Raises `TopologyError` for a name that no host list can hold.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    single: set[str] = set()
    for name in set(names):
        if not _PIECE.fullmatch(name):
            raise TopologyError(f"{name[:60]!r} cannot stand in a host list")
        found = _LAST_NUMBER.fullmatch(name)
        if found is None:
            single.add(name)
        else:
            groups.setdefault((found[1], found[3]), []).append(found[2])
    parts = [(name, "", name) for name in single]
    for (head, tail), numbers in groups.items():
        items = _runs(sorted(numbers, key=lambda number: (int(number), len(number))))
        inner = ",".join(items)
        alone = len(items) == 1 and "-" not in inner
        parts.append((head, tail, f"{head}{inner}{tail}" if alone else f"{head}[{inner}]{tail}"))
    return ",".join(part for _, _, part in sorted(parts))


def _runs(numbers: list[str]) -> list[str]:
    """Ranges of consecutive numbers that have the padding of their first."""
    runs: list[list[str]] = []
    for number in numbers:
        for run in reversed(runs):
            if number == f"{int(run[-1]) + 1:0{len(run[0])}d}":
                run.append(number)
                break
            if int(run[-1]) + 1 < int(number):
                runs.append([number])
                break
        else:
            runs.append([number])
    return [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
