"""Writes docs/configuration.md from the Structs, docstrings and ranges in colocd. `--check`: only say whether it is current."""

import ast
import inspect
import json
import sys
import textwrap
import typing
from pathlib import Path
from typing import Any

import msgspec

from colocd.config import RULES, Config
from colocd.units import Rule

TARGET = Path(__file__).parents[1] / "docs" / "configuration.md"

HEAD = """\
<!-- written by tools/gen_docs.py; change colocd/config.py or colocd/core/policy.py, then run it again -->
# The configuration file

colocd and `coloc` read `/etc/coloc/colocd.toml`; `--config` or the environment variable `COLOC_CONFIG` name another one. It is
TOML. Every key has a default, so an empty file is a valid one, and only what differs has to be written;
`systemd/colocd.toml.example` is a commented start. `coloc config check` names line, key and reason of a mistake (exit 78),
and warns of values that are legal but hardly meant. `systemctl reload colocd` takes mode, policy and topology of a
changed file over between two cycles; the rest needs a restart. A file with a mistake changes nothing then.

Durations are numbers of seconds or texts with units: `90`, `"90s"`, `"5m"`, `"1h30m"`, `"2d"`, `"1w"`. Unknown keys are errors.
Paths are absolute.
"""


def attribute_docs(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Docstrings below the fields of a Struct, by field."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    found: dict[str, str] = {}
    previous: ast.stmt | None = None
    for statement in typing.cast("ast.ClassDef", node).body:
        if (
            isinstance(previous, ast.AnnAssign)
            and isinstance(previous.target, ast.Name)
            and isinstance(statement, ast.Expr)
            and isinstance(statement.value, ast.Constant)
            and isinstance(statement.value.value, str)
        ):
            found[previous.target.id] = " ".join(inspect.cleandoc(statement.value.value).split())
        previous = statement
    return found


def type_words(hint: Any, rule: Rule) -> str:
    """What is to be written for a value of this type."""
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(f'`"{choice}"`' for choice in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"list of {type_words(typing.get_args(hint)[0], Rule())}s"
    inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    if inner:
        return type_words(inner[0], rule)
    if rule.unit == "seconds":
        return "duration"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false"}[hint]
    return f"{words} ({rule.unit})" if rule.unit else words


def value_words(value: Any, rule: Rule) -> str:
    """A default as it would be written in the file."""
    if value is None:
        return "not set"
    if rule.unit == "seconds":
        for unit, size in (("w", 604800.0), ("d", 86400.0), ("h", 3600.0), ("m", 60.0)):
            if value and value % size == 0:
                return f'`"{value / size:g}{unit}"`'
        return f"`{value:g}`"
    if isinstance(value, tuple):
        return f"`{json.dumps(list(value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{json.dumps(value)}`"


def range_words(rule: Rule) -> str:
    """The range of a value; a duration's upper bound as days or hours."""
    said = rule.range()
    if rule.unit == "seconds" and rule.high is not None:
        high = f"{rule.high / 86400:g} d" if rule.high >= 86400 else f"{rule.high:g} s"
        said = said.replace(f"at most {rule.high:.15g}", f"at most {high}")
    return said


def section(kind: type[msgspec.Struct], header: str, prefix: str) -> list[str]:
    """Text of one table of the file, and of the tables within it."""
    lines = ["", f"## {header}", "", inspect.cleandoc(kind.__doc__ or ""), ""]
    lines += ["| key | type | default | range | meaning |", "|---|---|---|---|---|"]
    docs, hints, inner = attribute_docs(kind), typing.get_type_hints(kind), []
    for field in msgspec.structs.fields(kind):
        hint, key = hints[field.name], prefix + field.name
        if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
            inner += section(hint, f"`[{key}]`", f"{key}.")
            continue
        item = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
        if isinstance(item, type) and issubclass(item, msgspec.Struct):
            inner += section(item, f"`[[{key}]]`", f"{key}[].")
            kind_words = "tables"
        else:
            kind_words = type_words(hint, RULES[key])
        default = "**must be given**" if field.required else value_words(field.default, RULES[key])
        meaning = docs[field.name].replace("|", "\\|")
        lines.append(f"| `{field.name}` | {kind_words} | {default} | {range_words(RULES[key])} | {meaning} |")
    return [*lines, *inner]


def render() -> str:
    """The whole page."""
    return HEAD + "\n".join(section(Config, "Top level", "")) + "\n"


def main() -> None:
    """Write the page, or compare with `--check` (exit 1 when it is not current)."""
    text = render()
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            sys.exit(f"{TARGET.name} is not current; run python tools/gen_docs.py")
        return
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
