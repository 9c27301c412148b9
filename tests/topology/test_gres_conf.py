from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coloc_topology.errors import TopologyError
from coloc_topology.fit import fit_table
from coloc_topology.gres_conf import read_gres_conf
from coloc_topology.gres_write import write_gres_conf
from coloc_topology.shape import Level, Shape, quads

DATA = Path(__file__).parent / "data" / "gres"


def sample(name: str) -> str:
    return (DATA / name).read_text(encoding="utf-8")


def test_nebius() -> None:
    gres = read_gres_conf(sample("nebius_h100_gres.conf")).node("any")
    assert [gpu.file for gpu in gres.gpus] == [f"/dev/nvidia{n}" for n in (4, 5, 6, 7, 0, 1, 2, 3)]
    assert [gpu.index for gpu in gres.gpus] == list(range(8))
    assert gres.gpus[0].flags == ("nvidia_gpu_env",)
    assert gres.autodetect == "off"
    assert gres.note is None
    assert gres.shape is not None
    assert gres.shape.links[0] == ("X",) + ("NV1",) * 7
    assert gres.shape.cores == ("0-31",) * 4 + ("32-63",) * 4
    assert gres.shape.numa == (None,) * 8


def test_cores_alone() -> None:
    gres = read_gres_conf(sample("aws_p5en_h200_gres.conf")).node("any")
    assert gres.shape is not None
    assert fit_table(gres.shape).islands(Level.NODE) == (0xF, 0xF0)
    assert gres.shape.links[0][4] == "SYS"
    assert gres.note is not None
    assert "no Links" in gres.note


def test_shards_are_no_gpus() -> None:
    gres = read_gres_conf(sample("a100_shard_gres.conf")).node("any")
    assert [(gpu.type, gpu.file) for gpu in gres.gpus] == [("A100", f"/dev/nvidia{n}") for n in range(4)]
    assert gres.shape is None
    assert gres.note == "gres.conf tells neither Links nor Cores of all its GPUs"


@pytest.mark.parametrize("name", ["errors_seen.txt", "slurmd_G_output_l4.txt"])
def test_messages_are_no_gres_conf(name: str) -> None:
    with pytest.raises(TopologyError, match=r"^line 1, column 1: .* is not of the form Key=Value$"):
        read_gres_conf(sample(name))


def test_nodes_continuation_case_and_comments() -> None:
    conf = read_gres_conf(
        "# all\nautodetect=NVML\n"
        "nodename=n[1-2] AUTODETECT=Off NAME=gpu type=a100 \\  \n  file=/dev/nvidia[0-1] cores=0-3,4-7 # two \\\n"
        'NodeName=n[1-2] name=GPU Type="a100" File=/dev/nvidia3 CORES=0-7\n'
        "NodeName=n3 AutoDetect=off Name=gpu Count=4\n"
    )
    gres = conf.node("n2")
    assert [gpu.line for gpu in gres.gpus] == [3, 3, 5]
    assert gres.shape is not None
    assert gres.shape.links[2] == ("NODE", "NODE", "X")
    assert len(conf.node("n3").gpus) == 4
    assert conf.node("n3").gpus[3].file is None
    other = conf.node("n9")
    assert (other.gpus, other.shape, other.autodetect) == ((), None, "nvml")
    assert other.note is not None
    assert "AutoDetect=nvml" in other.note


def test_order_of_types_is_slurms() -> None:
    # slurmd -G of 22.05.8 with Gres=gpu:a:2,gpu:b:2 lists a's devices first, each type in order of appearance.
    text = "".join(
        f"Name=gpu Type={kind} File=/dev/nvidia{n}\n" for kind, n in (("b", 3), ("b", 2), ("a", 0), ("a", 1))
    )
    gpus = read_gres_conf(text).node("n", types=("a", "b")).gpus
    assert [(gpu.index, gpu.file) for gpu in gpus] == [
        (0, "/dev/nvidia0"), (1, "/dev/nvidia1"), (2, "/dev/nvidia3"), (3, "/dev/nvidia2")
    ]  # fmt: skip


