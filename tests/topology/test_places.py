"""Errors of the readers name line and column of what they complain about."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coloc_topology.domains import read_topology_conf
from coloc_topology.errors import TopologyError
from coloc_topology.gres_conf import read_gres_conf
from coloc_topology.nvidia_smi import read_topo
from coloc_topology.nvml_facts import decode_facts
from coloc_topology.rocm_smi import read_rocm
from coloc_topology.topology_yaml import read_topology_yaml

DATA = Path(__file__).with_name("data")
DUMP = (DATA / "nvml" / "one.json").read_text()
ROCM = """==== Link Type between two GPUs ====
       GPU0         GPU1
GPU0   0            {}
GPU1   {}           0
"""


def gres(text: str) -> None:
    """Read for one node, as the loader does."""
    read_gres_conf(text).node("n1")


@pytest.mark.parametrize(
    ("reader", "text", "place", "words"),
    [
        (read_topology_conf, "SwitchName=a Nodes=n1\n  SwitchName=a Nodes=n2\n", (2, 14), "also in line 1"),
        (read_topology_conf, "SwitchName=a Switches=b\n", (1, 12), "joins b"),
        (read_topology_conf, "SwitchName=a Switches=a\n", (1, 12), "below itself"),
        (read_topology_conf, "BlockName=b1 Nodes=n[1-2]\nBlockSizes=2,3\n", (2, 12), "BlockSizes=2,3"),
        (read_topology_yaml, "- topology: a\n  flat: true\n- topology: a\n  flat: true\n", (3, 13), "second topology a"),
        (read_topology_yaml, "- topology: a\n  tree:\n    switches:\n    - switch: s1\n", (4, 15), "neither nodes"),
        (read_topology_yaml, "- topology: a\n  tree:\n    switches:\n    - nodes: n1\n", (4, 7), "no name"),
        (read_topology_yaml, "- topology: a\n  ring: true\n", (1, 3), "neither tree nor block"),
        (gres, "Name=gpu File=/dev/nvidia0 Links=-1,0,0\n", (1, 34), "3 numbers"),
        (gres, "Name=gpu File=/dev/nvidia0 Links=-1,4\nName=gpu File=/dev/nvidia1 Links=2,-1\n", (2, 34), "says 2"),
        (read_rocm, ROCM.format("XGMI", "PCIE"), (4, 8), "line 3 says XGMI"),
        (read_rocm, ROCM.format("MAGIC", "MAGIC"), (3, 21), "'MAGIC' is no link type"),
        (read_rocm, ROCM.format("XGMI", "XGMI"), (3, 21), "no weight"),
        (read_rocm, ROCM.format("PCIE", "PCIE") + "GPU1   PCIE  0\n", (5, 1), "second row"),
        (decode_facts, DUMP.replace('"version": 1', '"version": x'), None, "malformed"),
        (read_topo, "\tGPU0\tGPU1\nGPU0\tX\tNV4\nGPU1\tNV3\tX\n", (3, 6), "NV"),
    ],
)  # fmt: skip
def test_place(reader: Callable[[str], object], text: str, place: tuple[int, int] | None, words: str) -> None:
    if place is None:
        before = text[: text.index(": x") + 2]
        place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
    with pytest.raises(TopologyError) as told:
        reader(text)
    assert (told.value.line, told.value.column) == place, str(told.value)
    assert words in told.value.reason


SAMPLES = [
    (read_topo, DATA / "nvidia-smi" / "pcie_4xL40S_2nic_spaces.txt"),
    (gres, DATA / "gres" / "aws_p5en_h200_gres.conf"),
    (read_topology_conf, DATA / "slurm" / "topograph_slinky-oci-sim-tree.conf"),
    (read_topology_yaml, DATA / "slurm" / "topograph_model_small-tree.yaml"),
    (decode_facts, DATA / "nvml" / "quads.json"),
]


@given(st.sampled_from(SAMPLES), st.data())
def test_every_error_with_a_line_has_a_column(
    sample: tuple[Callable[[str], object], Path], data: st.DataObject
) -> None:
    """Damaged at any place: no other error than the reader's own, and never half a place."""
    reader, path = sample
    text = path.read_text()
    at = data.draw(st.integers(0, len(text)))
    junk = data.draw(st.text(alphabet="XGPU01=,[]-: \t\n\x1b{}\"'#\u0661", max_size=6))
    damaged = text[:at] + junk + text[at + data.draw(st.integers(0, 8)) :]
    told: TopologyError | None = None
    try:
        reader(damaged)
    except TopologyError as error:
        told = error
    assert told is None or (told.line is None) == (told.column is None), str(told)
