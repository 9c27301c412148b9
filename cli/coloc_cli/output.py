"""The only place that prints: JSON for programs, plain columns for people, errors on stderr.

Text from jobs and services is shown with control characters replaced: a job name must not move the reader's cursor.
"""

import os
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any

from colocd.errors import ColocError

UNKNOWN = "?"
"""How an unknown value (None) is shown; nothing at all is shown as `-`."""


PLAIN = dict(zip("█▇▆▅▄▃▂▁▒░…", "######__:.~", strict=True))
"""What stands for signs that a terminal cannot show; for all others it is `?`."""


def settle() -> None:
    """Make stdout and stderr take every text, whatever the terminal's encoding is."""
    import codecs
    import io

    codecs.register_error("coloc", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="coloc")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def say(text: str) -> None:
    """Print a line on stdout."""
    print(text)


def warn(text: str) -> None:
    """Print a line on stderr; a closed stderr is nobody's problem."""
    if sys.stderr is not None:
        print(text, file=sys.stderr)


def complain(error: ColocError) -> None:
    """Print an error the way every coloc command does: the sentence, then the next step."""
    hint = error.hint.replace("\n", "\n  ")
    warn(f"coloc: {error}\n  {hint}" if hint else f"coloc: {error}")


def raw(data: bytes) -> None:
    """Write bytes to stdout unchanged."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def as_json(value: Any) -> None:
    """Print a value as JSON for programs."""
    import json

    unicode = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=not unicode))


def terminal_width() -> int | None:
    """Columns of the terminal on stdout; None: stdout is no terminal, then nothing is cut or wrapped."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def bold(text: str) -> str:
    """The text in bold on a terminal that wants colours (NO_COLOR is respected)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return f"\x1b[1m{text}\x1b[0m"
    return text


def clean(value: object) -> str:
    """A value for people on one line: None is `?`, whatever cannot be printed is replaced."""
    if value is None:
        return UNKNOWN
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return "".join(c if c.isprintable() else "\ufffd" for c in str(value))


def cells(text: str) -> int:
    """Columns that a cleaned text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def table(
    titles: Sequence[str], rows: Sequence[Sequence[object]], *, right: str = "", width: int | None = None
) -> list[str]:
    """Lines of a table. Columns named in `right` (words) are aligned right; the last column takes what is left.

    `width` None: as wide as needed. Else the last column is wrapped, and long columns before it are cut with `…`.
    """
    numeric = set(right.split())
    body = [[clean(value) for value in row] for row in rows]
    sizes = [max([cells(title), *(cells(row[i]) for row in body)]) for i, title in enumerate(titles)]
    if width is not None:
        _squeeze(sizes, [cells(title) for title in titles], width)
    lines = [bold(line) for line in _lines(list(titles), sizes, titles, numeric)]
    for row in body:
        lines += _lines(row, sizes, titles, numeric)
    return lines


def _squeeze(sizes: list[int], least: list[int], width: int) -> None:
    """Make the columns fit: first the last one (down to 20), then always the widest of the others (down to 8)."""
    gaps = 2 * (len(sizes) - 1)
    room = max(width - gaps - sum(sizes[:-1]), min(sizes[-1], 20), least[-1])
    sizes[-1] = min(sizes[-1], room)
    while sum(sizes) + gaps > width:
        i = max(range(len(sizes) - 1), key=lambda n: sizes[n], default=-1)
        if i < 0 or sizes[i] <= max(8, least[i]):
            return
        sizes[i] -= 1


def _lines(row: list[str], sizes: list[int], titles: Sequence[str], numeric: set[str]) -> list[str]:
    *head, tail = row
    parts = []
    for text, size, title in zip(head, sizes, titles, strict=False):
        shown = text if cells(text) <= size else cut(text, size)
        pad = " " * (size - cells(shown))
        parts.append(pad + shown if title in numeric else shown + pad)
    prefix = "  ".join(parts) + "  " if parts else ""
    if titles[-1] in numeric:
        return [prefix + " " * (sizes[-1] - cells(tail)) + tail]
    wrapped = wrap(tail, sizes[-1])
    return [(prefix + wrapped[0]).rstrip(), *((" " * cells(prefix) + more).rstrip() for more in wrapped[1:])]


def cut(text: str, size: int) -> str:
    """The text cut to `size` columns, with `…` at its end."""
    while text and cells(text) > size - 1:
        text = text[:-1]
    return text + "…"


def wrap(text: str, size: int) -> list[str]:
    """The text in lines of at most `size` columns, broken at spaces where there are any."""
    lines, line = [], ""
    for word in text.split(" "):
        grown = f"{line} {word}" if line else word
        if cells(grown) <= size:
            line = grown
            continue
        if line:
            lines.append(line)
        line = word
        while cells(line) > size:
            n = next(n for n in range(len(line), 0, -1) if cells(line[:n]) <= size or n == 1)
            lines.append(line[:n])
            line = line[n:]
    return [*lines, line] if line or not lines else lines


def paragraph(label: str, text: object, indent: int = 12) -> None:
    """Print `label` and a text beside it, wrapped on a terminal."""
    width = terminal_width()
    lines = wrap(clean(text), max(20, width - indent)) if width else [clean(text)]
    for i, line in enumerate(lines):
        say(f"{label if i == 0 else '':<{indent}}{line}".rstrip())


def show(titles: Sequence[str], rows: Sequence[Sequence[object]], *, right: str = "") -> None:
    """Print a table that fits the terminal."""
    for line in table(titles, rows, right=right, width=terminal_width()):
        say(line)
