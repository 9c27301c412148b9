"""What the agent reads of server types and faults, through the stand-in for NVML."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import python_path
from tests.nvml.live import BARE, H100, L40S, V100
from tests.nvml.servers import GIB

ROOT = Path(__file__).parents[2]
V2 = "0::/system.slice/slurmstepd.scope/job_{job}/step_batch/user/task_0\n"


class Node:
    """A server that a file describes, and a sampler that looks at it whenever it is asked to."""

    def __init__(self, library: Path, folder: Path) -> None:
        self.file, self.proc, self.faults = folder / "server.txt", folder / "proc", folder / "xids"
        self.proc.mkdir()
        self._library = library
        self._process: subprocess.Popen[str] | None = None

    def read(self, server: str) -> Any:
        """One sample of the server as it is now."""
        new = self.file.with_suffix(".new")
        new.write_text(server)
        new.rename(self.file)
        if self._process is None:
            env = {
                "PATH": os.environ["PATH"],
                **python_path(),
                "LD_LIBRARY_PATH": str(self._library),
                "COLOC_NVML_STANDIN": str(self.file),
            }
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "error",
                    str(ROOT / "tests/nvml/agent_once.py"),
                    str(self.faults),
                    str(self.proc),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=env,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the sampler died"
        return json.loads(line)

    def end(self) -> None:
        """Kill the sampler; the next `read` starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def process(self, pid: int, cgroup: str, environ: bytes = b"") -> None:
        (self.proc / str(pid)).mkdir()
        (self.proc / str(pid) / "cgroup").write_text(cgroup)
        (self.proc / str(pid) / "environ").write_bytes(environ)


@pytest.fixture
def node(library: Callable[..., Path], tmp_path: Path) -> Iterator[Node]:
    made = Node(library(), tmp_path)
    yield made
    made.end()


def test_a_busy_server(node: Node) -> None:
    found = node.read(H100)
    assert found["problems"] == []
    gpu = found["gpus"][3]
    assert (gpu["index"], gpu["minor"], gpu["mig"]) == (3, 3, None)
    assert gpu["uuid"] == "GPU-00000003-0000-0000-0000-000000000000"
    assert (gpu["sm"], gpu["memory_busy"], gpu["used"], gpu["memory"]) == (60, 30, 4 * 1024, 80 * 1024)
    assert (gpu["power"], gpu["clock"], gpu["memory_clock"]) == (300_003, 1980, 2619)
    assert (gpu["nvlink_tx"], gpu["nvlink_rx"], gpu["nvlink_errors"]) == (1003, 2003, 0)
    assert (gpu["ecc"], gpu["corrected"], gpu["remap"], gpu["xids"], gpu["lost"]) == (0, 0, 0, [], None)
    assert (gpu["jobs"], gpu["instances"]) == ([], None)
    assert len(found["gpus"]) == 8


def test_what_a_gpu_does_not_tell_is_unknown(node: Node) -> None:
    old = node.read(V100)["gpus"][0]
    assert (old["remap"], old["sm"]) == (None, 60)
    node.end()
    pcie = node.read(L40S)["gpus"][0]
    assert (pcie["nvlink_tx"], pcie["nvlink_rx"], pcie["power"]) == (None, None, 300_000)
    node.end()
    bare = node.read(BARE)
    assert bare["problems"] == []
    assert all(bare["gpus"][0][f] is None for f in ("sm", "power", "clock", "ecc", "remap", "nvlink_tx"))


def test_a_gpu_that_is_lost_and_comes_back(node: Node) -> None:
    whole = node.read(H100)
    fault = "fail {} 2 15\n"
    dead = "".join(fault.format(f) for f in ("nvmlDeviceGetUtilizationRates", "nvmlDeviceGetMemoryInfo"))
    found = node.read(H100 + dead)["gpus"]
    assert [gpu["lost"] for gpu in found] == [None, None, "GPU is lost", *[None] * 5]
    assert (found[2]["sm"], found[1]["sm"]) == (None, 60)
    assert node.read(H100)["gpus"] == whole["gpus"]
    node.end()
    from_start = node.read(H100 + fault.format("nvmlDeviceGetHandleByIndex"))["gpus"][2]
    assert (from_start["lost"], from_start["uuid"]) == ("GPU is lost", None)
    found = [node.read(H100) for _ in range(14)]
    assert found[0]["gpus"][2]["lost"] == "GPU is lost"  # a dead handle stays dead until NVML is opened anew
    assert found[-1]["gpus"] == whole["gpus"]


