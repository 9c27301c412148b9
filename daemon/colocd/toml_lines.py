"""On which line each key of a TOML text stands. Works only on text that `tomllib` has accepted; never rejects anything."""

import contextlib
import re

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_STRINGS = (
    ('"""', re.compile(r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}', re.DOTALL)),
    ("'''", re.compile(r"'''(?:[^']|'(?!''))*'{3,5}", re.DOTALL)),
    ('"', re.compile(r'"(?:[^"\\\n]|\\.)*"')),
    ("'", re.compile(r"'[^'\n]*'")),
)
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\", "e": "\x1b"}
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))")


def key_lines(text: str) -> dict[Path, int]:
    """Line (from 1) of every key, table and array item, by path; items of arrays are numbers in the path.

    A table that is only implied by a longer header or dotted key gets the line where it first shows up. A text that is not
    TOML gives what was found before the first oddity.
    """
    scan = _Scan(text.replace("\r\n", "\n"))
    with contextlib.suppress(IndexError, RecursionError):  # a missing line number is better than a missing message
        scan.document()
    return scan.lines


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {(): 1}
        self.counts: dict[Path, int] = {}
        self._counted = 0
        self._line = 1

    def document(self) -> None:
        prefix: Path = ()
        while True:
            self.blank()
            if self.at >= len(self.text):
                return
            if self.text.startswith("[[", self.at):
                prefix = self.array_header()
            elif self.text[self.at] == "[":
                prefix = self.table_header()
            else:
                self.pair(prefix)

    def table_header(self) -> Path:
        line = self.line()
        self.at += 1
        path = self.resolve(self.key())
        self.skip("]")
        self.note(path, line)
        return path

    def array_header(self) -> Path:
        line = self.line()
        self.at += 2
        *outer, last = self.key()
        base = (*self.resolve(tuple(outer)), last)
        self.skip("]]")
        self.note(base, line)
        index = self.counts.get(base, 0)
        self.counts[base] = index + 1
        self.note((*base, index), line)
        return (*base, index)

    def resolve(self, key: tuple[str, ...]) -> Path:
        """Turn a header's words into a path: a word that names an array of tables means its last item."""
        path: Path = ()
        for word in key:
            path = (*path, word)
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
        return path

    def pair(self, prefix: Path) -> None:
        line = self.line()
        path = prefix + self.key()
        for end in range(len(prefix) + 1, len(path) + 1):
            self.note(path[:end], line)
        self.skip("=")
        self.value(path)

    def key(self) -> tuple[str, ...]:
        words: list[str] = []
        while True:
            self.space()
            words.append(self.word())
            self.space()
            if self.text[self.at] != ".":
                return tuple(words)
            self.at += 1

    def word(self) -> str:
        if self.text[self.at] in "\"'":
            quoted = self.string()
            return quoted[1:-1] if quoted[0] == "'" else _unescape(quoted[1:-1])
        match = _BARE.match(self.text, self.at)
        if match is None:
            raise IndexError(self.at)
        self.at = match.end()
        return match[0]

    def value(self, path: Path) -> None:
        first = self.text[self.at]
        if first == "[":
            self.at += 1
            self.items(path)
        elif first == "{":
            self.at += 1
            self.inline(path)
        elif first in "\"'":
            self.string()
        else:
            match = _SCALAR.match(self.text, self.at)
            self.at = match.end() if match else self.at

    def items(self, path: Path) -> None:
        index = 0
        while True:
            self.blank()
            if self.text[self.at] == "]":
                self.at += 1
                return
            self.note((*path, index), self.line())
            self.value((*path, index))
            index += 1
            self.blank()
            if self.text[self.at] == ",":
                self.at += 1

    def inline(self, path: Path) -> None:
        while True:
            self.blank()
            if self.text[self.at] == "}":
                self.at += 1
                return
            self.pair(path)
            self.blank()
            if self.text[self.at] == ",":
                self.at += 1

    def string(self) -> str:
        for start, pattern in _STRINGS:
            if self.text.startswith(start, self.at) and (match := pattern.match(self.text, self.at)):
                self.at = match.end()
                return match[0]
        raise IndexError(self.at)

    def skip(self, mark: str) -> None:
        self.space()
        if not self.text.startswith(mark, self.at):
            raise IndexError(self.at)
        self.at += len(mark)
        self.space()

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1

    def blank(self) -> None:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at

    def line(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def note(self, path: Path, line: int) -> None:
        for end in range(1, len(path) + 1):
            self.lines.setdefault(path[:end], line)


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        return chr(int(code, 16)) if code else _ESCAPES.get(match[3], match[0])

    return _ESCAPE.sub(one, text)
