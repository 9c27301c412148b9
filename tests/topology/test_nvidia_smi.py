from pathlib import Path

import pytest

from coloc_topology.errors import TopologyError
from coloc_topology.fit import fit_table
from coloc_topology.nvidia_smi import read_topo
from coloc_topology.shape import Level

SAMPLES = {
    path.stem: path.read_text(encoding="utf-8") for path in (Path(__file__).parent / "data/nvidia-smi").iterdir()
}
WHOLE = {name: read_topo(text) for name, text in SAMPLES.items()}
MP = """\
\tGPU0\tGPU1\tGPU2\tCPU Affinity\tNUMA Affinity
GPU0\t X \tSYS\tSYS\t0-13\t0
GPU1\tSYS\t X \tNODE\t14-27\t1
GPU2\tSYS\tNODE\t X \t14-27\t1

Legend:

  X    = Self
  PIX  = Connection traversing at most a single PCIe bridge
"""


@pytest.mark.parametrize(
    ("name", "gpus", "row", "numa", "cores", "nics"),
    [
        ("dgx1_8xV100_hybrid_cube_mesh", 8, "X NV1 NV1 NV2 NV2 SYS SYS SYS", [None] * 8, "0-19,40-59", 4),
        ("dgx_a100_8xA100_12mlx5_nps4", 8, "X" + 7 * " NV12", [3, 3, 1, 1, 7, 7, 5, 5], "48-63,176-191", 12),
        ("dgx_h100_8xH100_12nic_cut", 8, "X" + 7 * " NV18", [0, 0, 0, 0, 1, 1, 1, 1], "0-55,112-167", 12),
        ("hgx_a100_8xA100_4nic", 8, "X" + 7 * " NV12", [0, 0, 0, 0, 1, 1, 1, 1], "0-31,64-95", 4),
        ("hgx_h200_8xH200_8nic_amd", 8, "X" + 7 * " NV18", [0, 0, 0, 0, 1, 1, 1, 1], "0-63,128-191", 8),
        ("pcie_2x5090_phb", 2, "X PHB", [0, 0], "0-63", 0),
        ("pcie_4xL40S_2nic_spaces", 4, "X NODE SYS SYS", [0, 0, 1, 1], "0-95,192-287", 2),
        ("polaris_4xA100_nv4_reversed_numa", 4, "X NV4 NV4 NV4", [3, 2, 1, 0], "24-31,56-63", 2),
        ("sxm2_8xV100_32GB_1nic", 8, "X NV1 NV1 NV2 NV2 SYS SYS SYS", [0, 0, 0, 0, 1, 1, 1, 1], "0-19,40-59", 1),
        ("vm_8xH100_1nic_sys", 8, "X" + 7 * " NV18", [0, 0, 0, 0, 1, 1, 1, 1], "0-103", 1),
        ("vm_8xH100_flat_numa", 8, "X" + 7 * " NV18", [0] * 8, "0-63", 0),
        ("vm_8xV100_phb_numa_range", 8, "X NV1 NV1 NV2 NV2 PHB PHB PHB", [None] * 8, "0-63", 0),
    ],
)
def test_samples(name: str, gpus: int, row: str, numa: list[int | None], cores: str, nics: int) -> None:
    read = WHOLE[name]
    assert read.shape.gpus == gpus
    assert read.shape.links[0] == tuple(row.split())
    assert list(read.shape.numa) == numa
    assert read.shape.cores[0] == cores
    assert len(read.nics) == nics
    assert read.pcie_only is (None if "Legend" not in SAMPLES[name] and "NV" not in row else False)


def test_every_sample_is_in_the_table() -> None:
    cases = next(mark for mark in test_samples.pytestmark if mark.name == "parametrize").args[1]  # type: ignore[attr-defined]
    assert {case[0] for case in cases} == set(SAMPLES)


def test_nics() -> None:
    nic = WHOLE["hgx_h200_8xH200_8nic_amd"].nics[1]
    assert (nic.name, nic.device) == ("NIC1", "mlx5_1")
    assert nic.links == ("NODE", "PIX", "NODE", "NODE", "SYS", "SYS", "SYS", "SYS")
    assert WHOLE["polaris_4xA100_nv4_reversed_numa"].nics[1].device == "mlx5_1"
    assert WHOLE["vm_8xH100_1nic_sys"].nics[0].device is None


def test_numa_ranges_stay_readable() -> None:
    read = WHOLE["vm_8xV100_phb_numa_range"]
    assert read.numa == ("0-1",) * 8
    assert fit_table(read.shape).islands(Level.NVLINK) == (0xF, 0xF0)


