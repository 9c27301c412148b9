"""A cycle's time, colocd's memory and its commands to Slurm, on the demo's cluster: 32 GPUs, 30 batch jobs, one service.

    python bench/bench_cycle.py [--cycles 200]

Cycles come every second. Slurm's commands are counted by stand-ins in front of them (a shell each: a few milliseconds a command).
`idle` is a site where nothing changes (30 jobs, 20 of them waiting); `handovers` are rounds of three reclaims at once.
"""

import argparse
import os
import platform
import re
import shutil
import statistics
import tempfile
from collections import Counter
from pathlib import Path

from tests.helpers.live import LiveSite

from colocd.clock import SystemClock
from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

CLOCK = SystemClock()
COMMANDS = ("squeue", "scontrol", "sbatch", "scancel")


def counters(site: LiveSite) -> Path:
    """Put stand-ins for Slurm's commands in colocd's way; the file they write a line into."""
    folder, note = site.base / "bin", site.base / "commands"
    folder.mkdir()
    note.touch()
    for name in COMMANDS:
        real = shutil.which(name)
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{note}\nexec {real} "$@"\n')
        (folder / name).chmod(0o755)
    site.settings["slurm"]["bin_dir"] = str(folder)
    site.write_config("act")
    return note


def kinds(lines: list[str]) -> str:
    found: Counter[str] = Counter()
    for line in lines:
        words = line.split()
        shown = [w for w in words[1:] if re.fullmatch(r"[a-z]+", w)][:2]
        found[" ".join([words[0], *shown[: 1 if words[0] != "scontrol" else 2]])] += 1
    return ", ".join(f"{name} {count}" for name, count in found.most_common())


def memory(site: LiveSite) -> float:
    """MB resident."""
    assert site.colocd is not None
    text = Path(f"/proc/{site.colocd.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


def cpu(site: LiveSite) -> float:
    """CPU seconds of colocd and of the commands it ran."""
    assert site.colocd is not None
    words = Path(f"/proc/{site.colocd.process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")


def watch(site: LiveSite, cycles: int) -> list[float]:
    """Seconds of the next cycles."""
    seen: dict[float, float] = {}
    while len(seen) < cycles:
        last = site.status()["cycle"]
        seen[last["at"]] = last["seconds"]
        CLOCK.sleep(0.4)
    return list(seen.values())


def report(name: str, values: list[float]) -> None:
    ranked = sorted(1000 * v for v in values)
    p90 = ranked[round(0.9 * (len(ranked) - 1))]
    print(
        f"{name:24} median {statistics.median(ranked):6.0f} ms   p90 {p90:6.0f} ms   max {ranked[-1]:6.0f} ms   n={len(ranked)}"
    )


def measure(site: LiveSite, cycles: int) -> None:
    note = counters(site)
    site.load(5)
    site.begin()
    site.until(lambda: site.ready() == 1, "the first replica")
    print(f"memory after the start   {memory(site):.1f} MB")
    sizes = (4, 2, 2, 1, 4, 1, 2, 4, 1, 2)
    refs = [site.submit(f"train-{k}", sizes[k % len(sizes)]) for k in range(30)]
    site.until(lambda: sum(a.count for a in site.running()) >= 31, "a full cluster")
    watch(site, 5)
    note.write_text("")
    began, used = CLOCK.monotonic(), cpu(site)
    report("idle: cycle", watch(site, cycles))
    minutes = (CLOCK.monotonic() - began) / 60
    lines = note.read_text().splitlines()
    print(f"idle: commands a minute  {len(lines) / minutes:.0f} at one cycle a second ({kinds(lines)})")
    print(f"idle: CPU                {100 * (cpu(site) - used) / 60 / minutes:.0f} % of one core, commands included")
    print(f"memory after {cycles} cycles  {memory(site):.1f} MB")
    handovers(site, note, refs)
    print(f"memory at the end        {memory(site):.1f} MB")


def handovers(site: LiveSite, note: Path, refs: list[str]) -> None:
    done, seconds, lines = 0, 0.0, 0
    texts: list[str] = []
    for _ in range(3):
        note.write_text("")
        began = CLOCK.monotonic()
        site.load(35)
        site.until(lambda: site.ready() == 4 and not site.status()["handovers"], "three reclaims")
        found = note.read_text().splitlines()
        seconds += CLOCK.monotonic() - began
        lines += len(found)
        texts += found
        site.load(5)
        site.until(lambda: site.ready() == 1 and len(site.replicas()) == 1, "the drain")
        site.until(lambda: sum(a.count for a in site.running()) >= 31, "a full cluster")
    with site.store() as store:
        done = sum(1 for h in store.handovers() if h.victims and h.state == "released")
    states = Counter(str(j.state) for j in site.slurm.jobs(refs).values())
    assert states[JobState.FAILED] == 0
    each, took = done / 3, seconds / 3
    print(
        f"handovers: commands      {lines / 3:.0f} a round of {each:.1f} reclaims that takes {took:.1f} s ({kinds(texts)})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    cycles = parser.parse_args().cycles
    print(f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}")
    folder = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with PrivateCluster(folder) as up, LiveSite(up, period=1.0) as site:
            measure(site, cycles)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
