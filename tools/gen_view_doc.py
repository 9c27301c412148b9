"""Writes docs/view.md and docs/plan-document.md from colocd.core. Run: `python -m tools.gen_view_doc [--check]`."""

import ast
import inspect
import json
import sys
import textwrap
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec
from tools.gen_docs import attribute_docs

from coloc_topology.shape import Shape
from colocd.core import actions, service, view
from colocd.core.plan import plan

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 120
WRITTEN = (
    "<!-- written by tools/gen_view_doc.py from {source}; change that, then run python -m tools.gen_view_doc -->\n"
)
VIEW_HEAD = """\
# The view

Everything one cycle knows, as one JSON document: what Slurm, the services and the store said, and the site's rules. The
planner reads nothing else, so a saved view is a complete test case: `coloc snapshot view.json` writes the last one, `coloc
plan --view view.json` plans on it anywhere, without daemon, Slurm or database, and `GET /v1/view` is the same document.

* Version {version}. A field may be added within a version; a change of meaning makes a new one. `coloc plan --view`
  refuses another version.
* coloc writes every field, keys in a fixed order: same view, same bytes. In a document that is read, a field with a default
  may be missing, and unknown fields are skipped.
* **`null` is unknown, never zero** (the texts below come from the code, where it is called None). Times are Unix seconds
  (UTC), durations seconds.
* A set of GPUs is an integer: bit i is the GPU with Slurm's index i. `15` is GPUs 0-3.

A view names users, jobs and nodes and holds the services' scripts. Look through it before it leaves the site.
"""
PLAN_HEAD = """\
# The plan

What the planner makes of one [view](view.md), as one JSON document: `GET /v1/plan`, `coloc plan --json`, `coloc plan --view
FILE --json`. Same view, same plan, byte for byte. How it decides: [planning.md](planning.md). `actions` stand in the order
in which they are carried out; the field `type` tells their kind. GPU sets, times and `null` (None in the code) are as in the
view. Every action and note has its reason in words.
"""


def example() -> view.View:
    """A node of two NVLinked pairs: a replica on one, a batch job on the other, and a load for two replicas."""
    far, near = "SYS", "NV4"
    pairs = Shape("pairs", (("X", near, far, far), (near, "X", far, far), (far, far, "X", near), (far, far, near, "X")))
    mark = view.Checkpoint(signal="USR1", interval=600.0, grace=60.0, saved=1759999700.0)
    forecast = view.Forecast(
        points=(view.Quantiles(0.0, {"0.5": 55.0, "0.9": 55.0}), view.Quantiles(900.0, {"0.5": 52.0, "0.9": 58.0})),
        step=900.0,
        trust=0.95,
        basis="cycle found; 1 h ahead mostly by weekly profile, shifted: lately 5.0% off (last value: 20.0%)",
        records=(
            view.Record(
                ahead=3600.0, wape=0.05, persistence=0.2, covered95=0.95, seen=900, used="weekly profile, shifted"
            ),
        ),
    )
    train = view.Job(
        ref="17",
        user="ann",
        name="train",
        partition="batch",
        state=view.JobState.RUNNING,
        gpus={"n1": 0b1100},
        gpus_requested=2,
        started=1759990000.0,
        checkpoint=mark,
    )
    chat = service.ServiceSpec(
        name="chat",
        user="llm",
        partition="online",
        script="#!/bin/sh\nexec serve\n",
        gpus_per_replica=2,
        max_replicas=2,
        capacity=service.Capacity(per_replica=48.0),
        load=service.Load(url="http://{address}:{port}/metrics"),
    )
    first = view.Replica(
        service="chat",
        slot=0,
        state=view.ReplicaState.READY,
        job="12",
        node="n1",
        places={"n1": 0b0011},
        level="NVLINK",
        load=55.0,
    )
    return view.View(
        at=1760000000.0,
        mode="act",
        slurm="22.05.8",
        shapes={"pairs": pairs},
        nodes=(
            view.Node(
                name="n1",
                address="10.0.0.1",
                up=True,
                gpus=4,
                used=0b1111,
                shape="pairs",
                partitions=("batch", "online"),
            ),
        ),
        jobs=(train,),
        gpus={"n1": view.NodeReadings(at=1759999998.0, sm=(92, 90, 100, 99), used=(70000,) * 4, power=(610.5,) * 4)},
        services=(
            view.ServiceView(
                spec=chat, replicas=(first,), load=view.Reading(value=55.0, at=1759999999.0), forecast=forecast
            ),
        ),
    )


