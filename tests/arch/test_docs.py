"""What the documents say of commands, states, decisions, metrics and files is so in the code."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest
from tools import gen_view_doc

from coloc_cli.main import COMMANDS, cli
from colocd.core.actions import encode_plan
from colocd.core.plan import plan
from colocd.core.view import decode_view
from colocd.metrics import Metrics
from colocd.store.records import Handover, HandoverState

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.glob("**/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def first_cells(page: str) -> list[list[str]]:
    """The cells of all table rows of a page."""
    lines = (DOCS / page).read_text().replace("\\|", "\0").splitlines()
    rows = [
        [cell.strip().replace("\0", "|") for cell in line.strip("|").split("|")] for line in lines if line[:2] == "| "
    ]
    return [row for row in rows if row]


def anchors(page: Path) -> set[str]:
    """The link targets that the headings of a page make."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        assert "://" not in link, "the documents stand for themselves"
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_documents_named_in_the_code_exist() -> None:
    for folder in ("topology", "daemon", "cli", "migrations", "systemd", "demo", "tools"):
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix in (".py", ".toml", ".service", ".example", ".sh"):
                for name in re.findall(r"\bdocs/[\w./-]+\.md", file.read_text()):
                    assert (ROOT / name).exists(), f"{file.relative_to(ROOT)} names {name}"


def known(words: list[str]) -> bool:
    """Whether these are a command of coloc's, with its sub-command where it has some."""
    if words[0] not in COMMANDS:
        return False
    command = cli.get_command(click.Context(cli), words[0])
    return not isinstance(command, click.Group) or len(words) < 2 or words[1] in command.commands


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    blocks = re.findall(r"^\s*```(?:sh)?\n(.*?)^\s*```", text, re.DOTALL | re.MULTILINE)
    code = [*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))]
    spans = [
        span for part in code for span in re.findall(r"(?m)(?:^\s*(?:\$ )?|&& |; )coloc ([a-z]+(?: [a-z]+)?)", part)
    ]
    unknown = [span for span in spans if not known(span.split())]
    assert not unknown


def test_unknown_commands_are_seen() -> None:
    assert known(["db", "upgrade"])
    assert not known(["db", "downgrade"])
    assert not known(["fly"])


def test_the_readme_shows_the_help() -> None:
    """Asked in a process of its own: click keeps help options on the command, so other tests would show."""
    env = {**os.environ, "COLUMNS": "80"}
    argv = [sys.executable, "-m", "coloc_cli.main", "--help"]
    told = subprocess.run(argv, env=env, capture_output=True, text=True, check=True).stdout
    assert f"$ coloc --help\n{told}```" in (ROOT / "README.md").read_text()


def test_the_view_and_plan_pages_are_current() -> None:
    for name, text in gen_view_doc.render().items():
        assert (DOCS / name).read_text() == text, "run python -m tools.gen_view_doc"


def test_the_check_finds_an_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DOCS / "plan-document.md", tmp_path)
    monkeypatch.setattr(gen_view_doc, "DOCS", tmp_path)
    monkeypatch.setattr("sys.argv", ["gen_view_doc.py", "--check"])
    with pytest.raises(SystemExit, match=r"view\.md is not current"):
        gen_view_doc.main()
    (tmp_path / "view.md").write_text(gen_view_doc.render()["view.md"])
    gen_view_doc.main()


def test_the_example_view_can_be_read_and_planned() -> None:
    example = {
        name: re.findall(r"```json\n(.*?)```", (DOCS / name).read_text(), re.DOTALL) for name in gen_view_doc.render()
    }
    view = decode_view(example["view.md"][0].encode())
    assert view == gen_view_doc.example()
    assert msgspec.json.decode(example["plan-document.md"][0]) == msgspec.json.decode(encode_plan(plan(view)))


def test_the_metrics_page_names_every_series() -> None:
    metrics = Metrics()
    view = gen_view_doc.example()
    metrics.seen(view)
    metrics.cycle(0.1)
    metrics.readings({"batches": 1})
    metrics.asked({"squeue": (1, 0.1)})
    ended = Handover(service="chat", slot=0, places={"n1": 3}, level="NVLINK", created_at=0.0, updated_at=1.0)
    for state in (HandoverState.RELEASED, HandoverState.FAILED, HandoverState.ROLLED_BACK):
        metrics.handover(msgspec.structs.replace(ended, state=state, data={"evicted": ["17"], "acked": []}))
    real = {}
    values: set[str] = set()
    for family in metrics.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        values |= {v for sample in family.samples for k, v in sample.labels.items() if k in ("use", "outcome")}
        name = family.name + ("_total" if family.type == "counter" else "")
        real[name] = (family.type, ", ".join(f"`{label}`" for label in sorted(labels)))
    rows = [row for row in first_cells("metrics.md") if len(row) == 4 and row[0].startswith("`coloc_")]
    assert {row[0].strip("`"): (row[1], row[2]) for row in rows} == real
    told = " ".join(row[3] for row in rows)
    assert all(f"`{value}`" in told for value in values)


def test_the_handover_page_has_every_state() -> None:
    text = (DOCS / "handover.md").read_text()
    rows = [re.findall(r"`([a-z-]+)`", row[0]) for row in first_cells("handover.md") if len(row) == 5]
    assert sorted(state for row in rows for state in row) == sorted(state.value for state in HandoverState)
    diagram = text.split("```")[1]
    assert all(state.value in diagram for state in HandoverState)


def literals(node: ast.expr | None) -> set[str]:
    """The texts an expression can be: a literal, or either side of a choice between literals."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return {node.value}
    return literals(node.body) | literals(node.orelse) if isinstance(node, ast.IfExp) else set()


def decision_kinds() -> set[str]:
    """The kinds of all decisions that the daemon records, from its source."""
    kinds = {HandoverState.FAILED.value, HandoverState.ROLLED_BACK.value}
    for file in (ROOT / "daemon" / "colocd").rglob("*.py"):
        tree = ast.parse(file.read_text())
        names = {
            target.id: literals(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id == "kind"
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            if "shell" in ast.unparse(node.func):
                continue  # Slurm is told, not people
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            at = {"tell": 1, "_decide": 1, "_say_once": 2}.get(called)
            given: ast.expr | None = node.args[at] if at is not None and len(node.args) > 2 else None
            if called == "Decision":
                given = next((word.value for word in node.keywords if word.arg == "kind"), None)
            kinds |= names.get(given.id, set()) if isinstance(given, ast.Name) else literals(given)
    return kinds


def test_the_operations_page_explains_every_decision() -> None:
    kinds = decision_kinds()
    assert {"reclaim", "place", "evict", "advice", "pause", "problem", "grace-expired"} <= kinds
    rows = [re.findall(r"`([a-z-]+)`", row[0]) for row in first_cells("operations.md") if len(row) == 4]
    assert sorted(kind for row in rows for kind in row) == sorted(kinds)
