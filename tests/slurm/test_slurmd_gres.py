"""gres.conf as slurmd itself reads it (`slurmd -G`): the same GPUs, in the same order, with the same cores and types."""

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from coloc_topology.gres_conf import read_gres_conf
from coloc_topology.hostlist import expand

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(120)]

PROGRAM = shutil.which("slurmd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "slurmd"
CONF = """\
ClusterName=x
SlurmctldHost=localhost
GresTypes=gpu
SelectType=select/cons_tres
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname=localhost Port=7777 SocketsPerBoard=2 CoresPerSocket=8 RealMemory=1000 Gres={gres}
PartitionName=p Nodes=n1
"""
GPU = re.compile(r"Gres Name=gpu Type=(\S+) Count=\d+ .*?File=(\S+)(?: Cores=(\S+))?")


def slurmd(folder: Path, text: str, gres: str) -> list[tuple[str, str, str | None]] | None:
    """Type, file and cores of n1's GPUs in slurmd's order; None: slurmd refuses the file."""
    (folder / "slurm.conf").write_text(CONF.format(gres=gres))
    (folder / "gres.conf").write_text(text)
    argv = [PROGRAM, "-G", "-f", str(folder / "slurm.conf"), "-N", "n1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    said = done.stdout + done.stderr
    found = [(m[1].replace("(null)", ""), file, m[3]) for m in GPU.finditer(said) for file in expand(m[2])]
    return None if "fatal:" in said else found


def ours(text: str, types: tuple[str, ...]) -> list[tuple[str, str | None, str | None]]:
    return [(gpu.type, gpu.file, gpu.cores) for gpu in read_gres_conf(text).node("n1", types).gpus]


def line(rng: random.Random, folder: Path, typed: bool) -> str:
    def key(*names: str) -> str:
        name = rng.choice(names)
        return rng.choice([name, name, name.lower(), name.upper()])

    words = []
    if rng.random() < 0.5:
        words.append(f"{key('NodeName')}={rng.choice(['n1', 'n[1-2]', 'n2', 'n1,n2', 'n[0-9]'])}")
        words += [f"{key('AutoDetect')}=off"] * (rng.random() < 0.2)
    words.append(f"{key('Name')}=gpu")
    first = rng.randrange(8)
    device = f"{folder}/nvidia{rng.choice([str(first), f'[{first}-{rng.randrange(first, 8)}]'])}"
    more = [f"{key('File', 'Files')}={device}"]
    more += [f"{key('Type')}={rng.choice('ab')}"] * typed
    more += [f"{key('Cores', 'CPUs')}={rng.choice(['0-7', '8-15', '0-3,8-11'])}"] * (rng.random() < 0.4)
    more += ["Flags=nvidia_gpu_env"] * (rng.random() < 0.1)
    rng.shuffle(more)
    text = rng.choice([" ", "\t", "   "]).join([*words, *more])
    return rng.choice(["", "", "", "# "]) + text + rng.choice(["", " # Cores=3"])


@pytest.mark.parametrize("typed", [False, True], ids=["untyped", "typed"])
def test_the_same_gpus_in_the_same_order(tmp_path: Path, typed: bool) -> None:
    rng, compared = random.Random(f"gres {typed}"), 0
    for number in range(8):
        (tmp_path / f"nvidia{number}").touch()
    for _ in range(60):
        text = "".join(line(rng, tmp_path, typed) + "\n" for _ in range(rng.randrange(1, 5)))
        theirs = slurmd(tmp_path, text, "gpu:a:32,gpu:b:32" if typed else "gpu:32")
        if theirs is not None:
            compared += bool(theirs)
            assert ours(text, ("a", "b") if typed else ()) == theirs, text
    assert compared > 20


def test_continued_lines_quotes_and_what_slurmd_refuses(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"nvidia{number}").touch()
    text = f'Name=gpu \\\n  File="{tmp_path}/nvidia[2-3]" \\\n  Cores=0-7\nNAME = gpu FILES = {tmp_path}/nvidia0\n'
    assert ours(text, ()) == slurmd(tmp_path, text, "gpu:8")
    assert slurmd(tmp_path, f"Name=gpu File={tmp_path}/nvidia0 MultipleFiles={tmp_path}/nvidia1\n", "gpu:8") is None
    assert slurmd(tmp_path, f"Name=gpu Tpye=a File={tmp_path}/nvidia0\n", "gpu:8") is None
