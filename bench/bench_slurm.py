"""coloc against Slurm's own preemption on throw-away clusters of 4 nodes x 8 GPUs in two quads: make bench-slurm

    python bench/bench_slurm.py [--rounds 100] [--gres cores,links] [--release installed,root] [--json FILE]

Both arms get the same seeded sequence: clusters full of batch jobs of 1, 2 and 4 GPUs on the same nodes, and preemptors of 2 or 4
GPUs in the partition of the higher tier. Arm `slurm`: preempt/partition_prio with REQUEUE. Arm `coloc`: a colocd process; the
preemptor asks for a place in its comment. The arms take turns, request by request. After each request the preemptor is cancelled
and the victims are started again; every few requests both clusters get new batch jobs.
`root`: the folder with another system that COLOC_TEST_SLURM_ROOT names (tools/slurm_root.sh makes one); needs root.
"""

import argparse
import json
import os
import platform
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import msgspec
from bench.slurm_arms import CLOCK, ColocArm, Reclaim, Settings, SlurmArm
from bench.slurm_table import summary, table

from colocd.errors import ColocError

NODES, GPUS = 4, 8


def layout(rng: random.Random) -> list[tuple[str, int]]:
    """Random jobs of 1, 2 and 4 GPUs that fill every node, in random order."""
    jobs = []
    for node in range(1, NODES + 1):
        left = GPUS
        while left:
            size = rng.choice([size for size in (1, 2, 4) if size <= left])
            jobs.append((f"n{node}", size))
            left -= size
    rng.shuffle(jobs)
    return jobs


def sequence(rounds: int, each: int, seed: int) -> Iterator[tuple[list[tuple[str, int]] | None, int]]:
    """Per request: new batch jobs (None: those there stay), and the GPUs asked for."""
    rng = random.Random(seed)
    for k in range(rounds):
        yield (layout(rng) if k % each == 0 else None), rng.choice((2, 4))


def measure(settings: Settings, args: argparse.Namespace, end: float) -> list[dict[str, Any]]:
    """Both arms of one configuration, taking turns."""
    done: dict[str, list[Reclaim]] = {"slurm": [], "coloc": []}
    failed = dict.fromkeys(done, 0)
    spoilt: set[str] = set()
    last: list[tuple[str, int]] = []
    with ExitStack() as stack:
        arms: list[SlurmArm] = [stack.enter_context(kind(settings)) for kind in (SlurmArm, ColocArm)]
        release = "{}.{:02}".format(*arms[0].cluster.spec.release)
        gres = "Links" if settings.links else "Cores"
        for number, (jobs, gpus) in enumerate(sequence(args.rounds, args.fill, args.seed)):
            if CLOCK.monotonic() > end:
                print(f"{release} {gres}: time is over after {number} of {args.rounds} requests", file=sys.stderr)
                break
            last = jobs or last
            for arm in arms if number % 2 else arms[::-1]:
                try:
                    if jobs is not None or arm.name in spoilt:
                        spoilt.discard(arm.name)
                        arm.fill(last)
                    found = arm.request(gpus)
                except ColocError as error:  # the request is not counted, but told
                    print(f"{release} {gres} {arm.name:6}{number:4} no result: {error}", file=sys.stderr, flush=True)
                    spoilt.add(arm.name)
                    failed[arm.name] += 1
                    continue
                done[arm.name].append(found)
                if args.verbose:
                    print(f"{release} {gres} {arm.name:6}{number:4}", found, file=sys.stderr, flush=True)
    common = {"release": release, "gres": gres, "save_s": settings.save, "kill_wait_s": settings.kill_wait}
    return [
        {**common, "arm": name, **summary(found), "no_result": failed[name], "each": msgspec.to_builtins(found)}
        for name, found in done.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="requests an arm")
    parser.add_argument("--fill", type=int, default=4, help="new batch jobs every so many requests")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gres", default="cores,links", help="what gres.conf says of the islands")
    parser.add_argument("--release", default="installed,root", help="which Slurm")
    parser.add_argument("--save", type=float, default=0.5, help="seconds a checkpoint of a batch job takes")
    parser.add_argument("--kill-wait", type=int, default=5, help="Slurm's KillWait in both arms, seconds")
    parser.add_argument(
        "--seconds", type=float, default=1e9, help="begin no request after this time, per configuration"
    )
    parser.add_argument("--json", metavar="FILE", help="write everything to FILE (-: stdout, instead of the table)")
    parser.add_argument("--verbose", action="store_true", help="every request on stderr")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the clusters go down
    root = os.environ.get("COLOC_TEST_SLURM_ROOT") or None
    roots = [None] if "installed" in args.release else []
    roots += [root] if "root" in args.release and root else []
    rows: list[dict[str, Any]] = []
    try:
        for place in roots:
            for gres in args.gres.split(","):
                settings = Settings(
                    links=gres == "links", root=place, nodes=NODES, save=args.save, kill_wait=args.kill_wait
                )
                rows += measure(settings, args, CLOCK.monotonic() + args.seconds)
    except ColocError as error:
        print(f"bench_slurm: {error}", file=sys.stderr)
        sys.exit(1)
    machine = f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"
    if args.json:
        text = json.dumps({"machine": machine, "seed": args.seed, "arms": rows}, indent=1) + "\n"
        if args.json == "-":
            sys.stdout.write(text)
            return
        Path(args.json).write_text(text)
    print(f"{machine}; load {os.getloadavg()[0]:.1f}")
    print(table(rows))


if __name__ == "__main__":
    main()
