"""What the agent costs a node, and what 1,250 agents cost colocd: python bench/bench_agent.py [--seconds 20] [--nodes 1250]

Part 1 runs coloc-agent as it is, at a sample every 5 s, on the tests' stand-in for NVML with 8 busy GPUs and 16 processes:
no GPU, so what the real library takes inside its calls is not in the numbers. Part 2 sends batches of two samples of 8 GPUs
each from a second process, every node every 10 s, in real munge credentials, to colocd's listener, while the main thread makes
a plan for as many nodes and looks at the readings, over and over; then the same without agents.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from importlib.metadata import files
from pathlib import Path
from statistics import median, quantiles
from time import process_time

sys.path.insert(0, str(Path(__file__).parents[1]))
import random

import msgspec
from bench.clusters import full, later
from tests.agent.conftest import Hosts
from tests.nvml.live import H100

from colocd.clock import SystemClock
from colocd.config import Config, SlurmConfig
from colocd.config_telemetry import AgentsConfig
from colocd.core.index import PlannerIndex
from colocd.core.plan import plan
from colocd.gpus.agents import Agents
from colocd.gpus.board import GpuBoard
from colocd.munge import Munge
from colocd.store import open_store
from colocd.store.schema import upgrade

ROOT = Path(__file__).parents[1]
CLOCK = SystemClock()


def agent(folder: Path, hosts: Hosts, seconds: float) -> dict[str, object]:
    """CPU and memory of one agent."""
    header = next(str(Path(str(f.locate())).parent) for f in files("nvidia-nvml-dev") or () if f.name == "nvml.h")
    library = folder / "libnvidia-ml.so.1"
    argv = [
        "gcc",
        "-shared",
        "-fPIC",
        "-O1",
        "-w",
        "-I",
        header,
        "-o",
        str(library),
        str(ROOT / "tests/nvml/standin.c"),
    ]
    subprocess.run(argv, check=True)
    busy = "".join(f"proc {gpu} {os.getpid()} 1000000000\n" * 2 for gpu in range(8))
    (folder / "server.txt").write_text(H100 + busy)
    source = Agents(AgentsConfig(listen="127.0.0.1:6829", user=str(os.getuid()), munge_socket=hosts.socket()), CLOCK)
    source.start()
    source.expect({"n1": "127.0.0.1"})
    (folder / "agent.toml").write_text(
        f'server = "127.0.0.1:6829"\nnode = "n1"\nmunge_socket = "{hosts.socket()}"\nfaults = "{folder}/xids"\n'
    )
    env = {**os.environ, "LD_LIBRARY_PATH": str(folder), "COLOC_NVML_STANDIN": str(folder / "server.txt")}
    process = subprocess.Popen([sys.executable, "-m", "colocd.agent", "--config", str(folder / "agent.toml")], env=env)
    try:
        CLOCK.sleep(12)  # started, and sent once
        before, begun = _cpu(process.pid), CLOCK.monotonic()
        CLOCK.sleep(seconds)
        used, passed = _cpu(process.pid) - before, CLOCK.monotonic() - begun
        status = Path(f"/proc/{process.pid}/status").read_text()
    finally:
        process.terminate()
        process.wait(20)
        source.stop()
    memory = {
        line.split(":")[0]: int(line.split()[1]) for line in status.splitlines() if line[:5] in ("VmRSS", "VmHWM")
    }
    return {
        "cpu_percent_of_a_core": round(100 * used / passed, 3),
        "rss_mib": round(memory["VmRSS"] / 1024, 1),
        "peak_mib": round(memory["VmHWM"] / 1024, 1),
        "samples": source.intake.count.samples,
        "seconds": round(passed),
    }


def _cpu(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def cost_of_a_decode(hosts: Hosts) -> dict[str, float]:
    """Milliseconds for one credential: libmunge against a process."""
    munge = Munge(hosts.socket(), only_uid=os.getuid())
    made = [munge.encode(os.urandom(500)) for _ in range(600)]
    begun, cpu = CLOCK.monotonic(), process_time()
    for credential in made[:500]:
        munge.decode(credential)
    ours = (CLOCK.monotonic() - begun) / 500, (process_time() - cpu) / 500
    begun, old = CLOCK.monotonic(), os.times()
    for credential in made[500:]:
        subprocess.run(["unmunge", "-S", hosts.socket()], input=credential, capture_output=True, check=True)
    new = os.times()
    own = new.user + new.system + new.children_user + new.children_system
    own -= old.user + old.system + old.children_user + old.children_system
    return {
        "libmunge_wall_ms": round(ours[0] * 1e3, 3), "libmunge_cpu_ms": round(ours[1] * 1e3, 3),
        "unmunge_wall_ms": round((CLOCK.monotonic() - begun) * 10, 3), "unmunge_cpu_ms": round(own * 10, 3),
    }  # fmt: skip


def intake(folder: Path, hosts: Hosts, nodes: int, seconds: float) -> dict[str, object]:
    """colocd's side with and without the agents of all nodes."""
    view = full(nodes, 1)
    nodes_seen = tuple(msgspec.structs.replace(n, address="127.0.0.1") for n in view.nodes)
    view = msgspec.structs.replace(view, nodes=nodes_seen)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/nvidia[0-7]\n")
    config = Config(slurm=SlurmConfig(conf=str(folder / "slurm.conf")))
    url = f"sqlite:///{folder}/b.db"
    upgrade(url)
    store = open_store(url)
    source = Agents(AgentsConfig(listen="127.0.0.1:6829", user=str(os.getuid()), munge_socket=hosts.socket()), CLOCK)
    source.start()
    board = GpuBoard((source,), store, CLOCK)
    found: dict[str, object] = {}
    for name in ("without", "with"):
        sender = None
        if name == "with":
            board.look(config, view.nodes, view.jobs)
            words = [sys.executable, __file__, "--send", str(folder / "names.json"), "--seconds", str(seconds + 12)]
            (folder / "names.json").write_text(
                json.dumps({"names": [n.name for n in view.nodes], "sock": hosts.socket()})
            )
            sender = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            CLOCK.sleep(11)
        before = source.intake.count
        idle_cpu = process_time()
        idle_from = CLOCK.monotonic()
        CLOCK.sleep(seconds / 2)
        idle = 100 * (process_time() - idle_cpu) / (CLOCK.monotonic() - idle_from)
        index, plans, looks, now = PlannerIndex(), [], [], view
        rng = random.Random(2)
        end = CLOCK.monotonic() + seconds / 2
        while CLOCK.monotonic() < end:
            now = later(now, 10.0, 0.01, rng)
            begun = CLOCK.monotonic()
            plan(now, index)
            plans.append((CLOCK.monotonic() - begun) * 1e3)
            begun = CLOCK.monotonic()
            looked = board.look(config, view.nodes, view.jobs)
            looks.append((CLOCK.monotonic() - begun) * 1e3)
            CLOCK.sleep(0.05)
        after = source.intake.count
        found[name] = {
            "cpu_percent_while_idle": round(idle, 2),
            "plan_ms": _spread(plans[1:]),
            "look_ms": _spread(looks[1:]),
            "batches_per_s": round((after.batches - before.batches) / seconds, 1),
            "samples_per_s": round((after.samples - before.samples) / seconds, 1),
            "nodes_read": len(looked.readings),
            "refused": dict(source.listener.refused),
        }
        if sender is not None:
            told, _ = sender.communicate(timeout=60)
            found["sender"] = json.loads(told)
    source.stop()
    store.close()
    return found