def class_docs(kind: type) -> dict[str, str]:
    """Docstrings below the members of an enumeration, by value."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    found: dict[str, str] = {}
    last = ""
    for statement in typing.cast("ast.ClassDef", node).body:
        if isinstance(statement, ast.Assign):
            last = ast.literal_eval(statement.value)
        elif last and isinstance(statement, ast.Expr):
            found[last] = " ".join(ast.literal_eval(statement.value).split())
    return found


def inner(hint: Any) -> list[Any]:
    """The types within a type, null left out."""
    return [arg for arg in typing.get_args(hint) if arg not in (type(None), Ellipsis)]


def words(hint: Any) -> str:
    """A type as JSON knows it."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        said = " or ".join(words(arg) for arg in inner(hint))
        return f"{said} or null" if type(None) in typing.get_args(hint) else said
    if origin is tuple:
        return f"list of {words(inner(hint)[0])}"
    if origin is dict:
        return f"object: name → {words(inner(hint)[1])}"
    if origin is typing.Literal:
        return " or ".join(f'`"{choice}"`' for choice in inner(hint))
    if hint in (str, float, int, bool):
        return {str: "text", float: "number", int: "integer", bool: "true or false"}[hint]
    return f"[{hint.__name__}](#{hint.__name__.lower()})"


def default(field: Any) -> str:
    """What a missing field means."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        return "its defaults"
    return f"`{json.dumps(msgspec.to_builtins(value))}`"


def section(kind: type) -> list[str]:
    """Text about one Struct or enumeration."""
    lines = ["", f"## {kind.__name__}", ""]
    if issubclass(kind, Enum):
        said = class_docs(kind)
        lines += [inspect.cleandoc(kind.__doc__ or ""), ""]
        return lines + [
            f'* `"{item.value}"`' + (f": {said[item.value]}" if item.value in said else "") for item in kind
        ]
    assert issubclass(kind, msgspec.Struct)
    lines += [inspect.cleandoc(kind.__doc__ or ""), "", "| field | type | if missing | meaning |", "|---|---|---|---|"]
    docs, hints = attribute_docs(kind), typing.get_type_hints(kind)
    if kind.__struct_config__.tag is not None:
        lines.append(f'| `type` | `"{kind.__struct_config__.tag}"` | required | The kind of action. |')
    for field in msgspec.structs.fields(kind):
        row = (f"`{field.name}`", words(hints[field.name]), default(field), docs.get(field.name, ""))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
    return lines


def walk(first: type) -> list[type]:
    """The Struct and all Structs and enumerations within it, in the order in which a reader meets them."""
    found = [first]
    for kind in found:  # grows while it is walked
        todo = list(typing.get_type_hints(kind).values()) if issubclass(kind, msgspec.Struct) else []
        while todo:
            hint = todo.pop(0)
            todo = inner(hint) + todo
            if isinstance(hint, type) and issubclass(hint, msgspec.Struct | Enum) and hint not in found:
                found.append(hint)
    return found


def brief(value: Any) -> Any:
    """A Struct as JSON values, without the fields that have their defaults."""
    if isinstance(value, msgspec.Struct):
        kept = {f.name: getattr(value, f.name) for f in msgspec.structs.fields(value)}
        for field in msgspec.structs.fields(value):
            factory = field.default_factory
            usual = factory() if factory is not msgspec.NODEFAULT else field.default
            if kept[field.name] == usual:
                del kept[field.name]
        return {name: brief(item) for name, item in kept.items()}
    if isinstance(value, dict):
        return {key: brief(item) for key, item in value.items()}
    return [brief(item) for item in value] if isinstance(value, tuple) else msgspec.to_builtins(value)


def dump(value: Any, indent: int = 0) -> str:
    """JSON for people: what fits into a line stays in one."""
    short = json.dumps(value, ensure_ascii=False)
    if indent + len(short) < WIDTH or not isinstance(value, dict | list):
        return short
    pad = " " * (indent + 1)
    if isinstance(value, dict):
        items = [f"{pad}{json.dumps(key)}: {dump(item, indent + 1)}" for key, item in value.items()]
    else:
        items = [pad + dump(item, indent + 1) for item in value]
    left, right = "{}" if isinstance(value, dict) else "[]"
    return left + "\n" + ",\n".join(items) + "\n" + " " * indent + right


def render() -> dict[str, str]:
    """Both pages, by file name."""
    shown = example()
    planned = json.loads(actions.encode_plan(plan(shown)))
    pages = {}
    for name, head, kind, source, text in (
        ("view.md", VIEW_HEAD.format(version=view.VIEW_VERSION), view.View, "colocd/core/view.py", dump(brief(shown))),
        (
            "plan-document.md",
            PLAN_HEAD,
            actions.Plan,
            "colocd/core/actions.py",
            dump(planned),
        ),
    ):
        note = (
            "Fields that have their defaults are left out." if kind is view.View else "The plan for the view's example."
        )
        lines = [WRITTEN.format(source=source) + head, "## Example", "", note, "```json", text, "```"]
        lines += [line for part in walk(kind) for line in section(part)]
        pages[name] = "\n".join(lines) + "\n"
    return pages


def main() -> None:
    """Write the pages, or compare with `--check` (exit 1 when one is not current)."""
    for name, text in render().items():
        page = DOCS / name
        if "--check" not in sys.argv[1:]:
            page.write_text(text, encoding="utf-8")
        elif not page.exists() or page.read_text(encoding="utf-8") != text:
            sys.exit(f"{name} is not current; run python -m tools.gen_view_doc")


if __name__ == "__main__":
    main()
