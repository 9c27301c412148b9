from pathlib import Path

import pytest

from colocd.telemetry.nvml_cores import read_cores


def machine(folder: Path, cpus: dict[int, tuple[int, str]], siblings: str = "core_cpus_list") -> str:
    for cpu, (socket, threads) in cpus.items():
        topology = folder / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{socket}\n")
        (topology / siblings).write_text(f"{threads}\n")
    (folder / "cpufreq").mkdir()
    return str(folder)


@pytest.mark.parametrize("siblings", ["core_cpus_list", "thread_siblings_list"])
def test_threads_and_alternating_sockets(tmp_path: Path, siblings: str) -> None:
    cpus = {i: (i % 2, f"{i % 4},{i % 4 + 4}") for i in range(8)}
    assert read_cores(machine(tmp_path, cpus, siblings)) == ("0,4", "2,6", "1,5", "3,7")


def test_offline_cpus_and_no_kernel(tmp_path: Path) -> None:
    folder = machine(tmp_path / "a", {0: (0, "0"), 1: (0, "1")})
    (tmp_path / "a" / "cpu2").mkdir()
    assert read_cores(folder) == ("0", "1")
    assert read_cores(str(tmp_path / "none")) is None
    assert read_cores(machine(tmp_path / "b", {0: (0, "nonsense")})) is None


def test_this_machine() -> None:
    assert read_cores()
