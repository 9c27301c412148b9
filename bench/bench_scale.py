"""Reading, view and plan of a large cluster, over the client commands with generated answers; prints a table.

Stand-ins for squeue and scontrol print what Slurm would for NODES nodes of 8 GPUs, RUNNING and PENDING jobs; their own time
(the time Slurm would take instead) is measured beside. The first cycle is a whole reading, the later ones find a few
jobs changed. `--pending-ours` says how many of the pending jobs are coloc's to start.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from coloc_topology.shape import quads
from colocd.clock import SystemClock
from colocd.config import SlurmConfig
from colocd.core.index import PlannerIndex
from colocd.core.plan import plan
from colocd.core.policy import Policy
from colocd.core.service import Capacity, Load, ServiceSpec
from colocd.core.view import Reading, ServiceView, View
from colocd.slurm.cli import CliSlurm
from colocd.slurm.rows import FIELDS

SQUEUE = """#!/bin/sh
for word; do case $word in *:0*) form=$word;; esac; done
sep=${form#*:0}; sep=${sep%%,*}
exec sed "s/%$/>${sep#?}/; s/@/$sep/g" "$(dirname "$0")/rows"
"""
SCONTROL = """#!/bin/sh
cd "$(dirname "$0")"
for word; do last=$word; done
case "$*" in
*--version*) echo "slurm-wlm 22.05.8";;
*partition*) exec cat partitions;;
*reservation*) exec cat reservations;;
*node*) exec cat nodes;;
*"show job "*) exec grep "^JobId=$last " jobs;;
*job*) exec cat jobs;;
esac
"""
MARK = "[coloc v=1 signal=USR1 to=batch interval=600 cost=30 grace=60]"


def _row(ref: int, state: str, node: str, gpus: int, comment: str, user: int) -> str:
    known = {
        "JobID": str(ref),
        "JobArrayID": str(ref),
        "State": state,
        "Reason": "None" if node else "Priority",
        "UserName": f"user{user}",
        "UserID": str(20_000 + user),
        "Partition": "batch",
        "PriorityLong": "0" if comment and not node else str(4_000_000 + ref),
        "RestartCnt": "0",
        "SubmitTime": "2026-11-20T08:00:00",
        "StartTime": "2026-11-20T09:00:00" if node else "N/A",
        "EndTime": "2026-11-21T09:00:00" if node else "N/A",
        "TimeLimit": "1-00:00:00",
        "NumNodes": "1",
        "NumCPUs": "4",
        "NumTasks": "1",
        "sockets": "*",
        "NodeList": node,
        "tres-per-node": f"gres:gpu:{gpus}",
        "Comment": comment or "(null)",
        "Name": f"train-{ref}",
        "ReqNodes": "",
    }
    return "@".join(known.get(field, "N/A") for field in FIELDS) + "%\n"


def write(folder: Path, nodes: int, running: int, pending: int, ours: int, turn: int) -> None:
    """Write the stand-ins' answers; `turn` shifts which jobs run, so that a few differ each time."""
    rows, records = [], []
    used: dict[int, int] = dict.fromkeys(range(nodes), 0)
    count = 0
    for ref in range(1 + turn * 20, 1 + turn * 20 + running):
        slot = (ref - 1) % (nodes * 8)
        node, gpu = divmod(slot, 8)
        if used[node] >> gpu & 1:
            continue  # more jobs than GPUs: the rest takes none
        used[node] |= 1 << gpu
        count += 1
        rows.append(_row(ref, "RUNNING", f"gpu{node + 1}", 1, MARK if ref % 2 else "", ref % 300))
        records.append(
            f"JobId={ref} JobName=train-{ref} UserId=u(1) JobState=RUNNING {'x' * 900} Nodes=gpu{node + 1} CPU_IDs=0-3"
            f" Mem=0 GRES=gpu:h100:1(IDX:{gpu}) {'x' * 300}\n"
        )
    for ref in range(running - count):  # CPU jobs
        name = 5_000_000 + ref
        rows.append(_row(name, "RUNNING", f"gpu{ref % nodes + 1}", 0, "", ref % 300).replace("gres:gpu:0", "N/A"))
        records.append(f"JobId={name} JobName=cpu {'x' * 900} Nodes=gpu{ref % nodes + 1} CPU_IDs=9 Mem=0 GRES= \n")
    for nth in range(pending):
        ref = 1_000_000 + nth
        rows.append(_row(ref, "PENDING", "", 1, MARK if nth < ours else "", nth % 300))
        records.append(f"JobId={ref} JobName=train-{ref} {'x' * 1000}\n")
    lines = [
        f"NodeName=gpu{node + 1} Arch=x86_64 CPUAlloc=32 CPUTot=64 Gres=gpu:h100:8 GresUsed=gpu:h100:{mask.bit_count()}"
        f"(IDX:{_idx(mask)}) NodeAddr=10.0.0.1 State=MIXED Partitions=batch,online {'x' * 400}\n"
        for node, mask in used.items()
    ]
    for name, text in (("rows", rows), ("jobs", records), ("nodes", lines)):
        (folder / name).write_text("".join(text))
    span = f"gpu[1-{nodes}]"
    (folder / "partitions").write_text(
        f"PartitionName=batch PriorityTier=1 State=UP Nodes={span} PreemptMode=OFF\n"
        f"PartitionName=online PriorityTier=10 State=UP Nodes={span} PreemptMode=OFF\n"
    )
    (folder / "reservations").write_text("No reservations in the system\n")


