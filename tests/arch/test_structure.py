"""Rules about the files of the project: size, docstrings, one version, nothing of one machine."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("topology/coloc_topology", "daemon/colocd", "cli/coloc_cli", "migrations/coloc_migrations")
LIMIT = 300
LONGER: dict[str, str] = {}
"""Files allowed over the limit, each with its reason."""
SKIPPED = {".git", ".venv", "__pycache__", "build", "dist"}


def tracked() -> list[str]:
    """Files of the project: as git lists them (new ones included), else (in an unpacked archive) all that is there."""
    argv = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(argv, capture_output=True, check=False, text=True)
        names = done.stdout.split("\0") if done.returncode == 0 else []
    except FileNotFoundError:
        names = []
    if not names:
        found = [p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file()]
        names = [str(p) for p in found if not any(part in SKIPPED or part.endswith("_cache") for part in p.parts)]
    return sorted({name for name in names if name and (ROOT / name).is_file()})


FILES = tracked()
SOURCES = [name for name in FILES if name.endswith(".py")]


def test_the_project_is_seen() -> None:
    assert "pyproject.toml" in FILES
    for package in PACKAGES:
        assert f"{package}/__init__.py" in SOURCES


def test_no_file_is_long() -> None:
    sizes = {name: len((ROOT / name).read_text().splitlines()) for name in SOURCES}
    long = {name: lines for name, lines in sizes.items() if lines > LIMIT and name not in LONGER}
    assert not long, f"over {LIMIT} lines: split them, or add them to LONGER with the reason"
    stale = [name for name in LONGER if sizes.get(name, 0) <= LIMIT]
    assert not stale, "on the list without need"


def test_every_package_file_says_what_it_is() -> None:
    ours = [name for name in SOURCES if name.startswith(PACKAGES)]
    silent = [name for name in ours if not ast.get_docstring(ast.parse((ROOT / name).read_text()))]
    assert not silent, "module docstring missing"


def machine_marks(text: str) -> list[str]:
    """Absolute paths of one person's machine, and hosts packages come from."""
    homes = r"(?<![\w.$}{-])/(?:home/[a-z]|Users/[A-Za-z]|work/|mnt/[a-z]|workspace/)[\w./-]*"
    hosts = r"(?i)\b(?:[\w-]+\.)*(?:pypi\.org|pythonhosted\.org|debian\.org|ubuntu\.com|docker\.io|ghcr\.io|artifactory[\w.-]*)\b"
    registry = r"--(?:extra-)?index-url|PIP_(?:EXTRA_)?INDEX_URL="
    return [m.group(0) for rule in (homes, hosts, registry) for m in re.finditer(rule, text)]


@pytest.mark.parametrize(
    "text",
    [
        "cd /home/ann/coloc",
        "root=/work/wt-x",
        "https://pypi.org/simple",
        "deb http://deb.debian.org/debian",
        "--index-url x",
    ],
)
def test_marks_of_a_machine_are_found(text: str) -> None:
    assert machine_marks(text)


@pytest.mark.parametrize(
    "text", ["$D/home/x", "/var/lib/coloc", "/etc/coloc/colocd.toml", "ProtectHome=yes", "/usr/bin/python3"]
)
def test_ordinary_paths_are_no_marks(text: str) -> None:
    assert not machine_marks(text)


def test_nothing_of_one_machine() -> None:
    """Recorded data is left out: it shows other people's machines, as it should."""
    found = {}
    for name in FILES:
        if (
            name == "tests/arch/test_structure.py"
            or "/data/" in name
            or "/golden/" in name
            or name.startswith("LICENSE")
        ):
            continue
        try:
            marks = machine_marks((ROOT / name).read_text())
        except UnicodeDecodeError:
            continue
        if marks:
            found[name] = marks
    assert not found


def test_one_version() -> None:
    """pyproject.toml says the version; nobody else writes it down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = project["version"]
    written = re.compile(rf"""(?i)version\w*['"]?\s*[:=]\s*['"]{re.escape(version)}['"]""")
    ours = [name for name in FILES if name.endswith((".py", ".toml", ".cfg")) and not name.startswith("tests/")]
    twice = [name for name in ours if written.search((ROOT / name).read_text())]
    assert twice == ["pyproject.toml"]


def test_entry_points_are_the_documented_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"colocd", "coloc", "coloc-sbatch"} <= set(project["scripts"])
