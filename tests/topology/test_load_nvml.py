"""NVML dumps as topology sources, and what joins nodes."""

from pathlib import Path

import msgspec
import pytest

from coloc_topology.nvml_facts import Fabric, NvLink, NvmlFacts, NvmlGpu, NvmlPair, encode_facts
from coloc_topology.source import decode, kind_of, read_source
from colocd.config import TopologyConfig, TopologySource
from colocd.errors import BadConfig
from colocd.network import NodeDomains
from colocd.shapes import LoadedShapes, load_shapes

SMI = Path(__file__).parent / "data/nvidia-smi"
FABRIC = Fabric(state="completed", cluster="c1", clique=7)
LINKS = tuple(NvLink(link=i, active=True, remote="switch") for i in range(18))
GPUS = tuple(
    NvmlGpu(index=i, minor=i, bus_id=f"0000:0{i + 1}:00.0", numa=(i // 2,), fabric=FABRIC, nvlinks=LINKS)
    for i in range(4)
)
DUMP = NvmlFacts(host="gb1", gpus=GPUS, pairs=tuple(NvmlPair(a=i, b=j) for j in range(4) for i in range(j)))


def load(tmp_path: Path, facts: NvmlFacts, nodes: str, show_topo: str | None = None) -> LoadedShapes:
    (tmp_path / "gb200.json").write_text(encode_facts(facts))
    config = TopologyConfig(sources=(TopologySource(nodes=nodes, file=str(tmp_path / "gb200.json")),))
    return load_shapes(config, [("gb1", 4), ("gb2", 4)], str(tmp_path / "slurm.conf"), show_topo)


def test_a_dump_is_a_source(tmp_path: Path) -> None:
    loaded = load(tmp_path, DUMP, "gb[1-2]")
    assert loaded.nodes == {"gb1": "gb200", "gb2": "gb200"}
    assert loaded.shapes["gb200"].links[0] == ("X", "NV18", "NV18", "NV18")
    assert loaded.problems == ()
    # the other node is of the same type, but nobody has said in which NVLink domain it is
    assert loaded.domains == {"gb1": NodeDomains(nvlink="c1.7")}


def test_order_of_the_dump(tmp_path: Path) -> None:
    loaded = load(tmp_path, msgspec.structs.replace(DUMP, order=(2, 3, 0, 1)), "gb[1-2]")
    assert loaded.shapes["gb200"].numa == (1, 1, 0, 0)
    swapped = tuple(msgspec.structs.replace(gpu, minor=3 - gpu.index) for gpu in GPUS)
    told = load(tmp_path, msgspec.structs.replace(DUMP, gpus=swapped), "gb[1-2]").problems
    expected = (
        f"topology file {tmp_path}/gb200.json: its minor numbers do not follow the PCI order; `coloc topo import` compares "
        "it with gres.conf"
    )
    assert told == (expected,)


def test_a_bad_dump_names_its_file(tmp_path: Path) -> None:
    lost = msgspec.structs.replace(DUMP, gpus=(msgspec.structs.replace(GPUS[0], lost="GPU is lost"), *GPUS[1:]))
    with pytest.raises(BadConfig, match=r"gb200\.json, GPU 0 of the NVML dump could not be read"):
        load(tmp_path, lost, "gb[1-2]")


def test_leaf_switches_and_blocks(tmp_path: Path) -> None:
    tree = "SwitchName=leaf1 Nodes=gb[1-2]\nSwitchName=spine Switches=leaf1\n"
    assert load(tmp_path, DUMP, "gb1", tree).domains["gb2"] == NodeDomains(leaf="leaf1")
    (tmp_path / "topology.conf").write_text("BlockName=b1 Nodes=gb1\nBlockName=b2 Nodes=gb2\nBlockSizes=1,2\n")
    loaded = load(tmp_path, DUMP, "gb1", tree)
    assert loaded.domains == {"gb1": NodeDomains(nvlink="c1.7", block="b1"), "gb2": NodeDomains(block="b2")}
    (tmp_path / "topology.yaml").write_text(
        "- topology: one\n  cluster_default: true\n  tree:\n    switches:\n      - switch: l9\n        nodes: gb[1-2]\n"
    )
    assert load(tmp_path, DUMP, "gb1").domains["gb2"] == NodeDomains(leaf="l9")
    (tmp_path / "topology.yaml").write_text("- topology: one\n  ring:\n    x: 1\n")
    loaded = load(tmp_path, DUMP, "gb1")
    assert loaded.problems[-1].startswith("switches and blocks are unknown: topology.yaml, line 1")
    assert set(loaded.domains) == {"gb1"}


def test_files_of_powershell(tmp_path: Path) -> None:
    file = tmp_path / "smi.txt"
    file.write_bytes((SMI / "hgx_a100_8xA100_4nic.txt").read_text().encode("utf-16"))
    config = TopologyConfig(sources=(TopologySource(nodes="n1", file=str(file)),))
    assert load_shapes(config, [("n1", 8)], str(tmp_path / "slurm.conf")).shapes["smi"].links[0][1] == "NV12"
    assert decode(b"\xff\xfe\x00") == "\ufffd"


def test_kinds_of_files() -> None:
    assert {kind_of(file.read_text()) for file in SMI.iterdir()} == {"nvidia-smi"}
    assert {kind_of(file.read_text()) for file in (SMI.parent / "gres").glob("*.conf")} == {"gres.conf"}
    assert (kind_of(encode_facts(DUMP)), kind_of(""), kind_of("\x00")) == ("nvml", "nvidia-smi", "nvidia-smi")
    read = read_source((SMI / "hgx_a100_8xA100_4nic.txt").read_text(), "x")
    assert (read.kind, read.shape.gpus, len(read.nics)) == ("nvidia-smi", 8, 4)
