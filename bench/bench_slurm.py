"""coloc against Slurm's own preemption on throw-away clusters of 4 nodes x 8 GPUs in two quads: make bench-slurm

    python bench/bench_slurm.py [--reclaims 100] [--gres cores,links] [--release installed,root] [--json FILE]
    python bench/bench_slurm.py --seconds 1200 --arm coloc --gres cores --append --json FILE     a piece, as often as wanted

Both arms get the same seeded sequence: clusters full of batch jobs of 1, 2 and 4 GPUs on the same nodes, and preemptors of 2 or 4
GPUs in the partition of the higher tier. Arm `slurm`: preempt/partition_prio with REQUEUE. Arm `coloc`: a colocd process; the
preemptor asks for a place in its comment. The arms take turns, request by request. After each request the preemptor is cancelled
and the victims are started again; every few requests both clusters get new batch jobs. In pieces, each arm goes through the same
sequence, too; its new batch jobs are then put in again at the beginning of a piece.
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
MACHINE = f"{os.cpu_count()} CPUs, {platform.machine()}, Python {platform.python_version()}"


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


Rows = dict[tuple[Any, ...], dict[str, Any]]
"""Results by release, gres.conf, times and arm."""


def measure(settings: Settings, args: argparse.Namespace, end: float, known: Rows) -> None:
    """The arms of one configuration, taking turns; each goes on in the sequence where `known` ends for it."""
    gres = "Links" if settings.links else "Cores"
    spoilt: set[str] = set()
    last: list[tuple[str, int]] = []
    with ExitStack() as stack:
        kinds = [kind for kind in (SlurmArm, ColocArm) if kind.name in args.arm]
        arms: list[SlurmArm] = [stack.enter_context(kind(settings)) for kind in kinds]
        release = "{}.{:02}".format(*arms[0].cluster.spec.release)
        common = {"release": release, "gres": gres, "save_s": settings.save, "kill_wait_s": settings.kill_wait}
        rows = {arm.name: known.setdefault(_key({**common, "arm": arm.name}), _blank(common, arm.name)) for arm in arms}
        done = {name: len(row["each"]) + row["no_result"] for name, row in rows.items()}
        spoilt |= set(rows)  # nobody has batch jobs yet
        for number, (jobs, gpus) in enumerate(sequence(args.reclaims, args.fill, args.seed)):
            last = jobs or last
            if CLOCK.monotonic() > end:
                print(f"{release} {gres}: time is over after {number} of {args.reclaims} requests", file=sys.stderr)
                break
            for arm in arms if number % 2 else arms[::-1]:
                if number < done[arm.name]:
                    continue
                row = rows[arm.name]
                try:
                    if jobs is not None or arm.name in spoilt:
                        spoilt.discard(arm.name)
                        arm.fill(last)
                    found = arm.request(gpus)
                except ColocError as error:  # the request is not counted, but told
                    print(f"{release} {gres} {arm.name:6}{number:4} no result: {error}", file=sys.stderr, flush=True)
                    spoilt.add(arm.name)
                    row["no_result"] += 1
                    write(args, known)
                    continue
                row["each"].append(msgspec.to_builtins(found))
                write(args, known)
                if args.verbose:
                    print(f"{release} {gres} {arm.name:6}{number:4}", found, file=sys.stderr, flush=True)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("release", "gres", "save_s", "kill_wait_s", "arm"))


def _blank(common: dict[str, Any], arm: str) -> dict[str, Any]:
    return {**common, "arm": arm, "no_result": 0, "each": []}


def earlier(args: argparse.Namespace) -> Rows:
    """What an earlier piece has written, to go on from; raises `ColocError` if it had another seed."""
    file = Path(args.json) if args.json and args.json != "-" else None
    if not args.append or file is None or not file.exists():
        return {}
    found = json.loads(file.read_text())
    if found["seed"] != args.seed or found.get("fill", args.fill) != args.fill:
        told = f"--seed {found['seed']} --fill {found.get('fill', args.fill)}"
        raise ColocError(f"{file} was measured with {told}: use these, or another file")
    return {_key(row): row for row in found["arms"]}


def write(args: argparse.Namespace, rows: Rows) -> None:
    """Write all there is to --json FILE: after each request, so that a piece that is killed is not lost."""
    if not args.json or args.json == "-":
        return
    file = Path(args.json)
    text = json.dumps(document(args, rows), indent=1) + "\n"
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)


def document(args: argparse.Namespace, rows: Rows) -> dict[str, Any]:
    """Everything measured; adds to each row its summary."""
    for row in rows.values():
        row |= summary(msgspec.convert(row["each"], list[Reclaim]))
    return {"machine": MACHINE, "seed": args.seed, "fill": args.fill, "arms": list(rows.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--reclaims", "--rounds", type=int, default=100, help="requests an arm, those of earlier pieces included"
    )
    parser.add_argument("--arm", default="slurm,coloc", help="which arms run in this piece")
    parser.add_argument(
        "--append", action="store_true", help="go on where the pieces in --json FILE end, and add to it"
    )
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
    roots: list[str | None] = [None] if "installed" in args.release else []
    roots += [root] if "root" in args.release and root else []
    rows: Rows = {}
    try:
        rows = earlier(args)
        for place in roots:
            for gres in args.gres.split(","):
                settings = Settings(
                    links=gres == "links", root=place, nodes=NODES, save=args.save, kill_wait=args.kill_wait
                )
                measure(settings, args, CLOCK.monotonic() + args.seconds, rows)
    except ColocError as error:
        print(f"bench_slurm: {error}", file=sys.stderr)
        sys.exit(1)
    found = document(args, rows)
    write(args, rows)
    if args.json == "-":
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    print(f"{MACHINE}; load {os.getloadavg()[0]:.1f}")
    print(table(found["arms"]))


if __name__ == "__main__":
    main()
