import pytest
from hypothesis import given
from hypothesis import strategies as st

from coloc_topology.errors import TopologyError
from coloc_topology.fit import fit_table
from coloc_topology.rocm_smi import read_rocm
from coloc_topology.shape import Level
from coloc_topology.source import kind_of, read_source

HEAD = "============================ ROCm System Management Interface ============================\n"


def table(title: str, words: list[list[str]]) -> str:
    head = "       " + "".join(f"GPU{i:<10}" for i in range(len(words)))
    rows = [f"GPU{i}   " + "".join(f"{word:<13}" for word in row) for i, row in enumerate(words)]
    return "\n".join([f"================ {title} between two GPUs ================", head, *rows, "", ""])


def numa(nodes: list[int]) -> str:
    lines = ["======================= Numa Nodes ======================="]
    for i, node in enumerate(nodes):
        lines += [f"GPU[{i}]\t\t: (Topology) Numa Node: {node}", f"GPU[{i}]\t\t: (Topology) Numa Affinity: {node}"]
    return "\n".join([*lines, "=================== End of ROCm SMI Log ===================", ""])


def matrix(count: int, near: str, far: str, half: int) -> list[list[str]]:
    return [["0" if i == j else near if (i < half) == (j < half) else far for j in range(count)] for i in range(count)]


def output(count: int = 8, half: int = 4, far: str = "PCIE", weight: str = "72") -> str:
    return (
        HEAD
        + table("Weight", matrix(count, "15", weight, half))
        + table("Hops", matrix(count, "1", "1" if far == "XGMI" else "3", half))
        + table("Link Type", matrix(count, "XGMI", far, half))
        + numa([int(i >= half) for i in range(count)])
    )


def test_two_hives() -> None:
    shape = read_rocm(output())
    assert shape.links[0] == ("X", "NV1", "NV1", "NV1", "SYS", "SYS", "SYS", "SYS")
    assert shape.numa == (0, 0, 0, 0, 1, 1, 1, 1)
    assert fit_table(shape).islands(Level.NVLINK) == (0x0F, 0xF0)
    assert (kind_of(output()), read_source(output(), "mi300").kind) == ("rocm-smi", "rocm-smi")


def test_xgmi_that_is_not_direct() -> None:
    shape = read_rocm(output(far="XGMI", weight="30"))
    assert shape.links[0][4] == "SYS"
    assert fit_table(shape).level_of(0b11111) is Level.SYS  # no direct link leads out of the four


def test_pcie_within_a_socket() -> None:
    text = HEAD + table("Hops", matrix(4, "2", "3", 2)) + table("Link Type", matrix(4, "PCIE", "PCIE", 2))
    assert read_rocm(text).links[0] == ("X", "NODE", "SYS", "SYS")
    text = HEAD + table("Link Type", matrix(4, "PCIE", "PCIE", 2))
    assert read_rocm(text).links[0] == ("X", "SYS", "SYS", "SYS")
    assert read_rocm(text + numa([0, 0, 1, 1])).links[0] == ("X", "NODE", "SYS", "SYS")
    assert read_rocm(HEAD + table("Link Type", [["0"]])).links == (("X",),)


def test_a_cut_row_is_taken_from_its_mirror() -> None:
    text = HEAD + table("Link Type", matrix(3, "PCIE", "PCIE", 3)).rstrip()
    assert read_rocm(text[: text.rindex("PCIE")]).links[2] == ("SYS", "SYS", "X")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD, "no table of link types"),
        (HEAD + table("Link Type", matrix(2, "XGMI", "XGMI", 2)), r"line 4, column \d+: no weight tells"),
        (HEAD + table("Link Type", matrix(2, "NVLINK", "NVLINK", 2)), r"line 4, column \d+: 'NVLINK' is no link type"),
        (
            HEAD + table("Link Type", [["0", "PCIE"], ["XGMI", "0"]]),
            "line 5, column 8: XGMI between GPU0 and GPU1, but line 4 says PCIE",
        ),
        (output() + output(), "a second table of weight"),
        (output().replace("GPU3   XGMI", "GPU2   XGMI"), "a second row of GPU2"),
        (output().replace("GPU3   XGMI", "GPUX   XGMI"), "does not have the 8 rows GPU0 to GPU7"),
    ],
)
def test_damaged(text: str, said: str) -> None:
    with pytest.raises(TopologyError, match=said):
        read_rocm(text)


@given(st.integers(0, len(output())), st.text(max_size=20))
def test_any_damage_is_told(at: int, junk: str) -> None:
    text = output()
    for damaged in (text[:at], text[:at] + junk + text[at + len(junk) :]):
        try:
            shape = read_rocm(damaged)
        except TopologyError as error:
            assert "\n" not in error.reason  # noqa: PT017 -- any error of that kind will do
        else:
            assert all(shape.links[i][j] == shape.links[j][i] for i in range(shape.gpus) for j in range(i))


def test_cut_anywhere() -> None:
    whole = read_rocm(output())
    for end in range(len(output())):
        try:
            read = read_rocm(output()[:end])
        except TopologyError:
            continue
        assert read.links == whole.links
        assert all(node in (None, right) for node, right in zip(read.numa, whole.numa, strict=True))


def test_a_line_missing_anywhere() -> None:
    lines = output().split("\n")
    for gone in range(len(lines)):
        try:
            read = read_rocm("\n".join(lines[:gone] + lines[gone + 1 :]))
        except TopologyError:
            continue
        assert read.links == read_rocm(output()).links


def test_terminals_and_line_ends() -> None:
    text = output().replace("GPU0", "\x1b[1mGPU0\x1b[0m").replace("\n", "\r\n")
    assert read_rocm("WARNING: AMD GPU device(s) is/are in a low-power state.\n" + text) == read_rocm(output())