def test_lines_for_all_nodes_come_first() -> None:
    """As `slurmd -G` of 22.05.8 orders them, also when a line with NodeName stands above."""
    text = "NodeName=n1 Name=gpu File=/dev/nvidia5 Cores=0\nName=gpu File=/dev/nvidia[0,2] Cores=1\n"
    conf = read_gres_conf(text)
    assert [gpu.file for gpu in conf.node("n1").gpus] == ["/dev/nvidia0", "/dev/nvidia2", "/dev/nvidia5"]
    assert [gpu.index for gpu in conf.gpus("n1")] == [0, 1, 2]
    assert [gpu.file for gpu in conf.node("n2").gpus] == ["/dev/nvidia0", "/dev/nvidia2"]


def test_the_other_names_of_the_keys() -> None:
    text = "Name=gpu Files=/dev/nvidia0 CPUs=0-7 Link=-1,2\nName=gpu Files=/dev/nvidia1 CPUs=0-7 Link=2,-1\n"
    node = read_gres_conf(text).node("n1")
    assert [(gpu.file, gpu.cores) for gpu in node.gpus] == [("/dev/nvidia0", "0-7"), ("/dev/nvidia1", "0-7")]
    assert node.shape is not None
    assert node.shape.links == (("X", "NV2"), ("NV2", "X"))
    assert len(read_gres_conf("Name=gpu Files=/dev/nvidia[0-7] Cores=0-7\n").node("n1").gpus) == 8


def test_types_in_any_case() -> None:
    text = "Name=gpu Type=b File=/dev/nvidia0 Cores=0\nName=gpu Type=a File=/dev/nvidia1 Cores=0\n"
    assert [gpu.type for gpu in read_gres_conf(text).node("n1", ("A", "B")).gpus] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("AutoDetect=nvml\nName=gpu AutoDetect=off File=/dev/nvidia[0-3] Cores=0-7\n", "nvml"),
        ("AutoDetect=off\nName=gpu File=/dev/nvidia[0-3] Cores=0-7 AutoDetect=nvml\n", "off"),
        ("AutoDetect=nvml\nNodeName=n1 Name=gpu AutoDetect=off File=/dev/nvidia[0-3] Cores=0-7\n", "off"),
        ("AutoDetect=off Name=gpu File=/dev/nvidia[0-3] Cores=0-7\n", "off"),
        ("Name=gpu AutoDetect=nvml File=/dev/nvidia[0-3] Cores=0-7\n", None),
        ("NodeName=n1 AutoDetect=nvml\nAutoDetect=off\nName=gpu File=/dev/nvidia[0-3] Cores=0-7\n", "nvml"),
    ],
)
def test_which_autodetect_counts(text: str, counts: str | None) -> None:
    """As `slurmd -G` of 22.05.8 shows: behind Name= without NodeName= it has no effect."""
    node = read_gres_conf(text).node("n1")
    assert node.autodetect == counts
    assert (node.shape is None) == (counts == "nvml")


def test_zero_links_say_nothing() -> None:
    text = "Name=gpu File=/dev/nvidia0 Cores=0-7 Links=-1,0\nName=gpu File=/dev/nvidia1 Cores=0-7 Links=0,-1\n"
    gres = read_gres_conf(text).node("n")
    assert gres.shape is not None
    assert gres.shape.links == (("X", "NODE"), ("NODE", "X"))
    assert gres.note is not None
    assert "only zeros in Links" in gres.note
    assert read_gres_conf(text.replace("Cores=0-7", "")).node("n").shape is None


