"""gres.conf against the servers: every kind of mistake is found, and the corrected lines are right."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coloc_topology.check import Report, check
from coloc_topology.errors import TopologyError
from coloc_topology.gres_conf import read_gres_conf
from coloc_topology.slurm_nodes import SlurmNode, config_release, read_conf_nodes, read_scontrol_nodes
from coloc_topology.source import Source, read_source

DATA = Path(__file__).parent / "data"
OLD, NEW = (22, 5), (24, 11)
NODE = SlurmNode((("h100", 8),), 2, 8, 2)


def source(name: str) -> Source:
    return read_source((DATA / f"nvml/{name}.json").read_text(), name)


def quads(nodes: str = "n1", *, links: bool = True, cores: str = "0-7 8-15", files: str = "01234567") -> str:
    near = cores.split()
    return "".join(
        f"NodeName={nodes} Name=gpu Type=h100 File=/dev/nvidia{file}"
        + (f" Cores={near[i // 4]}" if near else "")
        + (" Links=" + ",".join("-1" if i == j else "40"[i // 4 != j // 4] for j in range(8)) if links else "")
        + "\n"
        for i, file in enumerate(files)
    )


def look(
    text: str, facts: str | None = "quads", release: tuple[int, int] | None = OLD, node: SlurmNode = NODE
) -> Report:
    complaints: list[TopologyError] = []
    conf = read_gres_conf(text, complaints)
    sources = {} if facts is None else {"n1": source(facts)}
    return check(conf, {"n1": node}, sources, release, complaints)


def codes(report: Report) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in report.findings]


def test_all_is_well() -> None:
    assert look(quads()) == Report((), ())
    assert look(quads(links=False), release=NEW) == Report((), ())
    assert not look(quads()).wrong


@pytest.mark.parametrize(
    ("text", "facts", "release", "want"),
    [
        (quads(), "quads", NEW, ("warning", "links-inverted", "Slurm 24.11 takes the worst-linked GPUs")),
        (quads(), None, NEW, ("warning", "links-inverted", "leave Links out")),
        (quads(), "quads", None, ("note", "release", "its release is not known")),
        (quads(links=False), "quads", OLD, ("warning", "links-missing", "lowest free indices")),
        (
            quads().replace("4,4,4,-1,0,0,0,0", "4,4,4,0,0,0,0,0"),
            "quads",
            OLD,
            ("error", "links-invalid", "line 4, column"),
        ),
        (quads().replace("4,4,4,-1,0", "4,4,4,0,-1"), "quads", OLD, ("error", "links-invalid", "at index 4")),
        (
            quads().replace("=4,4,4,-1,0", "=4,4,4,-1"),
            "quads",
            OLD,
            ("error", "links-invalid", "7 numbers for a node of 8"),
        ),
        (
            quads().replace(",4", ",3").replace("=4", "=3"),
            "quads",
            OLD,
            ("error", "links-wrong", "Links says 3 NVLinks between GPU 0 and 1"),
        ),
        (quads(), "hgx_h100", OLD, ("error", "links-wrong", "there are 18")),
        (quads(cores=""), "quads", OLD, ("warning", "cores-missing", "GPU 0-7 has no Cores")),
        (quads(cores="8-15 0-7"), "quads", OLD, ("warning", "cores-wrong", "Cores=8-15 of GPU 0 should be 0-7")),
        (quads(cores="0-15 0-15"), "quads", OLD, ("warning", "cores-wrong", "(and 7 more)")),
        (quads(cores="0-7 8-16"), "quads", OLD, ("error", "cores-range", "of GPU 4 is beyond the 16 cores")),
        (quads(), "quads_swapped", OLD, ("warning", "order", "/dev/nvidia0, which is number 4 in PCI order")),
        (quads(files="45670123"), "quads", OLD, ("warning", "order", "which is number 4 in PCI order")),
        (quads(files="01234568"), "quads", OLD, ("error", "file", "no GPU with minor number 8")),
        (quads(files="00234567"), "quads", OLD, ("error", "file-twice", "/dev/nvidia0 stands for 2")),
        (
            quads().replace("File=/dev/nvidia3 ", ""),
            "quads",
            OLD,
            ("error", "file-missing", "GPU 3 has no File, but others have"),
        ),
        (quads().replace("Type=h100", "", 1), "quads", OLD, ("error", "types", "GPU 7 has no Type, but others have")),
        (quads().replace("Type=h100", "Type=H100"), "quads", OLD, None),
        (quads().replace("Type=h100", "Type=a100"), "quads", OLD, ("error", "types", "type h100")),
        ("NodeName=n1 Name=gpu File=/dev/nvidia[0-3] Cores=0-7\n", None, OLD, ("error", "count", "lists 4 GPUs")),
        ("Name=gpu File=/dev/nvidia[0-7] Cores=0-7\n", "flat", OLD, ("error", "count", "the server has 4 GPUs")),
        ("NodeName=n2 Name=gpu File=/dev/nvidia0\n", None, OLD, ("error", "gpus-missing", "has none for it")),
        (quads() + quads("n2"), None, OLD, ("note", "node-unknown", "Slurm has no such node")),
        ("AutoDetect=nvml\n" + quads(), "quads", OLD, ("warning", "autodetect", "Links and Cores both describe it")),
        (
            quads() + "NodeName=n1 AutoDetect=nvml\nNodeName=n1 AutoDetect=off\n",
            "quads",
            OLD,
            ("error", "autodetect", "AutoDetect=nvml and AutoDetect=off; keep one"),
        ),
        ("AutoDetect=nvml\n", "quads", NEW, ("warning", "links-inverted", "AutoDetect=nvml gives Slurm unequal links")),
        ("AutoDetect=nvidia\n", "quads", OLD, None),
        ("AutoDetect=nvml\n", "hgx_h100", NEW, None),
    ],
)
def test_findings(text: str, facts: str | None, release: tuple[int, int], want: tuple[str, str, str] | None) -> None:
    report = look(text, facts, release)
    if want is None:
        assert report.findings == ()
        return
    severity, code, words = want
    found = [f for f in report.findings if f.code == code and words in f.text]
    assert found, report.findings
    assert (found[0].severity, report.wrong) == (severity, severity != "note" or report.wrong)
    assert all("\n" not in f.text and not f.text.endswith(".") for f in report.findings)


def test_nvswitch_links_may_be_zero_or_uniform() -> None:
    lines = "NodeName=n1 Name=gpu Type=h100 File=/dev/nvidia{} Cores={} Links={}\n"
    for number in (0, 1, 18):
        rows = [",".join("-1" if i == j else str(number) for j in range(8)) for i in range(8)]
        text = "".join(lines.format(i, "0-7" if i < 4 else "8-15", row) for i, row in enumerate(rows))
        for release in (OLD, NEW):
            assert look(text, "hgx_h100", release).findings == ()


def test_nodes_with_the_same_mistake_are_told_together() -> None:
    nodes = {f"n{i}": NODE for i in range(1, 5)}
    report = check(read_gres_conf(quads("n[1-3]") + quads("n4", links=False)), nodes, {}, NEW)
    assert [(f.code, f.nodes) for f in report.findings] == [("links-inverted", ("n1", "n2", "n3"))]
    assert [c.nodes for c in report.corrections] == [("n1", "n2", "n3")]
    assert report.corrections[0].lines.startswith(
        "NodeName=n[1-3] AutoDetect=off Name=gpu Type=h100 File=/dev/nvidia0 Cores=0-7\n"
    )


def test_types_keep_their_order_and_flags_stay() -> None:
    text = (
        "NodeName=n1 Name=gpu Type=b Flags=nvidia_gpu_env File=/dev/nvidia[0-3]\n"
        "NodeName=n1 Name=gpu Type=a Flags=nvidia_gpu_env File=/dev/nvidia[4-7]\n"
    )
    report = look(text, node=SlurmNode((("a", 4), ("b", 4)), 2, 8, 2))
    lines = report.corrections[0].lines.splitlines()
    assert [re.findall(r"Type=(\w) File=/dev/nvidia(\d) Cores=(\S+)", line)[0] for line in lines] == [
        *(("a", str(i), "8-15") for i in range(4, 8)),
        *(("b", str(i), "0-7") for i in range(4)),
    ]
    assert all(line.endswith("Flags=nvidia_gpu_env") for line in lines)
    assert "Links=-1,4,4,4,0,0,0,0" in lines[0]


def test_nvidia_smi_as_facts() -> None:
    text = (DATA / "nvidia-smi/dgx1_8xV100_hybrid_cube_mesh.txt").read_text()
    facts = {"n1": read_source(text, "dgx1")}
    node = {"n1": SlurmNode((("v100", 8),), 2, 20, 2)}
    lines = "NodeName=n1 Name=gpu Type=v100 File=/dev/nvidia{}\n"
    report = check(read_gres_conf(lines.format("[0-7]")), node, facts, OLD)
    assert codes(report) == [("warning", "cores-missing"), ("warning", "links-missing")]
    assert report.corrections[0].lines.splitlines()[7].endswith("Cores=20-39 Links=0,0,0,1,2,1,2,-1")
    report = check(read_gres_conf(lines.format("[4-7]") + lines.format("[0-3]")), node, facts, OLD)
    assert codes(report) == [("warning", "order-unknown")]
    assert report.corrections == ()


def test_what_slurm_says() -> None:
    assert config_release("Configuration data as of x\nSLURM_VERSION           = 24.11.5\n") == NEW
    assert config_release("nothing") is None
    shown = (
        "NodeName=n1 Arch=x86_64 CoresPerSocket=8 CPUAlloc=0 Gres=gpu:h100:6(S:0-1),gpu:2,shard:8 OS=Linux 6.1 Sockets=2 "
        "Boards=1 ThreadsPerCore=2\nNodeName=c1 Gres=(null)\n"
    )
    assert read_scontrol_nodes(shown) == {"n1": SlurmNode((("h100", 6), ("", 2)), 2, 8, 2), "c1": SlurmNode()}
    conf = "NodeName=DEFAULT Boards=2 SocketsPerBoard=1 CoresPerSocket=8\nNodeName=n[1-2] Gres=gpu:h100\nNodeName=c1 Sockets=x\n"
    assert read_conf_nodes(conf)["n2"] == SlurmNode((("h100", 1),), 2, 8, None)
    assert read_conf_nodes(conf)["c1"] == SlurmNode((), 2, 8, None)


SERVERS = ["quads", "quads_swapped", "dgx1", "bridges", "flat", "hgx_h100", "hgx_a100", "gb200", "one"]


@pytest.mark.parametrize("server", SERVERS)
@settings(max_examples=40)
@given(st.data())
def test_corrected_lines_are_right(server: str, data: st.DataObject) -> None:
    facts = source(server)
    count = facts.shape.gpus
    order = data.draw(st.permutations(range(count)))
    link = st.sampled_from(["", " Links=-1", " Links=0,1", f" Links={','.join(['4'] * count)}"])
    near = st.sampled_from(["", " Cores=0-7", " Cores=8-15", " Cores=0"])
    text = "".join(f"NodeName=n1 Name=gpu File=/dev/nvidia{i}{data.draw(near)}{data.draw(link)}\n" for i in order)
    release = data.draw(st.sampled_from([OLD, NEW, (26, 5)]))
    node = SlurmNode((("", count),), 2, 8, 1 if server in ("one", "gb200") else 2)

    def report(text: str) -> Report:
        complaints: list[TopologyError] = []
        return check(read_gres_conf(text, complaints), {"n1": node}, {"n1": facts}, release, complaints)

    first = report(text)
    assert bool(first.corrections) == first.wrong
    for correction in first.corrections:
        assert report(correction.lines) == Report((), ())
        assert ("Links=" in correction.lines) == (
            release == OLD and server in ("quads", "quads_swapped", "dgx1", "bridges")
        )


def test_autodetect_and_more_gpus_than_the_server_has() -> None:
    """nvidia-smi's matrix of 4 GPUs, 8 in gres.conf, and slurmd looks for itself."""
    facts = read_source((DATA / "nvidia-smi/polaris_4xA100_nv4_reversed_numa.txt").read_text(), "smi")
    conf = read_gres_conf("NodeName=n1 AutoDetect=nvml Name=gpu File=/dev/nvidia[0-7] Links=-1\n", [])
    report = check(conf, {"n1": SlurmNode((("", 8),), 2, 8)}, {"n1": facts}, OLD)
    assert ("error", "count") in codes(report)
    assert report.corrections == ()


