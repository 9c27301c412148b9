from pathlib import Path

import pytest

from coloc_topology.shape import quads
from coloc_topology.slurm_conf import gpu_types
from colocd.config import TopologyConfig, TopologySource
from colocd.errors import BadConfig
from colocd.shapes import load_shapes

DATA = Path(__file__).parent / "data"
NEBIUS = str(DATA / "gres/nebius_h100_gres.conf")
CUBE = str(DATA / "nvidia-smi/sxm2_8xV100_32GB_1nic.txt")
FLAT = str(DATA / "nvidia-smi/hgx_a100_8xA100_4nic.txt")


def quad_lines(nodes: str, kind: str = "h100", links: str = "4") -> str:
    return "".join(
        f"NodeName={nodes} Name=gpu Type={kind} File=/dev/nvidia{i} Cores={'0-7' if i < 4 else '8-15'} Links="
        + ",".join("-1" if i == j else links if i // 4 == j // 4 else "0" for j in range(8))
        + "\n"
        for i in range(8)
    )


def test_sources_come_first_and_equal_matrices_share(tmp_path: Path) -> None:
    (tmp_path / "gres.conf").write_text(quad_lines("n[1-4]"))
    config = TopologyConfig(sources=(TopologySource(nodes="n[3-4]", file=CUBE),))
    nodes = [("n1", 8), ("n2", 8), ("n3", 8), ("n4", 8), ("login", 0)]
    loaded = load_shapes(config, nodes, str(tmp_path / "slurm.conf"))
    cube = "sxm2_8xV100_32GB_1nic"
    assert loaded.nodes == {"n1": "h100x8-2x4", "n2": "h100x8-2x4", "n3": cube, "n4": cube, "login": None}
    assert loaded.shapes["h100x8-2x4"].links == quads().links
    assert loaded.shapes["h100x8-2x4"].cores == quads().cores
    assert set(loaded.shapes) == {"h100x8-2x4", cube}
    assert loaded.problems == ()


def test_equal_matrices_keep_only_facts_they_share(tmp_path: Path) -> None:
    gres = tmp_path / "my.conf"
    gres.write_text(quad_lines("n1") + quad_lines("n2", "a100").replace("Cores=8-15", "Cores=16-23"))
    loaded = load_shapes(TopologyConfig(gres_conf=str(gres)), [("n1", 8), ("n2", 8)], None)
    assert loaded.nodes == {"n1": "h100x8-2x4", "n2": "h100x8-2x4"}
    assert loaded.shapes["h100x8-2x4"].cores == ("0-7",) * 4 + (None,) * 4


def test_one_name_for_two_matrices(tmp_path: Path) -> None:
    gres = tmp_path / "gres.conf"
    gres.write_text(quad_lines("n1") + quad_lines("n2", links="2"))
    loaded = load_shapes(TopologyConfig(gres_conf=str(gres)), [("n1", 8), ("n2", 8)], None)
    assert loaded.nodes == {"n1": "h100x8-2x4", "n2": "h100x8-2x4-2"}


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    (tmp_path / "gres.conf").write_text(
        "AutoDetect=nvml\n"
        "NodeName=c1 AutoDetect=off Name=gpu File=/dev/nvidia[0-3] Cores=0-7\n"
        "NodeName=c[2-3] AutoDetect=off Name=gpu File=/dev/nvidia[0-3]\n"
    )
    config = TopologyConfig(sources=(TopologySource(nodes="n[1-2],gone", file=FLAT),))
    nodes = [("n1", 8), ("n2", 4), ("c1", 4), ("c2", 4), ("c3", 4), ("a1", 8)]
    loaded = load_shapes(config, nodes, str(tmp_path / "slurm.conf"))
    assert loaded.nodes == {
        "n1": "hgx_a100_8xA100_4nic",
        "n2": None,
        "c1": "gpux4-1x4",
        "c2": None,
        "c3": None,
        "a1": None,
    }
    assert loaded.problems == (
        f"topology file {FLAT} is meant for gone, which Slurm does not have",
        (
            "topology of c1 is uncertain: gres.conf has no Links, so NVLinks are unknown and pairs count as NODE or SYS by "
            "their Cores"
        ),
        "topology of c[2-3] is unknown: gres.conf tells neither Links nor Cores of all its GPUs",
        (
            "topology of a1 is unknown: AutoDetect=nvml leaves order and links of the GPUs to slurmd, so gres.conf does not "
            "tell them"
        ),
        "topology of n2 is not used: its topology has 8 GPUs but Slurm knows 4",
    )


def test_no_gres_conf(tmp_path: Path) -> None:
    loaded = load_shapes(TopologyConfig(), [("n1", 8), ("n2", 8)], str(tmp_path / "slurm.conf"))
    assert loaded.shapes == {}
    assert loaded.nodes == {"n1": None, "n2": None}
    assert loaded.problems == (
        f"topology of n[1-2] is unknown: there is no {tmp_path}/gres.conf and no topology source names them",
    )
    assert load_shapes(TopologyConfig(), [("login", 0)], str(tmp_path / "slurm.conf")).problems == ()


def test_earlier_source_wins_and_pcie_matrix_is_said(tmp_path: Path) -> None:
    pcie = tmp_path / "pcie.txt"
    pcie.write_text("\tGPU0\tGPU1\nGPU0\tX\tSYS\nGPU1\tSYS\tX\nLegend:\n  X    = Self\n  PIX  = One bridge\n")
    sources = (TopologySource(nodes="n1", file=str(pcie)), TopologySource(nodes="n1", file=FLAT))
    loaded = load_shapes(TopologyConfig(sources=sources), [("n1", 2)], None)
    assert loaded.nodes == {"n1": "pcie"}
    assert loaded.problems == (
        f"topology file {pcie} shows no NVLinks: it comes from `topo -mp`, give `topo -m`",
        f"topology file {FLAT} is not used for n1: an earlier source names them",
    )


@pytest.mark.parametrize(
    ("nodes", "text", "error"),
    [
        (
            "n[1",
            "",
            "topology source 1: nodes is no host list: host list 'n[1', character 2: the bracket is not closed",
        ),
        ("n1", None, "{file}: No such file or directory"),
        ("n1", "\tGPU0\tGPU1\nGPU0\tX\tQPI\n", "{file}, line 2, column 8: 'QPI' is no link word, so the link between"),
        ("n1", "\udcff\udcfe", "{file}, this is no output of `nvidia-smi topo -m`"),
    ],
)
def test_bad_source(tmp_path: Path, nodes: str, text: str | None, error: str) -> None:
    file = tmp_path / "topo.txt"
    if text is not None:
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    config = TopologyConfig(sources=(TopologySource(nodes=nodes, file=str(file)),))
    with pytest.raises(BadConfig) as caught:
        load_shapes(config, [("n1", 8)], None)
    assert str(caught.value).startswith(error.format(file=file))


def test_bad_gres_conf(tmp_path: Path) -> None:
    gres = tmp_path / "gres.conf"
    with pytest.raises(BadConfig, match="No such file"):
        load_shapes(TopologyConfig(gres_conf=str(gres)), [("n1", 8)], None)
    gres.write_text("Name=gpu File=/dev/nvidia0 Links=-1,1\n")
    with pytest.raises(BadConfig) as caught:
        load_shapes(TopologyConfig(gres_conf=str(gres)), [("n1", 8)], None)
    assert str(caught.value) == f"{gres}, line 1, column 34: Links has 2 numbers for a node of 1 GPUs"


def test_types_order_the_indices(tmp_path: Path) -> None:
    gres = tmp_path / "gres.conf"
    gres.write_text(
        "Name=gpu Type=b File=/dev/nvidia[2-3] Cores=8-15\nName=gpu Type=a File=/dev/nvidia[0-1] Cores=0-7\n"
    )
    slurm = tmp_path / "slurm.conf"
    loaded = load_shapes(TopologyConfig(), [("n1", 4)], str(slurm))
    assert loaded.shapes["gpux4-2x2"].cores == ("8-15", "8-15", "0-7", "0-7")
    assert "topology of n1 is uncertain: slurm.conf does not tell the order of its GPU types" in loaded.problems
    slurm.write_text("include nodes.conf\nNodeName=n[1-2] Gres=gpu:a:2(S:0),gpu:b:2(S:1)\n")
    loaded = load_shapes(TopologyConfig(), [("n1", 4)], str(slurm))
    assert loaded.shapes["gpux4-2x2"].cores == ("0-7", "0-7", "8-15", "8-15")
    assert len(loaded.problems) == 1


def test_types_in_slurm_conf() -> None:
    text = 'NodeName=DEFAULT Gres=gpu:8\nNodeName=n1\nNodeName=n2 Gres=shard:4,gpu:h100:4(IDX:0,1),gpu\nNodeName=n3 Gres=""\n'
    assert gpu_types(text) == {"n1": ("",), "n2": ("h100", ""), "n3": ()}
