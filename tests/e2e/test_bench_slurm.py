"""The quick mode of `make bench-slurm` runs on live clusters and prints its table."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
ROUNDS = 4


def test_quick_mode(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    words = [f"--rounds={ROUNDS}", "--gres=links", "--release=installed", f"--json={tmp_path / 'found.json'}"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "bench_slurm.py"), *words],
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| ")]
    head, cells = [c.strip() for c in rows[0]], [[c.strip() for c in row] for row in rows[1:]]
    assert [row[head.index("arm")] for row in cells] == ["slurm", "coloc"]
    slurm, coloc = json.loads((tmp_path / "found.json").read_text())["arms"]
    assert (coloc["reclaims"], coloc["no_result"], coloc["refused"]) == (ROUNDS, 0, 0), done.stderr
    assert (slurm["reclaims"], slurm["no_result"], slurm["refused"]) == (ROUNDS, 0, 0), done.stderr
    assert coloc["in_island"] == ROUNDS
    assert coloc["steps_lost"] == 0
    for arm in (slurm, coloc):
        assert [r["gpus"] for r in arm["each"]] == [r["gpus"] for r in slurm["each"]], "the same requests in both arms"
        for one in arm["each"]:
            assert one["victims"] >= 1, "the cluster was full, so somebody had to go"
            assert one["taken"] >= one["gpus"]
            assert one["seconds"] > 0