def _spread(times: list[float]) -> dict[str, float]:
    return {"p50": round(median(times), 2), "p99": round(quantiles(times, n=100)[98], 2), "n": len(times)}


def send(file: str, seconds: float) -> None:
    """All agents in one process: each node every 10 s, from an address of its own, with fresh credentials."""
    import socket
    import struct
    from concurrent.futures import ThreadPoolExecutor

    from tests.agent.batches import gpus, infos

    from colocd.agent import wire

    told = json.loads(Path(file).read_text())
    names, local, sent = told["names"], threading.local(), []
    start = CLOCK.monotonic()

    def one(number: int, turn: int) -> None:
        node = number % len(names)
        if not hasattr(local, "munge"):
            local.munge = Munge(told["sock"], ttl=60, only_uid=os.getuid())
        facts = {"sm": random.randrange(100), "memory_busy": 40, "used": 60_000, "clock": 1980, "memory_clock": 2619}
        facts |= {
            "nvlink_tx": turn * 10**9,
            "nvlink_rx": 10**9,
            "nvlink_errors": 0,
            "ecc": 0,
            "corrected": 0,
            "remap": 0,
        }
        facts["jobs"] = (wire.JobUse("123456", 1, 60_000),)
        samples = tuple(wire.Sample(2 * turn + i, 5.0 - 5 * i, gpus(**facts)) for i in range(2))
        batch = wire.Batch(wire.VERSION, names[node], f"run-{node:06d}", 5.0, infos(), samples)
        credential = local.munge.encode(wire.encode(batch))
        begun = CLOCK.monotonic()
        source = f"127.{1 + node // 65536}.{node // 256 % 256}.{node % 256}"
        with socket.create_connection(("127.0.0.1", 6829), 10, (source, 0)) as link:
            link.sendall(wire.MAGIC + struct.pack(">I", len(credential)) + credential)
            reply = wire.decode_reply(link.recv(4096)[4:])
        sent.append(((CLOCK.monotonic() - begun) * 1e3, reply.ok, len(credential)))

    with ThreadPoolExecutor(8) as pool:
        rate, number = len(names) / 10, 0
        while (passed := CLOCK.monotonic() - start) < seconds:
            while number < passed * rate:
                pool.submit(one, number, number // len(names))
                number += 1
            CLOCK.sleep(0.005)
    print(json.dumps({
        "sent": len(sent), "asked": number, "not_ok": sum(not ok for _, ok, _ in sent),
        "answer_ms": _spread([ms for ms, _, _ in sent]), "credential_bytes": round(median(size for _, _, size in sent)),
    }))  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--nodes", type=int, default=1250)
    parser.add_argument("--send", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.send:
        send(options.send, options.seconds)
        return
    with tempfile.TemporaryDirectory(prefix="coloc-bench-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        hosts = Hosts(folder)
        try:
            told = {
                "agent": agent(folder, hosts, options.seconds),
                "credential": cost_of_a_decode(hosts),
                "colocd": intake(folder, hosts, options.nodes, options.seconds),
            }
        finally:
            hosts.close()
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()
