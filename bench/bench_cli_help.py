"""How long `coloc --help` and `coloc sbatch` take to start: best and median of some runs in fresh interpreters.

python bench/bench_cli_help.py [RUNS]
"""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "coloc --help": ["-m", "coloc_cli.main", "--help"],
    "coloc queue --help": ["-m", "coloc_cli.main", "queue", "--help"],
    "coloc-sbatch --coloc-dry-run": ["-m", "coloc_cli.sbatch_main", "--coloc-dry-run", "--wrap=true"],
    "coloc sbatch --coloc-dry-run": ["-m", "coloc_cli.main", "sbatch", "--coloc-dry-run", "--wrap=true"],
    "coloc checkpointed --help": ["-m", "coloc_cli.main", "checkpointed", "--help"],
}


def measure(argv: list[str], runs: int) -> list[float]:
    """Wall times in milliseconds."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([sys.executable, *argv], stdout=subprocess.DEVNULL, check=True)
        times.append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Print one line a command."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    for name, argv in COMMANDS.items():
        times = measure(argv, runs)
        print(f"{name:32} best {min(times):6.1f} ms   median {statistics.median(times):6.1f} ms   ({runs} runs)")


if __name__ == "__main__":
    main()