def _idx(mask: int) -> str:
    return ",".join(str(gpu) for gpu in range(8) if mask >> gpu & 1) or "N/A"


def _timed(call: Callable[[], object]) -> tuple[float, object]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--running", type=int, default=10_000)
    parser.add_argument("--pending", type=int, default=50_000)
    parser.add_argument("--pending-ours", type=int, default=5_000)
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for command, text in (("squeue", SQUEUE), ("scontrol", SCONTROL)):
            (folder / command).write_text(text)
            (folder / command).chmod(0o755)
        slurm = CliSlurm(SlurmConfig(bin_dir=name, timeout=60.0), SystemClock())
        index = PlannerIndex()
        result: dict[str, list[float]] = {"stand-ins": [], "read": [], "view": [], "plan": []}
        for turn in range(args.cycles):
            # in a process of its own: its memory is not coloc's
            child = multiprocessing.Process(
                target=write, args=(folder, args.nodes, args.running, args.pending, args.pending_ours, turn)
            )
            child.start()
            child.join()
            asked = [["squeue", "-O", "JobID:0<x,Name:0>x"], ["scontrol", "show", "node"]]
            if turn == 0:
                asked.append(["scontrol", "show", "job"])
            own = sum(
                _timed(lambda w=words: subprocess.run([folder / w[0], *w[1:]], check=True, stdout=subprocess.DEVNULL))[
                    0
                ]
                for words in asked
            )
            read, cluster = _timed(slurm.read)
            view_s, view = _timed(lambda c=cluster: _view(c))
            plan_s, done = _timed(lambda v=view: plan(v, index))
            for key, value in zip(result, (own, read, view_s, plan_s), strict=True):
                result[key].append(value)
        unread = sum(job.gpus is None for job in cluster.jobs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    report = {
        "nodes": args.nodes, "running": args.running, "pending": args.pending, "peak_mb": peak, "unread": unread,
        **{key: {"first": v[0], "later_median": statistics.median(v[1:])} for key, v in result.items()},
    }  # fmt: skip
    if args.json:
        print(json.dumps(report))
        return 0
    print(f"{args.nodes} nodes, {args.running} running, {args.pending} pending jobs: peak {peak} MB, {unread} unread")
    for key, values in result.items():
        print(f"{key:>10}: first {values[0]:.2f} s, later {statistics.median(values[1:]):.2f} s")
    print(f"plan: {done.summary}")
    return 0


def _view(cluster: object) -> View:
    spec = ServiceSpec(
        name="chat", user="u", partition="online", script="#!/bin/sh\n", gpus_per_replica=4,
        capacity=Capacity(per_replica=10.0), load=Load(url="http://127.0.0.1/"), max_replicas=8,
    )  # fmt: skip
    nodes = tuple(_shaped(node) for node in cluster.nodes)
    at = 1_795_000_000.0
    return View(
        at=at,
        mode="act",
        policy=Policy(),
        shapes={"q": quads()},
        nodes=tuple(sorted(nodes, key=lambda n: n.name)),
        jobs=tuple(sorted(cluster.jobs, key=lambda j: j.order)),
        services=(ServiceView(spec=spec, load=Reading(30.0, at)),),
    )


def _shaped(node: object) -> object:
    return msgspec.structs.replace(node, shape="q")


if __name__ == "__main__":
    sys.exit(main())