def test_links_without_cores() -> None:
    text = "".join(
        f"Name=gpu File=/dev/nvidia{i} Links={links}\n"
        for i, links in enumerate(("-1,4,0,0", "4,-1,0,0", "0,0,-1,4", "0,0,4,-1"))
    )
    shape = read_gres_conf(text).node("n").shape
    assert shape is not None
    assert shape.links[0] == ("X", "NV4", "SYS", "SYS")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("Name=gpu File=/dev/nvidia[0-1", "line 1, column 26: host list '/dev/nvidia[0-1': the bracket is not closed"),
        ("\nName=gpu Count=x", "line 2, column 16: Count=x is no number of GPUs"),
        ("Name=gpu Count=0", "line 1, column 16: Count=0 is no number of GPUs"),
        ("Name=gpu Count=3 File=/dev/nvidia[0-1]", "line 1, column 16: Count is 3 but File names 2 devices"),
        ("Name=gpu \\\nCores=a-b", "line 2, column 7: Cores=a-b is not a list of cores"),
        ("Name=gpu Links=1,1", "line 1, column 16: Links=1,1 needs exactly one -1"),
        ("Name=gpu Links=x", "line 1, column 16: Links=x is not a list of numbers"),
        ("Name=gpu Links=-1,1 File=/dev/n[0-1]", "line 1, column 16: one Links list for 2 devices"),
        ("NodeName=n[2-1] Name=gpu", "line 1, column 12: host list 'n[2-1]': the range 2-1 runs backwards"),
        ("Name=gpu File", "line 1, column 10: 'File' is not of the form Key=Value"),
        ("Include gres.d/a.conf", "line 1, column 1: Include is not followed here"),
    ],
)
def test_refused(text: str, error: str) -> None:
    with pytest.raises(TopologyError) as caught:
        read_gres_conf(text)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (("-1,1,1", "1,-1,1"), "line 1, column 34: Links has 3 numbers for a node of 2 GPUs"),
        (("1,-1", "-1,1"), "line 1, column 34: Links puts this GPU at index 1, but it is number 0 of its node"),
        (("-1,1", "2,-1"), "line 2, column 34: Links says 2 to GPU 0, but line 1 says otherwise"),
    ],
)
def test_contradictions(lines: tuple[str, ...], error: str) -> None:
    conf = read_gres_conf("".join(f"Name=gpu File=/dev/nvidia{i} Links={links}\n" for i, links in enumerate(lines)))
    with pytest.raises(TopologyError) as caught:
        conf.node("n")
    assert str(caught.value) == error


def test_written_lines_are_read_back() -> None:
    shape = quads()
    text = write_gres_conf(["n2", "n1"], shape, [f"/dev/nvidia{i}" for i in range(8)], ["h100"] * 8)
    assert text.splitlines()[4] == (
        "NodeName=n[1-2] AutoDetect=off Name=gpu Type=h100 File=/dev/nvidia4 Cores=8-15 Links=0,0,0,0,-1,4,4,4"
    )
    gres = read_gres_conf(text).node("n1")
    assert gres.shape is not None
    assert (gres.shape.links, gres.shape.cores) == (shape.links, shape.cores)
    assert {gpu.type for gpu in gres.gpus} == {"h100"}
    assert read_gres_conf(text).node("n3").gpus == ()


def test_writer_refuses() -> None:
    one = Shape("one", (("X",),))
    assert write_gres_conf(["n1"], one, ["/dev/nvidia0"]) == "NodeName=n1 AutoDetect=off Name=gpu File=/dev/nvidia0\n"
    for names, files, types in (
        ([], ["/dev/a"], []),
        (["n1"], [], []),
        (["n1"], ["/dev/a b"], []),
        (["n1"], ["/dev/a"], ["x\ny"]),
        (["n1"], ["/dev/a"], ["a", "b"]),
    ):
        with pytest.raises(TopologyError):
            write_gres_conf(names, one, files, types)


PIECES = st.sampled_from(
    ["Name=gpu", "NodeName=n[1-2]", "File=/dev/nvidia[0-1]", "Links=-1,1", "Links=1,-1", "Cores=0-3", "Count=2", " ",
     "\n", "\\\n", "#", '"', "=", "AutoDetect=off", "Type=a", "[", "Name=shard", "\u0661", "\t", "Include x"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=25).map("".join) | st.text(max_size=60))
def test_only_topology_errors_come_out(text: str) -> None:
    try:
        gres = read_gres_conf(text).node("n1")
    except TopologyError:
        return
    assert gres.shape is None or gres.shape.gpus == len(gres.gpus)


@given(st.data())
def test_cut_samples(data: st.DataObject) -> None:
    text = sample("nebius_h100_gres.conf")
    cut = text[: data.draw(st.integers(0, len(text)))]
    try:
        shape = read_gres_conf(cut).node("n").shape
    except TopologyError:
        return
    # One line, cut after its first link, is a whole file for a node with one GPU.
    assert shape is None or shape.gpus in (1, 8)
