"""Record what one release of Slurm answers to the client commands, as test data: tests/slurm/data/RELEASE/.

    python -m tools.record_slurm            the Slurm that is installed here
    python -m tools.record_slurm ROOT …     the Slurm in each of these folders (tools/slurm_root.sh); needs root
    python -m tools.record_slurm --parse    no Slurm: only what coloc reads from the recorded answers is written again

A throw-away cluster is filled with jobs of all kinds and read through `CliSlurm`. `answers.json` holds every command with what it
said, `read.json` what coloc made of it. Names of this host, its paths and its kernel are replaced.
"""

import json
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from tests.slurm.replay import DATA, Replay, plain

from colocd.clock import Clock, SystemClock
from colocd.config import SlurmConfig
from colocd.core.view import JobState
from colocd.errors import ColocError
from colocd.slurm.cli import CliSlurm
from colocd.slurm.port import JobUpdate
from colocd.slurm.shell import Shell
from colocd.testcluster import PrivateCluster

LOOP = "#!/bin/bash\nwhile :; do sleep 0.2; done\n"
FORGED = "x\nJobId=1 JobName=v JobState=RUNNING NodeList=n1   Nodes=n1 CPU_IDs=0 Mem=0 GRES=gpu:h100:2(IDX:6-7) \n"


class Recorder(Shell):
    """A shell that keeps what it was asked and told."""

    def __init__(self, config: SlurmConfig, clock: Clock) -> None:
        super().__init__(config, clock)
        self.answers: list[tuple[tuple[str, ...], str]] = []

    def ask(self, *argv: str) -> str:
        said = super().ask(*argv)
        self.answers.append((argv, said))
        return said


class Scene:
    """A cluster with jobs of all kinds."""

    def __init__(self, cluster: PrivateCluster) -> None:
        self.cluster, self.clock = cluster, SystemClock()
        self.slurm = CliSlurm(SlurmConfig(conf=str(cluster.conf), bin_dir=cluster.bin_dir), self.clock)

    def submit(self, *words: str, script: str = LOOP) -> str:
        said = self.cluster.run("sbatch", "--parsable", "--output=/dev/null", *words, text=script)
        return said.stdout.strip()

    def reach(self, state: JobState, *refs: str) -> None:
        end = self.clock.monotonic() + 40
        while {job.state for job in self.slurm.jobs(refs).values()} != {state}:
            if self.clock.monotonic() > end:
                raise ColocError(f"jobs {refs} did not become {state}: {self.slurm.jobs(refs)}")
            self.clock.sleep(0.2)

    def fill(self) -> None:
        """One job of each kind that the adapter must tell apart."""
        mark = "--comment=mine [coloc v=1 signal=USR1 to=batch interval=300]"
        running = [self.submit("--gres=gpu:h100:2", "-w", "n1", "-J", "typed"), self.submit("--gpus=3", "-w", "n1")]
        running += [self.submit("--gres=gpu:1", "-N2", "-w", "n2,n3", "-J", "two nodes")]
        running += [self.submit("-n2", "--gpus-per-task=1", "-w", "n2"), self.submit("-c4", "-w", "n3", "-J", "no gpu")]
        running += [self.submit("--gres=gpu:2", "-w", "n3", "-t", "90", "-J", FORGED, mark)]
        self.reach(JobState.RUNNING, *running)
        array = self.submit("--array=1-4%2", "--gpus=1", "-w", "n2")
        self.reach(JobState.RUNNING, f"{array}_1", f"{array}_2")
        self.submit("--hold", "-N2", "--gpus-per-node=h100:2", "-c3", mark)
        later = self.submit("--begin=now+1hour", "--nice=7", "-w", "n1", "--gres=gpu")
        self.slurm.update(later, JobUpdate(comment="quote \" ' [coloc-place v=1 level=NVLINK]"))
        self.slurm.hold([self.submit("--begin=now+1hour", "-J", "held by an administrator")])
        self.submit("--hold", ":", script="#!/bin/sh\ntrue\n")  # a heterogeneous job
        back = self.submit("--gres=gpu:2", "-w", "n2", "--requeue", "-J", "requeued")
        self.reach(JobState.RUNNING, back)
        self.slurm.requeue([back], hold=True)
        self.reach(JobState.PENDING, back)
        good, bad = self.submit(script="#!/bin/sh\ntrue\n"), self.submit(script="#!/bin/sh\nexit 3\n")
        self.reach(JobState.DONE, good)
        self.reach(JobState.FAILED, bad)
        stubborn = self.submit(
            "--gres=gpu:2",
            "-w",
            "n4",
            "-J",
            "dies slowly",
            script="#!/bin/sh\ntrap '' TERM\n" + LOOP.partition("\n")[2],
        )
        self.reach(JobState.RUNNING, stubborn)
        self.slurm.reserve("coloc-fence", ["n3"], ["root"], 30)
        self.slurm.reserve("maintenance", ["n4"], ["root", "daemon"], 60)
        self.submit("--reservation=coloc-fence", "--gres=gpu:4", "-J", "in the fence", "-p", "online", "--hold")
        self.cluster.run(
            "scontrol", "update", "nodename=n4", "state=drain", "reason=State=IDLE GresUsed=gpu:h100:0(IDX:)"
        )
        self.clock.sleep(2.5)  # until the scheduler has given its reasons
        self.slurm.cancel([stubborn])
        self.reach(JobState.COMPLETING, stubborn)


