from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coloc_topology.domains import read_topology_conf
from coloc_topology.errors import TopologyError
from coloc_topology.topology_yaml import read_topology_yaml
from coloc_topology.yaml_subset import read_yaml

DATA = Path(__file__).parent / "data" / "slurm"

YAML = """\
---
- topology: fabric   # the leaves
  cluster_default: true
  tree:
    switches:
      - switch: root
        children: leaf[1-2]
      - switch: leaf1
        nodes: "n[1-2]"
      - switch: leaf2
        nodes: n[3-4]
- topology: racks
  block:
    block_sizes: [2, 4]
    blocks:
    - block: b1
      nodes: [n1, n2]
    - block: b2
      nodes: n[3-4]
- topology: none
  flat: true
"""


def test_tree_sample() -> None:
    domains = read_topology_conf((DATA / "topograph_slinky-oci-sim-tree.conf").read_text())
    assert [domain.name for domain in domains.of("srv1203")] == ["switch.1.2", "switch.2.1", "switch.3.1"]
    assert [domain.level for domain in domains.of("srv1203")] == [0, 1, 2]
    near = domains.common(["srv1101", "srv1208"])
    assert near is not None
    assert (near.kind, near.name, len(near.nodes)) == ("switch", "switch.2.1", 16)
    far = domains.common(["srv1101", "srv6208"])
    assert far is not None
    assert far.name == "switch.3.1"
    assert domains.common(["srv1101", "elsewhere"]) is None
    assert domains.of("elsewhere") == ()


def test_block_sample() -> None:
    domains = read_topology_conf((DATA / "topograph_slinky-dra-block.conf").read_text())
    assert [(domain.name, domain.level, len(domain.nodes)) for domain in domains.of("srv2105")] == [
        ("rack21", 0, 8),
        ("rack[21-22]", 1, 16),
        ("rack[11-12,21-22]", 2, 32),
    ]


def test_model_of_another_project_is_refused() -> None:
    text = (DATA / "topograph_model_small-tree.yaml").read_text()
    with pytest.raises(TopologyError, match=r"^line 15, column 1: topology.yaml is not a list of topologies$"):
        read_topology_yaml(text)
    with pytest.raises(TopologyError, match=r"^line 15, column 1: 'switches:' is not of the form Key=Value$"):
        read_topology_conf(text)


def test_show_topology() -> None:
    tree = read_topology_conf(
        "SwitchName=s1 Level=0 LinkSpeed=1 Nodes=n[1-2] \nSwitchName=s2 Level=0 LinkSpeed=1 Nodes=n[3-4] \n"
        "SwitchName=s3 Level=1 LinkSpeed=1 Nodes=n[1-4] Switches=s[1-2] \n"
    )
    assert [domain.name for domain in tree.of("n4")] == ["s2", "s3"]
    blocks = read_topology_conf(
        "BlockName=b1 BlockIndex=0 Nodes=n[1-2] BlockSize=2\nBlockName=b2 BlockIndex=1 Nodes=n[3-4] BlockSize=2\n"
        "AggregatedBlock=b[1-2] BlockIndex=2 Nodes=n[1-4] BlockSize=4\n"
    )
    assert [domain.name for domain in blocks.of("n1")] == ["b1", "b[1-2]"]


