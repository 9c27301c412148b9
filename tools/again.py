"""The second look of `make test` at live tests that failed: python -m tools.again FOLDER

Two tests at a time share a small machine with the daemons of a whole cluster each; a live test that failed beside another one
is run once more alone. What passes then is named as unstable, with its failure above: somebody has to look at it, but it does
not stop everybody's work. A test that failed alone, too, or one that needs no daemons, or more than three: failed.
FOLDER is pytest's cache of the run that failed. Exit code: 0 when all passed now, else 1.
"""

import json
import subprocess
import sys
from pathlib import Path

LIVE = ("tests/e2e/", "tests/slurm/", "tests/cli/test_live_", "tests/make_demo/test_site.py")
MOST = 3
"""So many failures at once are no accident of the machine."""


def failures(cache: Path) -> list[str] | None:
    """Node ids of the tests that failed in the run that wrote `cache`; None when it does not tell."""
    try:
        found = json.loads((cache / "v" / "cache" / "lastfailed").read_text())
    except (OSError, ValueError):
        return None
    return sorted(found) if isinstance(found, dict) else None


def worth(found: list[str] | None) -> str | None:
    """Why there is no second look; None: there is one."""
    if not found:
        return "pytest ended without naming the tests that failed"
    pure = [name for name in found if not name.startswith(LIVE)]
    if pure:
        return f"{len(pure)} of the {len(found)} that failed need no live cluster"
    return f"{len(found)} live tests failed, more than {MOST}" if len(found) > MOST else None


def main(words: list[str]) -> int:
    found = failures(Path(words[0]))
    why = worth(found)
    if why is not None or found is None:
        print(f"make test: failed; {why}")
        return 1
    print(f"make test: {len(found)} failed beside other live tests; once more, alone")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--color=no", "-p", "no:randomly", *found], check=False
    )
    if done.returncode:
        return 1
    for name in found:
        print(f"make test: UNSTABLE, failed beside others (see above) and passed alone: {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