def record(root: str | None) -> Path:
    """Fill a cluster, read it, write the answers."""
    directory = Path(tempfile.mkdtemp(prefix="coloc-slurm-"))
    try:
        with PrivateCluster(directory, root=root, kill_wait=20) as cluster:
            scene = Scene(cluster)
            scene.fill()
            config = SlurmConfig(conf=str(cluster.conf), bin_dir=cluster.bin_dir)
            fresh, recorder = CliSlurm(config, scene.clock), Recorder(config, scene.clock)
            fresh._shell = recorder
            version = fresh.read().version
            fresh.node("n1")
            recorder.ask("scontrol", "show", "config")
            answers = [{"argv": plain(argv), "out": scrub(said, argv, cluster)} for argv, said in recorder.answers]
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    folder = DATA / ".".join(version.split(".")[:2])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "answers.json").write_text(json.dumps(answers, indent=1) + "\n")
    return folder


def scrub(text: str, argv: tuple[str, ...], cluster: PrivateCluster) -> str:
    """The answer without this machine in it, and with NONCE for the random word."""
    if "config" in argv:  # much of this host stands there, and little is of use
        keep = (
            "SLURM_VERSION",
            "PreemptType",
            "PreemptMode",
            "PriorityType",
            "SelectType",
            "MaxBatchRequeue",
            "RequeueExit",
        )
        text = "".join(line for line in text.splitlines(keepends=True) if line.startswith(keep))
    nonce = re.search(r":0[<>]([\w~]+)", " ".join(argv))
    text = text.replace(nonce[1], "NONCE") if nonce else text
    text = text.replace(cluster.spec.base, "/cluster").replace(str(cluster.directory), "/cluster")
    for name in {socket.gethostname(), socket.gethostname().partition(".")[0]} - {"localhost", ""}:
        text = re.sub(rf"\b{re.escape(name)}\b", "head", text)
    text = re.sub(r"\bOS=.*?(?= RealMemory=)", "OS=Linux", text)
    return re.sub(r"\b(WorkDir|Command|SubmitLine)=\S*", r"\1=/cluster/work", text)


def parse(folder: Path) -> None:
    """Write what coloc reads from the recorded answers."""
    found: dict[str, Any] = msgspec.to_builtins(Replay(folder).slurm().read())
    (folder / "read.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{folder}: {len(found['jobs'])} jobs, {len(found['nodes'])} nodes, Slurm {found['version']}")


def main(words: list[str]) -> None:
    folders = sorted(DATA.iterdir()) if words == ["--parse"] else [record(root) for root in words or [None]]
    for folder in folders:
        parse(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
