"""Outputs of nvidia-smi as they arrive: cut, wrapped, glued, copied, damaged. Read right, refused with the place, or unknown."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.topology.test_nvidia_smi import SAMPLES, WHOLE

from coloc_topology.errors import TopologyError
from coloc_topology.nvidia_smi import NodeTopology, read_topo

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


def test_facts_that_contradict_each_other_are_unknown() -> None:
    """GPUs are near the same CPUs or near others: of two lists that overlap and differ one is damaged."""
    read = read_topo(H100X4.replace("4,12,20,28      1", "4,6             1"))
    assert read.shape.cores == (None, None, "7,15,23,31", "5,13,21,29")
    assert read_topo(H100X4.replace("30      3 ", "30      33")).shape.numa[0] == 33
    assert read_topo(H100X4.replace("30      3 ", "30      03")).shape.numa[0] is None
    assert read_topo(H100X4.replace("PIX", "NV6")).nics[0].links[0] is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (H100X4.replace("NIC1    CPU Aff", "NIC1    CPU A  f"), "line 1, column 57: 'CPU' in the header is no device"),
        (H100X4.replace("NIC1    CPU Affinity", "mlx5_ "), "line 1, column 49: 'mlx5_' in the header is no device"),
        (H100X4.replace("NIC0    PIX", "NIC7    PIX"), "line 6, column 1: row NIC7 has no column in the header"),
    ],
)
def test_devices_that_are_none(text: str, error: str) -> None:
    with pytest.raises(TopologyError) as caught:
        read_topo(text)
    assert str(caught.value).startswith(error)


def test_a_name_that_is_cut_is_unknown() -> None:
    text = SAMPLES["hgx_h200_8xH200_8nic_amd"]
    assert read_topo(text[: text.index("NIC7: mlx5_7") + 11]).nics[7].device is None


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(SAMPLES)), data=st.data())
def test_lines_lost_doubled_moved_joined_or_broken(name: str, data: st.DataObject) -> None:
    lines = SAMPLES[name].split("\n")
    rows = st.integers(0, len(WHOLE[name].shape.links) + len(WHOLE[name].nics))
    one, other = (min(data.draw(rows), len(lines) - 2) for _ in range(2))
    what = data.draw(st.sampled_from(["lose", "double", "swap", "join", "break"]))
    if what == "lose":
        del lines[one]
    elif what == "double":
        lines.insert(other, lines[one])
    elif what == "swap":
        lines[one], lines[other] = lines[other], lines[one]
    elif what == "join":
        lines[one : one + 2] = ["".join(lines[one : one + 2])]
    else:
        at = data.draw(st.integers(0, len(lines[one])))
        lines[one : one + 1] = [lines[one][:at], lines[one][at:]]
    try:
        read = read_topo("\n".join(lines))
    except TopologyError:
        return
    assert read.shape.links == WHOLE[name].shape.links
    assert {nic.name for nic in read.nics} <= {nic.name for nic in WHOLE[name].nics}


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