WORDS = {
    "NodeName": ["n1", "n[1-3]", "n2"],
    "AutoDetect": ["off", "nvml", "rsmi"],
    "Type": ["h100", "H100", "a"],
    "File": ["/dev/nvidia0", "/dev/nvidia[0-3]", "/dev/nvidia[0-7]", "/dev/dri/card1"],
    "Cores": ["0-7", "8-15", "0-3,8-11", "0-63"],
    "Links": ["-1,1,1,1,1,1,1,1", "4,4,4,-1,0,0,0,0", "-1", "0,0,0,0"],
    "Count": ["1", "4", "8"],
}
LINES = st.lists(
    st.fixed_dictionaries(
        {"Name": st.just("gpu")}, optional={key: st.sampled_from(words) for key, words in WORDS.items()}
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=150, deadline=None)
@given(
    lines=LINES,
    server=st.sampled_from(
        ["nvml/quads.json", "nvml/flat.json", "nvidia-smi/pcie_2x5090_phb.txt", "nvidia-smi/hgx_a100_8xA100_4nic.txt"]
    ),
    release=st.sampled_from([None, OLD, NEW]),
    node=st.sampled_from([NODE, SlurmNode((("a", 4), ("b", 4)), 2, 8), SlurmNode(), SlurmNode((("", 4),))]),
)
def test_any_lines_are_checked(
    lines: list[dict[str, str]], server: str, release: tuple[int, int] | None, node: SlurmNode
) -> None:
    """Whatever combination of words a site has, there are findings or an error with its place, and nothing else."""
    order = ("NodeName", "AutoDetect", "Name")
    text = "".join(
        " ".join(f"{key}={line[key]}" for key in sorted(line, key=lambda k: (k not in order, k))) + "\n"
        for line in lines
    )
    complaints: list[TopologyError] = []
    try:
        conf = read_gres_conf(text, complaints)
        report = check(conf, {"n1": node}, {"n1": read_source((DATA / server).read_text(), "x")}, release, complaints)
    except TopologyError:
        return
    for correction in report.corrections:
        assert read_gres_conf(correction.lines).names
