"""Reading a live slurmctld with 1,000 nodes and tens of thousands of waiting jobs; prints a table.

Four nodes run (slurmd and all), the others are only configured; each array has 1,000 elements, and every tenth array is marked as
coloc's. So slurmctld, its commands and the parsing are real; what is missing of a real site is many running jobs, for
which `bench_scale.py` has generated answers.
"""

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from colocd.clock import SystemClock
from colocd.config import SlurmConfig
from colocd.slurm import open_slurm
from colocd.testcluster import PrivateCluster

MARK = "[coloc v=1 signal=USR1 to=batch interval=600 cost=30 grace=60]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--pending", type=int, default=50_000)
    parser.add_argument("--running", type=int, default=32)
    parser.add_argument("--readings", type=int, default=5)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="coloc-scale-"))
    idle = (
        f"NodeName=x[1-{args.nodes - 4}] NodeHostname=localhost NodeAddr=127.0.0.1 Port=1 SocketsPerBoard=2 CoresPerSocket=8"
        " RealMemory=1000 Gres=gpu:h100:8 State=DOWN"
    )
    settings = (idle, f"PartitionName=big Nodes=x[1-{args.nodes - 4}] PriorityTier=1", "MaxJobCount=200000")
    try:
        with PrivateCluster(folder, settings=settings) as cluster:
            sbatch = ["sbatch", "--parsable", "--gres=gpu:1", "--output=/dev/null", "--wrap=sleep 3600"]
            for _ in range(args.running):
                cluster.run(*sbatch)
            for nth in range(args.pending // 1000):
                mark = [f"--comment={MARK}"] if nth % 10 == 0 else []
                cluster.run(*sbatch, "--hold", "--array=1-1000", *mark)
            clock = SystemClock()
            slurm = open_slurm(SlurmConfig(conf=str(cluster.conf), timeout=120.0, calls_per_minute=100_000), clock)
            times, seen = [], None
            for _ in range(args.readings):
                begun = time.perf_counter()
                seen = slurm.read()
                times.append(time.perf_counter() - begun)
                clock.sleep(1.0)
            assert seen is not None
            usage = slurm.usage()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(f"{len(seen.nodes)} nodes, {len(seen.jobs)} jobs, Slurm {seen.version}, peak {peak} MB")
            print(
                f"reading: first {times[0]:.2f} s, later {statistics.median(times[1:]):.2f} s (median of {len(times) - 1})"
            )
            for command, (calls, seconds) in usage.items():
                print(f"  {command}: {calls / args.readings:.1f} calls and {seconds / args.readings:.2f} s a reading")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
