"""TOML text into msgspec Structs, with errors that name file, line, key and reason in one sentence."""

import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from colocd.errors import ColocError
from colocd.toml_lines import Path, key_lines
from colocd.units import Rule, one_line, seconds

T = TypeVar("T", bound=msgspec.Struct)
Rules = Mapping[str, Rule]
LIMIT = 1 << 20
"""Longest text that is read, in characters."""


class Problem(msgspec.Struct, frozen=True, order=True):
    """What is wrong at `key`, on `line` (None: no line can be named)."""

    line: int | None
    key: str
    reason: str


class Document:
    """A parsed TOML text that knows its lines and collects what is wrong with it."""

    def __init__(self, text: str, filename: str, error: type[ColocError]) -> None:
        """Parse; raises `error` for text that is not TOML."""
        self.filename = filename
        self.error = error
        self.problems: list[Problem] = []
        text = text.removeprefix("\ufeff")
        if len(text) > LIMIT:
            raise error(f"{filename}: is longer than {LIMIT} characters")
        try:
            self.data: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as wrong:
            raise error(f"{filename}:{_place(wrong, text)}") from None
        except (ValueError, RecursionError) as wrong:
            raise error(f"{filename}: is not valid TOML: {wrong}") from None
        self._lines = key_lines(text)

    def line(self, path: Path) -> int | None:
        """Line of a key; of the table it would belong to when it is not there."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def complain(self, path: Path, reason: str) -> None:
        """Note that the value at `path` is refused."""
        self.problems.append(Problem(self.line(path), key_name(path), reason))

    def finish(self) -> None:
        """Raise for the first problem by line, if there is one."""
        if not self.problems:
            return
        first, *rest = sorted(self.problems, key=lambda found: (found.line or 0, found.key))
        place = self.filename if first.line is None else f"{self.filename}:{first.line}"
        more = sorted({found.line for found in rest if found.line is not None})
        also = f" (more on line {', '.join(str(line) for line in more)})" if more else ""
        raise self.error(
            f"{place}: {first.key}: {first.reason}{also}" if first.key else f"{place}: {first.reason}{also}"
        )

    def build(self, kind: type[T], rules: Rules) -> T:
        """Turn the text into a `kind`; raises for the first problem. `rules` are by dotted key, array items as `[]`."""
        built = self._struct(self.data, kind, rules, ())
        self.finish()
        return typing.cast("T", built)

    def _struct(self, data: object, kind: type[msgspec.Struct], rules: Rules, path: Path) -> object:
        if not isinstance(data, dict):
            self.complain(path, f"must be a table, not {_kind(data)}")
            return msgspec.UNSET
        hints = typing.get_type_hints(kind)
        fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        for name in data.keys() - fields.keys():
            self.complain((*path, name), f"is not a known key{_meant(name, list(fields))}")
        before = len(self.problems)
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if name in data:
                values[field.name] = self._value(data[name], hints[field.name], rules, (*path, name))
            elif field.required:
                self.complain((*path, name), "is missing")
        if len(self.problems) > before or any(value is msgspec.UNSET for value in values.values()):
            return msgspec.UNSET
        return kind(**values)

    def _value(self, data: object, hint: Any, rules: Rules, path: Path) -> object:
        rule = rules.get(rule_name(path), Rule())
        inner = _without_none(hint)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return self._struct(data, inner, rules, path)
        if typing.get_origin(inner) is tuple and isinstance(data, list):
            item = typing.get_args(inner)[0]
            built = tuple(self._value(one, item, rules, (*path, index)) for index, one in enumerate(data))
            return msgspec.UNSET if any(one is msgspec.UNSET for one in built) else self._ruled(built, rule, path)
        if typing.get_origin(inner) is dict and isinstance(data, dict):
            item = typing.get_args(inner)[1]
            table = {name: self._value(one, item, rules, (*path, name)) for name, one in data.items()}
            return msgspec.UNSET if msgspec.UNSET in table.values() else self._ruled(table, rule, path)
        if rule.unit == "seconds" and isinstance(data, str):
            try:
                data = seconds(data)
            except (ValueError, OverflowError) as wrong:
                self.complain(path, str(wrong))
                return msgspec.UNSET
        try:
            value = msgspec.convert(data, inner)
        except msgspec.ValidationError as wrong:
            self.complain(path, _type_reason(data, inner, str(wrong)))
            return msgspec.UNSET
        except OverflowError:
            self.complain(path, "is too large a number")
            return msgspec.UNSET
        if isinstance(value, str) and rule.check is None:
            rule = Rule(check=one_line)
        return self._ruled(value, rule, path)

    def _ruled(self, value: object, rule: Rule, path: Path) -> object:
        try:
            reason = rule.reason(value)
        except OverflowError:
            reason = "is too large a number"
        if reason is None:
            return value
        self.complain(path, reason)
        return msgspec.UNSET


def decode(text: str, filename: str, kind: type[T], rules: Rules, error: type[ColocError]) -> T:
    """Turn TOML text into a `kind`. Raises `error`: "FILE:LINE: key: reason"."""
    return Document(text, filename, error).build(kind, rules)


def key_name(path: Path) -> str:
    """A path as people write it: `topology.sources[0].nodes`."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            word = part if part.replace("-", "_").isidentifier() and part.isascii() else repr(part)[:60]
            name += f".{word}" if name else word
    return name


def rule_name(path: Path) -> str:
    """A path as the rules name it: `topology.sources[].nodes`."""
    name = ""
    for part in path:
        name += "[]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [arg for arg in typing.get_args(hint) if arg is not types.NoneType]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _place(wrong: tomllib.TOMLDecodeError, source: str) -> str:
    """Move tomllib's "(at line 3, column 5)" to the front: "3: is not valid TOML: … (column 5)"."""
    text, _, place = str(wrong).rpartition(" (at ")
    words = place.rstrip(")").replace(",", "").split()
    if len(words) == 4 and words[0] == "line":
        return f"{words[1]}: is not valid TOML: {text} (column {words[3]})"
    if place.startswith("end of document"):
        return f"{len(source.splitlines()) or 1}: is not valid TOML: {text} at the end of the file"
    return f" is not valid TOML: {wrong}"


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"


_KINDS = {bool: "a boolean", int: "a whole number", float: "a number", str: "a text", list: "an array", dict: "a table"}


def _kind(data: object) -> str:
    return _KINDS.get(type(data), "a date or time")


def _type_reason(data: object, hint: Any, said: str) -> str:
    choices: list[str] = []
    if typing.get_origin(hint) is typing.Literal:
        choices = [str(choice) for choice in typing.get_args(hint)]
    elif isinstance(hint, type) and issubclass(hint, str) and hint is not str:
        choices = [str(member.value) for member in hint]  # type: ignore[attr-defined]  # our only str subclasses are StrEnums
    if choices:
        close = difflib.get_close_matches(data, choices, n=1) if isinstance(data, str) else []
        hinted = f"; did you mean {close[0]!r}?" if close else ""
        return f"must be one of {', '.join(repr(choice) for choice in choices)}, not {data!r:.60}{hinted}"
    wanted = "an array" if typing.get_origin(hint) is tuple else _KINDS.get(hint)
    if isinstance(data, float) and hint is int:
        return f"must be a whole number, not {data:g}"
    return f"must be {wanted}, not {_kind(data)}" if wanted and wanted != _kind(data) else f"is refused: {said}"
