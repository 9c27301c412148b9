import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coloc_topology.errors import TopologyError
from coloc_topology.fit import fit_table
from coloc_topology.nvidia_smi import NodeTopology, read_topo
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


H100X4 = """\
        GPU0    GPU1    GPU2    GPU3    NIC0    NIC1    CPU Affinity    NUMA Affinity   GPU NUMA ID
GPU0     X      NV6     NV6     NV6     PIX     SYS     6,14,22,30      3               N/A
GPU1    NV6      X      NV6     NV6     SYS     PIX     4,12,20,28      1               N/A
GPU2    NV6     NV6      X      NV6     SYS     SYS     7,15,23,31      7               N/A
GPU3    NV6     NV6     NV6      X      SYS     SYS     5,13,21,29      5               N/A
NIC0    PIX     SYS     SYS     SYS      X      SYS
NIC1    SYS     PIX     SYS     SYS     SYS      X
"""
GB200 = """\
\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tNV18\tNODE\t0-71\t0,2-17\t\tN/A
GPU1\tNV18\t X \tSYS\t72-143\t1\t\t18
NIC0\tNODE\tSYS\t X \t\t\t\t
"""


def wrapped(text: str, columns: int) -> str:
    return "\n".join(
        line[at : at + columns] for line in text.split("\n") for at in range(0, max(1, len(line)), columns)
    )


def test_lists_of_single_cpus_and_memory_nodes_of_gpus() -> None:
    read = read_topo(H100X4)
    assert (read.shape.cores[0], read.shape.numa) == ("6,14,22,30", (3, 1, 7, 5))
    grace = read_topo(GB200)
    assert (grace.numa, grace.shape.numa, grace.shape.cores) == (("0,2-17", "1"), (None, 1), ("0-71", "72-143"))


def test_copies_from_elsewhere() -> None:
    want = read_topo(H100X4)
    for text in (
        H100X4.replace("  ", "\u00a0 "),
        H100X4.replace("\n", "\r\n"),
        H100X4.replace("\n", "\n\n"),
        "\n\n" + "\n".join("    " + line for line in H100X4.split("\n")),
        "\x1b]0;root@n1\x07\x1b[?2004hroot@n1:~# nvidia-smi topo -m\r\n\x1b[?2004l\r" + H100X4 + "root@n1:~# exit\n",
    ):
        assert read_topo(text) == want


@pytest.mark.parametrize("sign", ["N/A", "ERR!", "DIS", "?", "NV0", "nv6", "NV5"])
def test_a_cell_that_says_something_else_than_its_mirror(sign: str) -> None:
    damaged = H100X4.replace("GPU2    NV6", f"GPU2    {sign}")
    with pytest.raises(TopologyError) as caught:
        read_topo(damaged)
    assert (caught.value.line, caught.value.column) == (4, 9)
    assert "NV6" in str(caught.value)
    assert sign in str(caught.value)


def test_a_path_to_a_nic_that_one_half_does_not_know() -> None:
    read = read_topo(H100X4.replace("NIC0    PIX", "NIC0    N/A"))
    assert read.nics[0].links == (None, "SYS", "SYS", "SYS")


def same_or_unknown(read: NodeTopology, whole: NodeTopology) -> None:
    """No wrong fact: all links are there and right; any other fact is right or None."""
    assert read.shape.links == whole.shape.links
    assert all(fact in (None, right) for fact, right in zip(read.shape.cores, whole.shape.cores, strict=True))
    assert all(fact in (None, right) for fact, right in zip(read.numa, whole.numa, strict=True))
    right_nics = {nic.name: nic.links for nic in whole.nics}
    for nic in read.nics:
        if nic.name in right_nics:
            assert all(link in (None, right) for link, right in zip(nic.links, right_nics[nic.name], strict=True))


@pytest.mark.parametrize("columns", range(12, 108, 2))
def test_wrapped_lines(columns: int) -> None:
    try:
        read = read_topo(wrapped(H100X4, columns))
    except TopologyError:
        return
    assert columns > 88  # only the last column goes over
    same_or_unknown(read, read_topo(H100X4))
    assert [nic.name for nic in read.nics] == ["NIC0", "NIC1"]


@pytest.mark.parametrize("before", ["gpu01: ", "0: ", "> ", "[1] "])
def test_something_before_every_line(before: str) -> None:
    with pytest.raises(TopologyError, match=r"^line 1, column 1: '\S+' stands before GPU0"):
        read_topo("".join(before + line for line in H100X4.splitlines(keepends=True)))


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(SAMPLES)), data=st.data())
def test_cut_anywhere(name: str, data: st.DataObject) -> None:
    text = SAMPLES[name]
    matrix = text.split("Legend")[0]
    cut = data.draw(st.integers(0, len(matrix)))
    try:
        read = read_topo(text[:cut])
    except TopologyError:
        return
    same_or_unknown(read, WHOLE[name])


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(SAMPLES)), data=st.data())
def test_blanks_lost_anywhere(name: str, data: st.DataObject) -> None:
    text = SAMPLES[name]
    blanks = [found.start() for found in re.finditer(r"[ \t]", text.split("Legend")[0])]
    lost = data.draw(st.sets(st.sampled_from(blanks), min_size=1, max_size=6))
    try:
        read = read_topo("".join(c for i, c in enumerate(text) if i not in lost))
    except TopologyError:
        return
    same_or_unknown(read, WHOLE[name])


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(SAMPLES)), data=st.data(), new=st.sampled_from("X0N1V-\t \n\x1b\u0661GP,="))
def test_one_wrong_character(name: str, data: st.DataObject, new: str) -> None:
    text = SAMPLES[name]
    place = data.draw(st.integers(0, len(text.split("Legend")[0]) - 1))
    try:
        read = read_topo(text[:place] + new + text[place + 1 :])
    except TopologyError:
        return
    assert read.shape.links == WHOLE[name].shape.links


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(["GPU0", "GPU1", "\t", " ", "\n", "X", "NV1", "SYS", "NIC0", "CPU Affinity", "0-3", "\x1b[4m"]))
    .map("".join)
    | st.text(max_size=80)
)  # fmt: skip
def test_only_topology_errors_come_out(text: str) -> None:
    try:
        read = read_topo(text)
    except TopologyError:
        return
    assert read.shape.gpus >= 1