def test_a_driver_that_goes_away_makes_a_hole(node: Node) -> None:
    assert node.read(H100)["gpus"] is not None
    gone = node.read(H100 + "init 9\n")
    assert gone["gpus"] is None
    still = node.read(H100 + "init 9\n")
    assert (still["gpus"], still["problems"]) == (None, ["NVML cannot be used here: Driver Not Loaded"])
    back = node.read(H100)
    assert (len(back["gpus"]), back["problems"]) == (8, [])


def test_another_number_of_gpus_is_met_anew(node: Node) -> None:
    node.read(H100)
    assert node.read(L40S)["gpus"] is None
    assert len(node.read(L40S)["gpus"]) == 4


def test_xids_are_remembered_over_restarts_of_the_agent(node: Node) -> None:
    node.read(H100)
    found = node.read(H100 + "xid 5 79 0\nxid 1 31 1\n")["gpus"]
    assert [gpu["xids"] for gpu in found] == [[], [31], [], [], [], [79], [], []]
    node.end()
    assert node.read(H100)["gpus"][5]["xids"] == [79]
    node.end()
    kept = json.loads(node.faults.read_text())
    node.faults.write_text(json.dumps({**kept, "boot": "another boot"}))
    assert node.read(H100)["gpus"][5]["xids"] == []
    node.end()
    node.faults.write_text("{ torn")
    assert node.read(H100)["gpus"][5]["xids"] == []


def test_ecc_and_rows_that_wait(node: Node) -> None:
    gpu = node.read(H100 + "gpu 4 ecc 2\ngpu 4 corrected 7\ngpu 4 remap 3\n")["gpus"][4]
    assert (gpu["ecc"], gpu["corrected"], gpu["remap"]) == (2, 7, 3)


def test_processes_are_of_jobs(node: Node) -> None:
    node.process(100, V2.format(job=17))
    node.process(101, V2.format(job=17))
    node.process(102, "0::/user.slice/user-1000.slice/x/slurm/uid_1000/job_99/step_0\n")
    node.process(103, "0::/\n", b"PATH=/bin\0SLURM_JOB_ID=18\0")
    lines = f"proc 0 100 {2 * GIB}\nproc 0 101 {GIB}\nproc 0 102 {GIB}\nproc 0 103 {1 << 20}\nproc 0 999999 5\n"
    assert node.read(H100 + lines)["gpus"][0]["jobs"] == [["", 2, 1024], ["17", 2, 3072], ["18", 1, 1]]


def test_mig_tells_instances_and_no_utilisation(node: Node) -> None:
    server = H100 + "gpu 1 mig 1\ninstance 1 0 MIG-a 10737418240\ninstance 1 1 MIG-b 21474836480\n"
    gpu = node.read(server)["gpus"][1]
    assert (gpu["mig"], gpu["sm"]) == (True, None)
    assert gpu["instances"] == [["MIG-a", 1, 10240, []], ["MIG-b", 1, 20480, []]]


@pytest.mark.parametrize(
    ("cgroup", "job"),
    [
        (V2.format(job=17), "17"),
        ("0::/system.slice/n1_slurmstepd.scope/job_17/step_0/user/task_special\n", "17"),
        ("12:devices:/slurm/uid_1000/job_17/step_batch\n1:name=systemd:/system.slice\n", "17"),
        ("4:memory:/slurm_n1/uid_0/job_17/step_extern/task_0\n", "17"),
        ("0::/user.slice/slurm/uid_1000/job_17/step_0\n", ""),
        ("0::/system.slice/slurmstepd.scope/system\n", ""),
        ("0::/system.slice/slurmstepd.scope/job_17x/step_0\n", ""),
        ("0::/docker/slurmstepd.scope/job_17\n", ""),
    ],
)
def test_cgroup_paths(tmp_path: Path, cgroup: str, job: str) -> None:
    from colocd.agent.jobs import JobFinder

    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(cgroup)
    assert JobFinder(str(tmp_path)).job_of(7) == job
    assert JobFinder(str(tmp_path)).job_of(8) == ""


def test_a_gpu_that_may_not_be_opened_is_unknown_and_not_lost(node: Node) -> None:
    found = [node.read(H100 + "fail nvmlDeviceGetHandleByIndex -1 4\n") for _ in range(2)]
    for sample in found:
        assert [(gpu["lost"], gpu["sm"]) for gpu in sample["gpus"]] == [(None, None)] * 8
        assert (
            "GPU 0: nvmlDeviceGetHandleByIndex: error 4" in sample["problems"][0]
            or "Permission" in sample["problems"][0]
        )
    again = [node.read(H100) for _ in range(14)]
    assert (again[-1]["gpus"][0]["sm"], again[-1]["problems"]) == (60, [])
