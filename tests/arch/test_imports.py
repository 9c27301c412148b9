"""The import rules hold, and they bite: a core that breaks one of them is refused."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TREES = ("topology", "daemon", "cli", "migrations")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over the packages below `folder`, with the rules of its pyproject.toml."""
    program = shutil.which(
        "lint-imports", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    assert program, "import-linter is missing: run make setup"
    paths = os.pathsep.join(str(folder / tree) for tree in TREES)
    env = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    argv = [program, "--no-cache"]
    return subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=90, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packages, to be spoiled."""
    for tree in TREES:
        shutil.copytree(ROOT / tree, tmp_path / tree, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_rules_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("daemon/colocd/core/view.py", "import time", "time"),
        ("daemon/colocd/core/view.py", "import random", "random"),
        ("daemon/colocd/core/actions.py", "import sqlalchemy", "sqlalchemy"),
        ("daemon/colocd/core/policy.py", "from colocd.clock import SystemClock", "colocd.clock"),
        ("daemon/colocd/core/spoiled.py", "import os.path", "os"),
        ("topology/coloc_topology/fit.py", "import time", "time"),
        ("topology/coloc_topology/fit.py", "import colocd.errors", "colocd"),
        ("daemon/colocd/errors.py", "import coloc_cli", "coloc_cli"),
    ],
)
def test_the_rules_bite(copy: Path, file: str, line: str, broken: str) -> None:
    target = copy / file
    target.write_text((target.read_text() if target.exists() else '"""A new file of the core."""\n') + f"\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
    assert broken in done.stdout
