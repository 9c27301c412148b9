"""The contract tests on every release of Slurm and through every adapter, as a table (`make test-slurm`).

    python -m tools.test_slurm [RELEASE …]      for example 24.11; all of them when none is named

22.05 is what Debian 12 has: the Slurm that is installed here, whatever its release. The others live in folders with another
Debian (tools/slurm_root.sh), kept in COLOC_CACHE, else XDG_CACHE_HOME/coloc, else ~/.cache/coloc; they are built when they
are missing, which needs root, debootstrap and a mirror. COLOC_TEST_OPTIONAL=1: a release that cannot be had is no failure.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CONTRACT = "tests/slurm/contract"
LOOP = ["tests/slurm/test_closed_loop_releases.py", "tests/e2e/test_place_requests.py"]
HELPER = "tests/slurm/test_pyslurm_live.py"
PYSLURM = "/opt/pyslurm"


class Row(NamedTuple):
    """A line of the table; `why`: it could not be run, or what failed."""

    release: str
    adapter: str
    tests: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    why: str = ""


class Missing(Exception):
    """A release cannot be had here."""


SUITES = {"24.11": "trixie", "26.05": "forky"}
"""The Debian that has the release."""


def cache() -> Path:
    """Where the other systems are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("COLOC_CACHE") or Path(home) / "coloc") / "slurm"


def system(release: str) -> str | None:
    """The folder with this release's system; None: the host's own. Raises `Missing`."""
    if release == "22.05":
        return None
    folder = cache() / SUITES[release]
    folder.parent.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0 and shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        _build(["apt-get", "install", "-y", "-qq", "debootstrap"])
    # a mirror that stands still is good enough for a throw-away system; signatures are checked anyway
    _build([str(ROOT / "tools/slurm_root.sh"), str(folder), SUITES[release]])
    return str(folder)


def _build(argv: list[str]) -> None:
    env = {"COLOC_STALE_MIRROR": "1", **os.environ}
    done = subprocess.run(["nice", "-n", "10", *argv], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing("; ".join(done.stderr.split("\n")[:2]).strip("; ") or f"exit {done.returncode}")


def run(release: str, adapter: str, root: str | None, name: str, paths: list[str], only: str = "") -> Row:
    """Run some test files and count what became of them."""
    env = {**os.environ, "COLOC_TEST_RELEASES": "1", "COLOC_TEST_ADAPTER": adapter}
    env.pop("COLOC_TEST_SLURM_ROOT", None)
    if root is not None:
        env["COLOC_TEST_SLURM_ROOT"] = root
    started = time.perf_counter()
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        argv = [sys.executable, "-m", "pytest", "-q", "--color=no", "--tb=short", f"--junitxml={report.name}", *paths]
        done = subprocess.run(
            [*argv, *(["-k", only] if only else [])], env=env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        suites = ET.parse(report.name).getroot().iter("testsuite") if Path(report.name).stat().st_size else []
        counts = [
            {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")} for suite in suites
        ]
    total = {key: sum(count[key] for count in counts) for key in ("tests", "failures", "errors", "skipped")}
    failed = total["failures"] + total["errors"]
    if done.returncode and not failed:
        failed = 1
    if failed:
        print(done.stdout[-6000:], done.stderr[-2000:], flush=True)
    passed = total["tests"] - failed - total["skipped"]
    return Row(release, adapter, name, passed, failed, total["skipped"], time.perf_counter() - started)


def rows(release: str) -> list[Row]:
    """All that is to be run on a release."""
    try:
        root = system(release)
    except Missing as missing:
        return [Row(release, "cli", "contract", why=f"not run: {missing}")]
    found = [run(release, "cli", root, "contract", [CONTRACT], "live")]
    found.append(run(release, "cli", root, "closed loop", LOOP))
    if release == "26.05" and root is not None:
        try:
            _build([str(ROOT / "tools/pyslurm_build.sh"), PYSLURM, root])
        except Missing as missing:
            return [*found, Row(release, "pyslurm", "contract", why=f"not run: {missing}")]
        found.append(run(release, "pyslurm", root, "contract", [CONTRACT], "live"))
        found.append(run(release, "pyslurm", root, "helper", [HELPER]))
    return found


def table(found: list[Row]) -> str:
    """The rows, with lines of equal width."""
    lines = [f"{'release':9}{'adapter':10}{'tests':13}{'passed':>7}{'failed':>7}{'skipped':>8}{'seconds':>9}"]
    for row in found:
        head = f"{row.release:9}{row.adapter:10}{row.tests:13}"
        counts = f"{row.passed:7}{row.failed:7}{row.skipped:8}{row.seconds:9.0f}"
        lines.append(head + (row.why if row.why else counts))
    return "\n".join(lines)


def main(names: list[str]) -> int:
    """Run everything; 1 when a test failed, or a release could not be had and is not optional."""
    strange = [name for name in names if name not in ("virtual", "22.05", *SUITES)]
    if strange:
        print(
            f"test_slurm: unknown: {', '.join(strange)}; there are virtual, 22.05, {', '.join(SUITES)}", file=sys.stderr
        )
        return 2
    found: list[Row] = []
    for name in names or ["virtual", "22.05", *SUITES]:
        new = [run("-", "virtual", None, "contract", [CONTRACT], "virtual")] if name == "virtual" else rows(name)
        found += new
        print(table(new), flush=True)
    print(f"\n{table(found)}", flush=True)
    missing = any(row.why for row in found) and os.environ.get("COLOC_TEST_OPTIONAL") != "1"
    return int(missing or any(row.failed for row in found))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
