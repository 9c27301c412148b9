"""Client commands, pyslurm and slurmrestd side by side on one live Slurm: a whole reading, a few jobs, a submission, a change.

    python bench/bench_adapters.py ROOT [--jobs 2000] [--rounds 15] [--json FILE]

ROOT is another system with Slurm 26.05, slurmrestd (apt-get install slurmrestd in it), and a pyslurm in /opt/pyslurm
(tools/slurm_root.sh, tools/pyslurm_build.sh). Times are of this process's clock, its own work included: for the commands and
pyslurm until the port's objects are there, for slurmrestd only until its JSON is decoded. Rounds go through the adapters in turn.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.rest import Rest

from colocd.clock import SystemClock
from colocd.config import SlurmConfig
from colocd.slurm.cli import CliSlurm
from colocd.slurm.port import JobUpdate, SlurmPort, Submission
from colocd.slurm.pyslurm_adapter import PyslurmSlurm
from colocd.testcluster import PrivateCluster

LOOP = "#!/bin/bash\nwhile :; do sleep 1; done\n"
JOB = Submission(name="b", script="#!/bin/sh\ntrue\n", partition="batch", held=True)


def fill(cluster: PrivateCluster, jobs: int) -> list[str]:
    """A full cluster of one-GPU jobs, and held jobs of their own (no arrays: each has a record)."""
    running = [
        cluster.run("sbatch", "--parsable", "--gres=gpu:1", "--output=/dev/null", text=LOOP).stdout.strip()
        for _ in range(32)
    ]
    script = cluster.work / "submit.sh"
    script.write_text(
        f"#!/bin/sh\nfor i in $(seq {jobs}); do /usr/bin/sbatch -Q --hold --gres=gpu:2 -o /dev/null --wrap=true; done\n"
    )
    script.chmod(0o755)
    assert cluster.spec.root is not None
    subprocess.run(["chroot", cluster.spec.root, str(script)], env=cluster.environment, check=True, capture_output=True)
    return running[:3]


def took(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with PrivateCluster(directory, root=options.root) as cluster:
            refs = fill(cluster, options.jobs)
            with Rest(cluster) as rest:
                result = measure(cluster, rest, refs, options.rounds)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(cluster: PrivateCluster, rest: Rest, refs: list[str], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Times by operation and adapter."""
    clock = SystemClock()
    config = SlurmConfig(conf=str(cluster.conf), bin_dir=cluster.bin_dir, timeout=60)
    cli = CliSlurm(config, clock)
    python = SlurmConfig(
        conf=config.conf, bin_dir=config.bin_dir, timeout=60, pyslurm_python=f"{cluster.bin_dir}/python-pyslurm"
    )
    pyslurm = PyslurmSlurm(python, clock, strict=True)
    times: dict[str, dict[str, list[float]]] = {}

    def note(operation: str, adapter: str, act: Callable[[], object]) -> None:
        times.setdefault(operation, {}).setdefault(adapter, []).append(took(act))

    ports: dict[str, SlurmPort] = {"commands": cli, "pyslurm": pyslurm}
    for name, port in ports.items():
        note("first reading", name, port.read)
    note("first reading", "slurmrestd", rest.read)
    for k in range(rounds):
        for name, port in ports.items():
            note("whole reading", name, port.read)
            note("three running jobs", name, lambda p=port: p.jobs(refs))  # type: ignore[misc]
            new: list[str] = []
            note("submission", name, lambda p=port, n=new: n.append(p.submit(JOB)))  # type: ignore[misc]
            change = JobUpdate(comment=f"round {k}")
            note("new comment", name, lambda p=port, n=new, c=change: p.update(n[0], c))  # type: ignore[misc]
            note("cancel", name, lambda p=port, n=new: p.cancel(n))  # type: ignore[misc]
        note("whole reading", "slurmrestd", rest.read)
        note("three running jobs", "slurmrestd", lambda: rest.jobs(refs))
        new = []
        note("submission", "slurmrestd", lambda n=new: n.append(rest.submit("b")))  # type: ignore[misc]
        note("new comment", "slurmrestd", lambda n=new, k=k: rest.comment(n[0], f"round {k}"))  # type: ignore[misc]
        note("cancel", "slurmrestd", lambda n=new: rest.http.delete(f"/job/{n[0]}").raise_for_status())  # type: ignore[misc]
    size = len(rest.http.get("/jobs/").content)
    print(
        f"{len(cli.read().jobs)} jobs; slurmrestd: {size / 1e6:.1f} MB of JSON for the jobs, {rest.memory()} MB resident at most"
    )
    pyslurm.close()
    return times


def show(times: dict[str, dict[str, list[float]]]) -> None:
    """Medians in milliseconds, with the ratio to the commands."""
    names = ("commands", "pyslurm", "slurmrestd")
    print(f"{'':20}" + "".join(f"{name:>22}" for name in names))
    for operation, each in times.items():
        base = statistics.median(each["commands"])
        cells = []
        for name in names:
            middle = statistics.median(each[name])
            cells.append(f"{middle * 1000:10.1f} ms {middle / base:6.2f}x")
        print(f"{operation:20}" + "".join(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main()
