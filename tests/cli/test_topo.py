"""`coloc topo show` and `import`: golden pictures, live nodes, hostile files."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.api.fake_backend import AT, FakeBackend
from tests.cli.conftest import Coloc
from tests.helpers.views import service

from coloc_cli.topo_picture import picture
from coloc_topology.shape import quads
from coloc_topology.source import read_source
from colocd.config import TopologyConfig, TopologySource
from colocd.core.view import Job, JobState, Node, Replica, ReplicaState, ServiceView, View, encode_view
from colocd.shapes import load_shapes

DATA = Path(__file__).parents[1] / "topology" / "data"
GOLDEN = Path(__file__).parent / "golden"


def golden(name: str, text: str) -> None:
    """Compare with a file of the folder `golden`; the failure shows the text that would have to stand there."""
    assert text == (GOLDEN / name).read_text(), text
    assert max(len(line) for line in text.splitlines()) <= 80


def view() -> View:
    one = Node(name="n1", address="127.0.0.1", up=True, gpus=8, used=0b10111111, shape="quads", state="MIXED")
    two = Node(name="n2", address="127.0.0.1", up=True, gpus=8, used=0, shape="quads", state="IDLE")
    down = Node(name="n3", address="127.0.0.1", up=False, gpus=8, used=0, shape="quads", state="DOWN*")
    strange = Node(name="n4", address="127.0.0.1", up=True, gpus=2, used=None)
    cpu = Node(name="login", address="127.0.0.1", up=True, gpus=0, used=0)

    def job(ref: str, name: str, gpus: int) -> Job:
        return Job(ref=ref, user="ann", name=name, partition="batch", state=JobState.RUNNING, gpus={"n1": gpus})

    jobs = (job("101", "coloc-chat-0", 0b1111), job("117", "train\x1b[2J-7b", 0b100000), job("118_3", "sweep", 0b10000))
    chat = ServiceView(
        spec=service(), replicas=(Replica(service="chat", slot=0, state=ReplicaState.READY, job="101", node="n1"),)
    )
    nodes = (one, two, down, strange, cpu)
    return View(at=AT, shapes={"quads": quads()}, nodes=nodes, jobs=jobs, services=(chat,))


@pytest.mark.parametrize(
    "file",
    [
        "nvidia-smi/dgx1_8xV100_hybrid_cube_mesh.txt",
        "nvidia-smi/polaris_4xA100_nv4_reversed_numa.txt",
        "nvidia-smi/pcie_4xL40S_2nic_spaces.txt",
        "nvidia-smi/dgx_a100_8xA100_12mlx5_nps4.txt",
        "nvml/bridges.json",
        "nvml/gb200.json",
        "nvml/one.json",
        "gres/aws_p5en_h200_gres.conf",
    ],
)
def test_pictures_of_files(coloc: Coloc, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DATA)
    said = coloc("topo", "show", file)
    assert (said.code, said.err) == (0, "")
    golden(f"topo-{Path(file).stem}.txt", said.out)


def test_sixteen_gpus_fit_into_eighty_columns(coloc: Coloc, tmp_path: Path) -> None:
    words = [["X" if i == j else "NV18" if i // 8 == j // 8 else "NODE" for j in range(16)] for i in range(16)]
    head = "\t".join(["", *(f"GPU{i}" for i in range(16))])
    rows = ["\t".join([f"GPU{i}", *row]) for i, row in enumerate(words)]
    file = tmp_path / "x.txt"
    file.write_text("\n".join([head, *rows]) + "\n")
    out = coloc("topo", "show", str(file)).out.splitlines()[1:]
    assert max(map(len, out)) <= 80
    assert "  NVLINK           [---------------------------]   [---------------------------]" in out
    assert any(line.split()[2:5] == ["X", "N18", "N18"] for line in out)


def test_live_nodes(coloc: Coloc, daemon: object, backend: FakeBackend) -> None:
    backend.view = lambda: encode_view(view())  # type: ignore[method-assign]
    golden("topo-nodes.txt", coloc("topo", "show").out)
    golden("topo-live.txt", coloc("topo", "show", "n[1-4]").out)
    told = coloc("topo", "show", "n1", "--json").json
    assert [(job["ref"], job["gpus"]) for job in told[0]["jobs"]] == [
        ("101", [0, 1, 2, 3]),
        ("118_3", [4]),
        ("117", [5]),
    ]
    assert (told[0]["free"], told[0]["unknown"]) == ([6], [7])
    assert told[0]["islands"] == {"NVLINK": [[0, 1, 2, 3], [4, 5, 6, 7]], "SYS": [list(range(8))]}
    assert [entry["node"] for entry in coloc("topo", "show", "--json").json] == ["n1", "n2", "n3", "n4"]
    said = coloc("topo", "show", "n9")
    assert (said.code, "Slurm has no node 'n9'" in said.err) == (66, True)
    assert coloc("topo", "show", "n[1").code == 64


def test_domains_above_the_node(coloc: Coloc, daemon: object, backend: FakeBackend) -> None:
    def seat(ref: str, **gpus: int) -> Job:
        return Job(ref=ref, user="ann", name=ref, partition="batch", state=JobState.RUNNING, gpus=gpus)

    def node(number: int, used: int, **where: str) -> Node:
        facts = {"address": "", "up": True, "gpus": 8, "shape": "quads", "state": "MIXED"}
        return Node(name=f"n{number}", used=used, **facts, **where)  # type: ignore[arg-type]

    wide = ServiceView(
        spec=service("wide", nodes=2),
        replicas=(Replica(service="wide", slot=0, state=ReplicaState.READY, job="7", node="n3"),),
    )
    nodes = (node(1, 0b11, block="b1", leaf="x"), node(2, 0, block="b1", leaf="x"),
             node(3, 0xF, block="b1", leaf="y", nvlink_domain="d"), node(4, 0xF, block="b1", leaf="y", nvlink_domain="d"),
             node(5, 0))  # fmt: skip
    jobs = (seat("6", n1=0b11), seat("7", n3=0xF, n4=0xF))
    found = View(at=AT, shapes={"quads": quads()}, nodes=nodes, jobs=jobs, services=(wide,))
    backend.view = lambda: encode_view(found)  # type: ignore[method-assign]
    out = coloc("topo", "show").out
    assert out.endswith("""
