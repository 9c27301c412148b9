"""What the demo writes down: the templates filled in, the topology as nvidia-smi prints it, the backlog of batch jobs."""

import re
import socket
from collections.abc import Mapping
from pathlib import Path

import msgspec

from coloc_topology.shape import Shape
from colocd.errors import ColocError

HERE = Path(__file__).parent
REPLICAS = 7
RATE = 5.0


class BacklogJob(msgspec.Struct, frozen=True, kw_only=True):
    """A batch job to submit; `steps` at `RATE` a second. `deaf`: it misbehaves and ignores the checkpoint signal."""

    name: str
    gpus: int
    steps: int
    deaf: bool = False


def fill(template: str, values: Mapping[str, object]) -> str:
    """The template's text with every `@NAME@` replaced; a name without a value is an error in the demo itself."""
    text = (HERE / template).read_text()
    return re.sub(r"@([A-Z_]+)@", lambda found: str(values[found.group(1)]), text)


def topology_text(shape: Shape) -> str:
    """The shape as `nvidia-smi topo -m` prints it."""
    names = [f"GPU{i}" for i in range(shape.gpus)]
    rows = ["\t" + "\t".join([*names, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"])]
    for i, name in enumerate(names):
        words = [f" {word} " if word == "X" else word for word in shape.links[i]]
        near = [str(shape.cores[i]), str(shape.numa[i]), "N/A"] if shape.numa and shape.cores else ["", "", "N/A"]
        rows.append("\t".join([name, *words, *near]))
    return "\n".join(rows) + "\n"


def backlog(scale: float = 1.0, *, deaf: bool = False) -> list[BacklogJob]:
    """Batch jobs of 1, 2 and 4 GPUs and 16 to 28 seconds: about what one day's valleys hold, and a little more.

    The same list each time: the demo is to be repeatable. `scale` stretches the number of jobs.
    """
    gpus, seconds = (4, 2, 2, 1, 4, 1, 2, 4, 1, 2), (24, 18, 27, 16, 22, 28, 17, 26, 20)
    jobs = [
        BacklogJob(name=f"train-{k:02d}", gpus=gpus[k % len(gpus)], steps=int(seconds[k % len(seconds)] * RATE))
        for k in range(round(30 * scale))
    ]
    if deaf:
        jobs.append(BacklogJob(name="train-deaf", gpus=1, steps=int(40 * RATE), deaf=True))
    return jobs


def free_ports(count: int) -> int:
    """First of `count` consecutive ports on loopback that nobody listens on, below the range the system hands out itself."""
    for first in range(18000, 20000, count + 1):
        if all(_free(first + k) for k in range(count)):
            return first
    raise ColocError("no free ports on loopback for the demo's replicas", hint="end what listens on 18000 to 20000")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