def test_topology_yaml() -> None:
    found = read_topology_yaml(YAML)
    assert list(found) == ["fabric", "racks", "none"]
    assert [domain.name for domain in found["fabric"].of("n3")] == ["leaf2", "root"]
    assert [(domain.name, domain.level) for domain in found["racks"].of("n2")] == [("b1", 0), ("b[1-2]", 1)]
    assert found["none"].all == ()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("SwitchName=a Nodes=n1\nSwitchName=a Nodes=n2", "line 2, column 12: switch a is also in line 1"),
        ("SwitchName=a Switches=b", "line 1, column 12: switch a joins b, which is not described"),
        ("SwitchName=a Switches=b\nSwitchName=b Switches=a", "line 1, column 12: switch a is below itself"),
        ("SwitchName=a", "line 1, column 12: a has neither nodes nor anything below it"),
        ("BlockName=a Nodes=n[1-2]\nBlockSizes=2,3", "line 2, column 12: BlockSizes=2,3 is no list of multiples"),
        ("BlockSizes=0", "line 1, column 12: BlockSizes=0 is no list of multiples"),
        ("BlockName=a Nodes=n[1-", "line 1, column 20: host list 'n[1-': the bracket is not closed"),
    ],
)
def test_refused(text: str, error: str) -> None:
    with pytest.raises(TopologyError) as caught:
        read_topology_conf(text)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "line 1, column 1: topology.yaml is not a list of topologies"),
        ("- tree:\n", "line 1, column 3: an entry here has no name (topology)"),
        ("- topology: a\n", "line 1, column 3: this topology is neither tree nor block nor flat"),
        ("- topology: a\n  flat: true\n- topology: a\n  flat: true\n", "line 3, column 13: a second topology a"),
        ("- topology: a\n  tree:\n    switches:\n    - switch: s\n", "line 4, column 15: switch s has neither nodes nor"),
        ("- topology: a\n  block:\n    blocks:\n    - block: s\n      nodes: n[1\n", "line 5, column 15: host list"),
        ("- topology: &a b\n", "line 1, column 13: '&a b' is YAML that is not read here"),
        ("- topology: a\n\tflat: true\n", "line 2, column 1: a tab in the indentation"),
        ("- topology: a\n    flat: true\n", "line 2, column 5: 'flat: true' does not fit the indentation above it"),
        ("- topology: a\n  topology: b\n", "line 2, column 3: 'topology: b' repeats the key of line 1"),
        ("- " * 30 + "a", "line 1, column 35: more than 16 levels"),
    ],
)  # fmt: skip
def test_yaml_refused(text: str, error: str) -> None:
    with pytest.raises(TopologyError) as caught:
        read_topology_yaml(text)
    assert str(caught.value).startswith(error)


def plain(item: object) -> object:
    value = getattr(item, "value", item)
    if isinstance(value, list):
        return [plain(one) for one in value]
    return {key: plain(one) for key, one in value.items()} if isinstance(value, dict) else value


def test_yaml_values() -> None:
    text = "a: x y\nb:\n- 1\n-\n  - 2\n- c: d\n  e:\nf: 'q # r'\ng: [\"I[21-22]\", 'I25' , i[1,3]x]\nh: []\ni: ~\n"
    assert plain(read_yaml(text.replace(" # r", " r"))) == {
        "a": "x y", "b": ["1", ["2"], {"c": "d", "e": None}], "f": "q r", "g": ["I[21-22]", "I25", "i[1,3]x"], "h": [], "i": None
    }  # fmt: skip


@given(st.text(alphabet=st.sampled_from("ab:- \n[],'\"#\t&1"), max_size=60))
def test_only_topology_errors_come_out_of_yaml(text: str) -> None:
    try:
        read_topology_yaml(text)
    except TopologyError:
        return
    assert text.strip()


@given(st.data())
def test_cut_yaml(data: st.DataObject) -> None:
    cut = YAML[: data.draw(st.integers(0, len(YAML)))]
    try:
        found = read_topology_yaml(cut)
    except TopologyError:
        return
    assert set(found) <= {"fabric", "racks", "none"} | {"rack", "rac", "ra", "r"}


PIECES = [
    "SwitchName=",
    "BlockName=",
    "Switches=",
    "Nodes=",
    "BlockSizes=",
    "a",
    "b[1-2]",
    " ",
    "\n",
    ",",
    "2,4",
    "\\\n",
    "#",
]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text(max_size=40))
def test_only_topology_errors_come_out_of_conf(text: str) -> None:
    try:
        domains = read_topology_conf(text)
    except TopologyError:
        return
    assert all(domain.nodes for domain in domains.all)
