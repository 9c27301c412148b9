"""What a submission with coloc-sbatch costs beside plain sbatch, on a throw-away Slurm: medians of some runs.

python bench/bench_sbatch.py [RUNS]
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from colocd.testcluster import PrivateCluster

OURS = [sys.executable, "-m", "coloc_cli.sbatch_main"]
CALLS = {
    "sbatch --hold": ["sbatch", "--hold", "--wrap=true"],
    "sbatch --test-only": ["sbatch", "--test-only", "--wrap=true"],
    "sinfo of one partition": ["sinfo", "-h", "-e", "-p", "batch", "-o", "%D|%c|%m|%G"],
    "coloc-sbatch --coloc-dry-run": [*OURS, "--coloc-dry-run", "--wrap=true"],
    "coloc-sbatch": [*OURS, "--gpus-per-node=2", "--wrap=true"],
    "coloc-sbatch, larger than a node": [*OURS, "--gpus-per-node=9", "--wrap=true"],
}


def main() -> None:
    """Print one line a call; the calls take turns."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with PrivateCluster(folder) as cluster:
            env = {**cluster.environment, "PYTHONPATH": ":".join(sys.path), "COLOC_CONFIG": "/nowhere"}
            for _ in range(runs):
                for name, argv in CALLS.items():
                    start = time.perf_counter()
                    subprocess.run(argv, env=env, cwd=cluster.work, capture_output=True, check=False)
                    times[name].append(1000 * (time.perf_counter() - start))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, told in times.items():
        print(f"{name:34} median {statistics.median(told):6.1f} ms   ({runs} runs)")


if __name__ == "__main__":
    main()