def test_pcie_matrix_is_told_apart() -> None:
    assert read_topo(MP).pcie_only is True
    assert read_topo(MP.replace("\n  PIX", "\n  NV#  = bonded set\n  PIX")).pcie_only is False
    assert read_topo(MP.split("Legend")[0]).pcie_only is None


def test_colours_old_words_blanks_and_prompts() -> None:
    head = "root@n1:~# nvidia-smi topo -m\r\n\x1b[4m\tGPU0\tGPU1\tCPU Affinity\x1b[0m\r\n"
    text = head + "GPU0\t X \tSOC\t0-3\r\nGPU1\tSOC\t X \t4-7\r\n"
    read = read_topo(text)
    assert read.shape.links == (("X", "SYS"), ("SYS", "X"))
    assert read.shape.cores == ("0-3", "4-7")
    one = read_topo("\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-11\tN/A\n")
    assert (one.shape.links, one.shape.cores, one.numa) == ((("X",),), ("0-11",), (None,))


def test_glued_cells() -> None:
    text = "GPU0GPU1GPU2NIC0CPUAffinityNUMAAffinity\nGPU0XNV12SYSPIX0-3 0\nGPU1NV12XSYSPXB\t4-7\t1\nGPU2SYSSYSXSYS\n"
    read = read_topo(text)
    assert read.shape.links == (("X", "NV12", "SYS"), ("NV12", "X", "SYS"), ("SYS", "SYS", "X"))
    assert read.shape.cores == (None, "4-7", None)
    assert read.nics[0].links == (None, "PXB", "SYS")
    with pytest.raises(TopologyError, match="line 2, column 8: 'NV40-3' is no link word"):
        read_topo("\tGPU0\tGPU1\tCPU Affinity\nGPU0\tX\tNV40-3\nGPU1\tX\tX\n".replace("GPU1\tX", "GPU1\t?"))


def test_a_lost_fact_is_none() -> None:
    text = MP.replace("14-27\t1\nGPU2", "\t1\nGPU2").replace("0-13\t0", "0-13")
    read = read_topo(text)
    assert read.shape.cores == (None, None, "14-27")
    assert read.numa == (None, "1", "1")


def test_mirror_fills_what_was_cut() -> None:
    head = MP.split("GPU2\tS")[0]
    read = read_topo(head)
    assert read.shape.links == read_topo(MP).shape.links
    assert read.shape.cores == ("0-13", "14-27", None)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "this is no output of `nvidia-smi topo -m`"),
        ("Failed to initialize NVML: Driver/library version mismatch\n", "this is no output of `nvidia-smi topo -m`"),
        (MP + MP, "line 10, column 1: a second matrix starts here"),
        (MP.replace("GPU1\tGPU2", "GPU2\tGPU1"), "line 1, column 1: the header does not name GPU0, GPU1 and so on"),
        (MP.replace("\tGPU2\tCPU", "\tCPU"), "line 2, column 14: row GPU0 has more cells than the header has columns"),
        (MP.replace("GPU2\tS", "GPU3\tS"), "line 4, column 1: row GPU3 has no column in the header"),
        (MP.replace("GPU2\tS", "GPU1\tS"), "line 4, column 1: a second row of GPU1; the first is in line 3"),
        (MP.replace("\tNODE\t X", "\tPHB\t X"), "line 4, column 10: PHB between GPU1 and GPU2, but line 3 says NODE"),
        (MP.split("GPU1\tSYS")[0], "line 1, column 1: the matrix under this header has no row of GPU1"),
        (MP.split("\t X \tNODE")[0], "line 3, column 9: the row ends here, so the link between GPU1 and GPU2"),
        (MP.replace("NODE", "QPI"), "line 3, column 14: 'QPI' is no link word, so the link between GPU1 and GPU2"),
        (MP.replace("GPU1\tSYS", "GPU\tSYS"), "line 4, column 1: the row of GPU1 is missing before this line"),
        (MP.replace("GPU2\tSYS", "GPU\tSYS"), "line 4, column 1: the row of GPU2 is missing before this line"),
        (MP.replace("GPU1\tSYS\t", "GPU1\t"), "line 3, column 7: X where GPU1 meets GPU0"),
    ],
)  # fmt: skip
def test_refused(text: str, error: str) -> None:
    with pytest.raises(TopologyError) as caught:
        read_topo(text)
    assert str(caught.value).startswith(error)