block b1: 4 nodes, 22 of 32 GPUs free
  leaf x: 2 nodes, 14 of 16 GPUs free
    n1  bb......
    n2  ........
  leaf y: 2 nodes, 8 of 16 GPUs free
    NVLink domain d: 2 nodes, 8 of 16 GPUs free
      n[3-4]  SSSS....  wide/0
in no known block: 1 node, 8 of 8 GPUs free
  n5  ........
"""), out
    assert (
        "  in             NVLink domain d (n[3-4]), leaf y (n[3-4]), block b1 (n[1-4])"
        in coloc("topo", "show", "n3").out
    )
    told = coloc("topo", "show", "--json").json
    assert [(n["block"], n["leaf"], n["nvlink_domain"]) for n in (told[0], told[3], told[4])] == [
        ("b1", "x", None),
        ("b1", "y", "d"),
        (None, None, None),
    ]


def test_files_need_no_daemon_but_nodes_do(coloc: Coloc) -> None:
    assert coloc("topo", "show", str(DATA / "nvml/one.json"), "--json").json[0]["host"] == "gpu1"
    assert coloc("topo", "show", "n1").code == 72


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"format": "coloc-nvml"}', "\x00\xff\ud800", "GPU0\tGPU1\nGPU0\tX\n", "NodeName=n[1\n",
     "Name=gpu File=/dev/nvidia0 Links=5", "SwitchName=a\n", "BlockSizes=x", "- topology: [", "- topology: a\n  ring: b\n",
     "[" * 100_000, '{"gpus": ' + "[" * 100_000],
)  # fmt: skip
def test_hostile_files(coloc: Coloc, tmp_path: Path, text: str) -> None:
    file = tmp_path / "x"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    for argv in (
        ("show", str(file)),
        ("import", str(file), "--nodes", "n1"),
        ("check", "--gres-conf", str(file), "--offline"),
    ):
        said = coloc("topo", *argv)
        assert "Traceback" not in said.err
        assert "unexpected" not in said.err
        if argv[0] != "check":
            assert (said.code, said.out, str(file) in said.err) == (65, "", True)
    check = ("topo", "check", "--offline", "--gres-conf", str(DATA / "gres/nebius_h100_gres.conf"))
    assert coloc(*check, "--nvml", f"n1={file}").code == 65


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(sorted((DATA / "nvml").iterdir())), st.data())
def test_damaged_files(coloc: Coloc, tmp_path: Path, junk: bytes, file: Path, data: st.DataObject) -> None:
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    damaged = tmp_path / "damaged.json"
    damaged.write_bytes(whole[:at] + junk + whole[at + len(junk) :])
    said = coloc("topo", "show", str(damaged))
    assert said.code in (0, 65)
    assert "\x1b" not in said.out


def test_a_server_that_is_too_large_is_imported_and_told(coloc: Coloc, tmp_path: Path) -> None:
    rows = [[f"GPU{i}", *("X" if i == j else "SYS" for j in range(17))] for i in range(17)]
    table = [["", *(row[0] for row in rows), "CPU Affinity"], *rows]
    (tmp_path / "big").write_text("".join("\t".join(row) + "\n" for row in table))
    said = coloc("topo", "import", str(tmp_path / "big"), "--nodes", "n1", "--order", ",".join(map(str, range(17))))
    assert (said.code, "colocd does not use it: 17 GPUs, and at most 16" in said.err) == (0, True)


def test_what_joins_nodes(coloc: Coloc, tmp_path: Path) -> None:
    """topology.conf, topology.yaml, and what `scontrol show topology` prints."""
    shown = tmp_path / "shown"
    shown.write_text(
        "SwitchName=s1 Level=0 LinkSpeed=1 Nodes=n[1-2]\nSwitchName=top Level=1 Nodes=n[1-3] Switches=s1\n"
    )
    said = coloc("topo", "show", str(shown))
    assert said.code == 0
    assert said.out.splitlines()[-2:] == ["  switch top   3 nodes: n[1-3]", "    switch s1  2 nodes: n[1-2]"]
    yaml = tmp_path / "topology.yaml"
    yaml.write_text(
        "- topology: racks\n  block:\n    blocks:\n    - block: b1\n      nodes: n1\n- topology: none\n  flat: true\n"
    )
    assert coloc("topo", "show", str(yaml)).out.splitlines()[-3:] == [
        "  topology racks",
        "  block b1  1 node: n1",
        "  topology none: flat, no switches and no blocks",
    ]
    found = coloc("topo", "show", str(yaml), "--json").json[0]
    assert found["topologies"][0]["domains"] == [{"kind": "block", "name": "b1", "level": 0, "nodes": ["n1"]}]
    assert found["topologies"][1] == {"name": "none", "domains": []}
    gres = ("--gres-conf", str(DATA / "gres/nebius_h100_gres.conf"))
    for said in (
        coloc("topo", "import", str(yaml), "--nodes", "n1"),
        coloc("topo", "check", "--offline", "--nvml", f"n1={yaml}", *gres),
    ):
        assert (said.code, "tells of switches and blocks" in said.err) == (65, True)
    shown.write_text("SwitchName=s1 Nodes=n[1-2]\nSwitchName=top Switches=s9\n")
    said = coloc("topo", "show", str(shown))
    assert (said.code, "line 2, column 12: switch top joins s9" in said.err) == (65, True)


def test_missing_and_unreadable_files(coloc: Coloc, tmp_path: Path) -> None:
    assert coloc("topo", "show", str(tmp_path / "none")).code == 65
    assert coloc("topo", "show", f"{tmp_path}/").code == 65
    assert "--gres-conf" in coloc("topo", "check", "--offline", "--gres-conf", str(tmp_path / "none")).err
    assert coloc("topo", "import", "none", "--nodes", "n[").code == 64
    assert coloc("topo", "import", str(DATA / "nvml/one.json")).code == 64


def sources(path: Path, nodes: str, gpus: int) -> object:
    config = TopologyConfig(sources=(TopologySource(nodes=nodes, file=str(path)),))
    loaded = load_shapes(config, [("n1", gpus)], str(path.with_name("slurm.conf")))
    assert loaded.problems == ()
    return loaded.shapes[loaded.nodes["n1"] or ""]


@pytest.mark.parametrize("file", ["nvml/dgx1.json", "nvidia-smi/dgx1_8xV100_hybrid_cube_mesh.txt"])
def test_import(coloc: Coloc, tmp_path: Path, file: str) -> None:
    out = tmp_path / "dgx1.topo"
    said = coloc("topo", "import", str(DATA / file), "--nodes", "n1", "--out", str(out), "--order", "4,5,6,7,0,1,2,3")
    assert (said.code, said.out) == (0, f'[[topology.sources]]\nnodes = "n1"\nfile = "{out}"\n')
    shape = sources(out, "n1", 8)
    original = read_source((DATA / file).read_text(), "dgx1").shape
    order = (4, 5, 6, 7, 0, 1, 2, 3)
    assert shape.links == tuple(tuple(original.links[i][j] for j in order) for i in order)  # type: ignore[attr-defined]
    assert shape.cores == tuple(original.cores[i] for i in order)  # type: ignore[attr-defined]
    if file.endswith("txt"):
        before, after = (read_source(path.read_text(), "x").nics for path in (DATA / file, out))
        assert [nic.device for nic in after] == [nic.device for nic in before]
        assert [nic.links for nic in after] == [tuple(nic.links[i] for i in order) for nic in before]
    for order_word in ("0,1", "0,1,2,3,4,5,6,6", "x", ""):
        assert coloc("topo", "import", str(DATA / file), "--nodes", "n1", "--order", order_word).code == 64


def test_import_takes_the_order_of_gres_conf(coloc: Coloc, tmp_path: Path) -> None:
    gres = tmp_path / "gres.conf"
    gres.write_text("NodeName=n1 Name=gpu File=/dev/nvidia[0-7]\n")
    argv = ("topo", "import", str(DATA / "nvml/quads_swapped.json"), "--nodes", "n1", "--gres-conf", str(gres))
    said = coloc(*argv)
    assert (said.code, said.json["order"], said.json["host"]) == (0, [4, 5, 6, 7, 0, 1, 2, 3], "n1")
    out = tmp_path / "n1.json"
    out.write_text(said.out)
    assert sources(out, "n1", 8).numa == (1,) * 4 + (0,) * 4  # type: ignore[attr-defined]
    gres.write_text("AutoDetect=nvml\n")
    assert coloc(*argv).json["order"] == list(range(8))
    gres.write_text("NodeName=n1 Name=gpu File=/dev/nvidia[0-6],/dev/nvidia9\n")
    assert "no GPU with minor number 9" in coloc(*argv).err
    gres.write_text("NodeName=n1 Name=gpu File=/dev/nvidia[0-3]\n")
    assert (coloc(*argv).code, "lists 4 GPUs for n1" in coloc(*argv).err) == (65, True)
    gres.write_text("NodeName=n1 Name=gpu File=/dev/nvidia[4-7]\nNodeName=n1 Name=gpu File=/dev/nvidia[0-3]\n")
    assert coloc(*argv).json["order"] == list(range(8))
    smi = ("topo", "import", str(DATA / "nvidia-smi/hgx_a100_8xA100_4nic.txt"), *argv[3:])
    assert (coloc(*smi).code, "does not explain" in coloc(*smi).err) == (65, True)
    said = coloc(*argv[:5])
    assert (said.code, "PCI order is assumed" in said.err) == (0, True)
    assert coloc("topo", "import", str(gres), "--nodes", "n1").code == 65


def test_an_nvlink_domain_is_one_nodes(coloc: Coloc) -> None:
    said = coloc("topo", "import", str(DATA / "nvml/gb200.json"), "--nodes", "gb[1-2]")
    assert "import one dump for each node" in said.err
    assert json.loads(said.out)["host"] == "gpu1"


def test_import_never_writes_half_a_file(coloc: Coloc, tmp_path: Path) -> None:
    argv = ("topo", "import", str(DATA / "nvml/one.json"), "--nodes", "n1", "--out")
    for out in (str(tmp_path / "none" / "x"), str(tmp_path)):
        assert (coloc(*argv, out).code, "cannot be written" in coloc(*argv, out).err) == (65, True)
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_more_than_sixteen_gpus_are_not_drawn() -> None:
    from coloc_topology.shape import Shape

    big = Shape("big", tuple(tuple("X" if i == j else "SYS" for j in range(17)) for i in range(17)))
    assert re.search("at most 16", picture(big)[0])
