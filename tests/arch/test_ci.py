"""The entry point of continuous integration and the set-up script, with a stand-in for make."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKE = """#!/bin/sh
echo "make $1 CI=$CI"
[ -t 0 ] || read -r line && exit 99
[ "$1" = demo ] && exit "$DEMO"
[ "$1" = test-slurm ] && exit "$SLURM"
[ "$1" = test-crash ] && exit "$CRASH"
[ "$1" = test-evictions ] && exit "$EVICTIONS"
sleep "$LASTS"; exit "$TEST"
"""


@pytest.mark.parametrize(
    ("test", "demo", "slurm", "crash", "budget", "lasts", "code", "said"),
    [
        (0, 0, 0, 0, 1870, 0, 0, "make test-slurm, make test-crash, make test-presets, make test-evictions"),
        (2, 0, 0, 0, 1870, 0, 2, "failed: make test (exit 2)"),
        (0, 1, 0, 0, 1870, 0, 1, "failed: make demo (exit 1)"),
        (0, 0, 4, 0, 1870, 0, 4, "passed: make test, make demo; failed: make test-slurm (exit 4)"),
        (0, 0, 0, 3, 1870, 0, 3, "make test-slurm; failed: make test-crash (exit 3)"),
        (0, 0, 0, 124, 1870, 0, 0, "make test-crash was stopped at the end of the time"),
        (0, 0, 0, 0, 700, 0, 0, "passed: make test, make demo, make test-crash"),
        (0, 0, 0, 0, 700, 0, 0, "test-slurm not run"),
        (0, 0, 0, 0, 400, 0, 0, "test-crash not run"),
        (0, 0, 0, 0, 100, 0, 0, "demo not run"),
        (0, 0, 0, 0, 1, 60, 124, "was stopped"),
    ],
    ids=[
        "all",
        "test fails",
        "demo fails",
        "a release fails",
        "crash fails",
        "crash takes too long",
        "no time for the releases",
        "and that is said",
        "no time for crash",
        "no time for the demo",
        "test too long",
    ],
)
def test_ci(
    tmp_path: Path, test: int, demo: int, slurm: int, crash: int, budget: int, lasts: int, code: int, said: str
) -> None:
    make = tmp_path / "make"
    make.write_text(MAKE)
    make.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "COLOC_CI_SECONDS": str(budget)}
    env["EVICTIONS"] = "0"
    env |= {"TEST": str(test), "DEMO": str(demo), "SLURM": str(slurm), "CRASH": str(crash), "LASTS": str(lasts)}
    done = subprocess.run(
        [ROOT / ".ci/run"], env=env, input="x\n", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout
    assert "make test CI=true" in done.stdout
    assert ("make demo CI=true" in done.stdout) == (test == 0 and budget > 280)
    assert ("make test-slurm CI=true" in done.stdout) == (test == demo == 0 and budget > 900)
    assert ("make test-crash CI=true" in done.stdout) == (test == demo == slurm == 0 and budget > 600)


def test_a_trial_that_fails_is_told(tmp_path: Path) -> None:
    make = tmp_path / "make"
    make.write_text(MAKE)
    make.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "COLOC_CI_SECONDS": "1870", "EVICTIONS": "5"}
    env |= dict.fromkeys(("TEST", "DEMO", "SLURM", "CRASH", "LASTS"), "0")
    done = subprocess.run([ROOT / ".ci/run"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "make test-presets (" in done.stdout
    assert "FAILED, to be looked at: make test-evictions (exit 5)" in done.stdout


@pytest.mark.parametrize(
    "script",
    [
        "tools/setup.sh",
        "tools/slurm_root.sh",
        "tools/pyslurm_build.sh",
        "tools/presets_env.sh",
        ".ci/run",
        "demo/train_job.sh",
        "bench/slurm_job.sh",
    ],
)
def test_scripts_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_setup_is_silent_where_nothing_is_missing() -> None:
    """As in this very run: the packages are there, so nothing is installed and no right is needed."""
    done = subprocess.run(
        [ROOT / "tools/setup.sh", "packages"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_setup_refuses_what_it_does_not_know() -> None:
    done = subprocess.run(
        [ROOT / "tools/setup.sh", "everything"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "usage" in done.stderr


def test_setup_tells_an_ordinary_user_what_to_do(tmp_path: Path) -> None:
    """A PATH without the packages, and a user who cannot install: one message with the command to run."""
    script = (ROOT / "tools/setup.sh").read_text()
    assert 'PATH="$PATH:/usr/sbin:/sbin"' in script
    copy = tmp_path / "tools" / "setup.sh"
    copy.parent.mkdir()
    # the same script on a machine where nothing is installed but apt-get, run by somebody who is not root
    bare = script.replace('PATH="$PATH:/usr/sbin:/sbin"', f"PATH={tmp_path}").replace("((EUID))", "((1))")
    bare = bare.replace("/usr/lib/postgresql", str(tmp_path)).replace("/usr/bin/python3", "no-python")
    bare = bare.replace('cd "$(dirname "${BASH_SOURCE[0]}")/.."', f"cd {tmp_path}")
    copy.write_text(bare)
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nexit 99\n")
    apt.chmod(0o755)
    done = subprocess.run(["bash", copy, "packages"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    for package in ("slurm-wlm", "munge", "postgresql", "systemd", "git", "python3-venv"):
        assert package in first
    assert second.endswith("sudo tools/setup.sh packages")
