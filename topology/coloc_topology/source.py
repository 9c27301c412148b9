"""One reader for every file that tells a server's links: nvidia-smi, rocm-smi or a dump of NVML, told by its content."""

import re
from typing import NamedTuple

from coloc_topology.nvidia_smi import Nic, read_topo
from coloc_topology.nvml_facts import NvmlFacts, decode_facts, looks_like_nvml
from coloc_topology.nvml_shape import GpuNumbers, nvlink_domain, shape_from_nvml
from coloc_topology.rocm_smi import looks_like_rocm, read_rocm
from coloc_topology.shape import Shape

_SETTING = re.compile(r"^\s*(NodeName|Name|AutoDetect)\s*=", re.IGNORECASE | re.MULTILINE)
_HEADER = re.compile(r"^\s*(\x1b\S*?m)?\s*GPU0\b", re.MULTILINE)
_YAML = re.compile(r"^\s*-\s+[\"']?topology[\"']?\s*:", re.MULTILINE)
_SWITCHES = re.compile(r"^\s*(SwitchName|BlockName|AggregatedBlock|BlockSizes)\s*=", re.IGNORECASE | re.MULTILINE)
NETWORK = ("topology.conf", "topology.yaml")
"""Kinds of files that tell of switches and blocks, not of a server; an output of `scontrol show topology` is the first."""


class Source(NamedTuple):
    """What a file tells. `numbers` and `facts` only of an NVML dump, `nics` only of nvidia-smi.

    `domain`: the NVLink domain above the node; None: none is told. `notes`: what is uncertain, one sentence each.
    """

    kind: str
    shape: Shape
    nics: tuple[Nic, ...] = ()
    numbers: tuple[GpuNumbers, ...] = ()
    domain: str | None = None
    facts: NvmlFacts | None = None
    pcie_only: bool = False
    notes: tuple[str, ...] = ()


def decode(data: bytes) -> str:
    """The text of a file, whatever its bytes are; UTF-16 if it says so, as what PowerShell writes from ssh does."""
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    return data.decode("utf-16" if utf16 else "utf-8", errors="replace")


def kind_of(text: str) -> str:
    """`nvml`, `gres.conf`, `rocm-smi`, one of `NETWORK`, or `nvidia-smi`, as which all else is read to be told why it is not."""
    if looks_like_nvml(text):
        return "nvml"
    if looks_like_rocm(text):
        return "rocm-smi"
    if _HEADER.search(text):
        return "nvidia-smi"
    if _SWITCHES.search(text):
        return "topology.conf"
    if _YAML.search(text):
        return "topology.yaml"
    return "gres.conf" if _SETTING.search(text) else "nvidia-smi"


def read_source(text: str, name: str) -> Source:
    """Read a dump, or an output of `nvidia-smi topo` or `rocm-smi`; `name` becomes the shape's. Raises `TopologyError`."""
    if looks_like_nvml(text):
        facts = decode_facts(text)
        shape, numbers, notes = shape_from_nvml(facts, name)
        return Source("nvml", shape, numbers=numbers, domain=nvlink_domain(facts), facts=facts, notes=notes)
    if looks_like_rocm(text):
        return Source("rocm-smi", read_rocm(text, name))
    read = read_topo(text, name)
    return Source("nvidia-smi", read.shape, nics=read.nics, pcie_only=bool(read.pcie_only))
