"""Own overhead of a reclaim: coloc's handover against Slurm's own partition preemption, on the same kind of throw-away cluster.

    python bench/bench_reclaim.py [--rounds 20]

One node of 8 GPUs, full; a replica of 4 GPUs needs the 4 GPUs of one batch job. Time from the decision (coloc) or from sbatch
(Slurm) until the replica's script runs, which notes the time itself. Victims end or acknowledge at once: `no signal` ones cannot
be asked and end with TERM, `yielding` ones answer USR1 with `coloc checkpointed --yield`.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from tests.helpers.live import LiveSite

from colocd.clock import SystemClock
from colocd.core.view import JobState
from colocd.store.records import Handover
from colocd.testcluster import PrivateCluster

CLOCK = SystemClock()
NOTE = "date +%s.%N"
STATES = ("planned", "fenced", "signalled", "checkpointed", "requeued", "freed", "placed", "verified", "released")


def report(name: str, values: list[float]) -> None:
    ranked = sorted(values)
    p90 = ranked[min(len(ranked) - 1, round(0.9 * (len(ranked) - 1)))]
    print(
        f"{name:46} median {statistics.median(ranked):6.2f} s   p90 {p90:6.2f} s   max {ranked[-1]:6.2f} s   n={len(ranked)}"
    )


@contextmanager
def cluster(preempt: bool) -> Iterator[PrivateCluster]:
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with PrivateCluster(folder, nodes=1, preempt=preempt) as up:
            yield up
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait(done: object, what: str) -> None:
    until = CLOCK.monotonic() + 60
    while not done():  # type: ignore[operator]
        if CLOCK.monotonic() > until:
            sys.exit(f"{what} did not happen")
        CLOCK.sleep(0.02)


def slurm_alone(rounds: int) -> list[float]:
    """Slurm requeues a job of the lower tier by itself."""
    times = []
    with cluster(preempt=True) as up:
        for k in range(rounds):
            victims = [
                up.run(
                    *("sbatch", "--parsable", "-p", "batch", "--requeue", "--gpus-per-node=4", "-o", "/dev/null"),
                    text="#!/bin/sh\nexec sleep 3600\n",
                ).stdout.strip()
                for _ in range(2)
            ]
            jobs = ",".join(victims)
            wait(
                lambda j=jobs: up.run("squeue", "-h", "-t", "R", "-j", j).stdout.count("\n") == 2, "the victims' start"
            )
            CLOCK.sleep(1.2)  # jobs that start are left alone for a moment, in both arms
            note = up.work / f"started-{k}"
            began = CLOCK.now()
            up.run(
                *("sbatch", "-p", "online", "--gpus-per-node=4", "-o", "/dev/null"),
                text=f"#!/bin/sh\n{NOTE} >{note}\nexec sleep 3600\n",
            )
            wait(lambda n=note: n.exists() and n.read_text().strip(), "the preemptor's start")
            times.append(float(note.read_text()) - began)
            up.clean()
    return times


def with_coloc(rounds: int, signal: bool) -> tuple[list[float], list[Handover]]:
    """coloc reclaims for a second replica, again and again."""
    times, handovers = [], []
    with cluster(preempt=False) as up:
        for _ in range(rounds):
            with LiveSite(up, period=1.0) as site:
                started = site.base / "live" / "started"
                started.mkdir()
                site.write_service(first=f"{NOTE} >{started}/$SLURM_JOB_ID")
                site.load(5)
                site.begin()
                site.until(lambda s=site: s.ready() == 1, "the first replica")  # type: ignore[misc]
                if signal:
                    ref = site.submit("train", 4)
                else:
                    words = ("--parsable", "--gpus-per-node=4", "--wrap=exec sleep 3600", "-o", "/dev/null")
                    ref = site.run("coloc_cli.sbatch_main", *words).stdout.strip()
                site.until(lambda s=site, r=ref: s.job(r).state is JobState.RUNNING, "the victim's start")  # type: ignore[misc]
                if signal:
                    site.until((site.jobs / "train" / "journal").exists, "the victim's first step")
                site.load(15)
                site.until(lambda s=site: s.ready() == 2, "the second replica")  # type: ignore[misc]
                site.until(lambda s=site: not s.status()["handovers"], "the end of the handover")  # type: ignore[misc]
                with site.store() as store:
                    (done,) = [h for h in store.handovers() if h.victims]
                handovers.append(done)
                times.append(float((started / str(done.job)).read_text()) - float(done.data["decided_at"]))
            up.clean()
    return times, handovers


def where(handovers: list[Handover]) -> None:
    """Seconds between the states of the handovers."""
    spans: dict[tuple[str, str], list[float]] = {}
    for h in handovers:
        times = [("decided", float(h.data["decided_at"]))]
        times += [(s, float(h.data["t"][s])) for s in STATES if s in h.data["t"]]
        times.append(("submitted", float(h.data["submitted_at"])))
        for (a, start), (b, end) in pairwise(sorted(times, key=lambda item: item[1])):
            spans.setdefault((a, b), []).append(end - start)
    for (a, b), values in spans.items():
        report(f"    {a} to {b}", values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print(f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}")
    report("Slurm's partition preemption", slurm_alone(rounds))
    for signal in (False, True):
        times, handovers = with_coloc(rounds, signal)
        report(f"coloc, {'yielding' if signal else 'no signal'} victims", times)
        where(handovers)


if __name__ == "__main__":
    main()
