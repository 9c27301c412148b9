"""Which GPU Slurm's index is: from an imported dump, from gres.conf, by PCI address; else it is not known."""

from pathlib import Path

import msgspec
import pytest
from tests.agent.batches import infos

from coloc_topology.nvml_facts import NvmlFacts, NvmlGpu, encode_facts
from colocd.agent.wire import GpuInfo
from colocd.config import Config, SlurmConfig, TopologyConfig, TopologySource
from colocd.core.view import Node
from colocd.gpus.places import PlaceBook, Places

SWAPPED = "NodeName=n1 Name=gpu File=/dev/nvidia[2-3]\nNodeName=n1 Name=gpu File=/dev/nvidia[0-1]\n"


def node(gpus: int = 4, name: str = "n1") -> Node:
    return Node(name=name, address=name, up=True, gpus=gpus, used=0, types=("",) * gpus)


def places(folder: Path, gres: str, gpus: tuple[GpuInfo, ...], count: int = 4, dump: NvmlFacts | None = None) -> Places:
    (folder / "gres.conf").write_text(gres)
    sources: tuple[TopologySource, ...] = ()
    if dump is not None:
        (folder / "dump.json").write_text(encode_facts(dump))
        sources = (TopologySource(nodes="n[1-2]", file=str(folder / "dump.json")),)
    config = Config(slurm=SlurmConfig(conf=str(folder / "slurm.conf")), topology=TopologyConfig(sources=sources))
    return PlaceBook(config).places(node(count), gpus)


def test_by_the_device_files_of_gres_conf(tmp_path: Path) -> None:
    assert places(tmp_path, SWAPPED, infos(4)).at == (2, 3, 0, 1)
    assert places(tmp_path, SWAPPED, tuple(reversed(infos(4)))).at == (1, 0, 3, 2)


def test_gpus_that_are_not_there(tmp_path: Path) -> None:
    assert places(tmp_path, SWAPPED, infos(4)[1:]).at == (1, 2, None, 0)
    nameless = (GpuInfo(index=0), *infos(4)[1:])  # lost from the start: it tells no number, but only one is missing
    assert places(tmp_path, SWAPPED, nameless).at == (2, 3, 0, 1)
    two = (GpuInfo(index=0), GpuInfo(index=1), *infos(4)[2:])
    assert places(tmp_path, SWAPPED, two).at == (2, 3, None, None)


def test_by_an_imported_dump_first(tmp_path: Path) -> None:
    gpus = tuple(NvmlGpu(index=i, minor=i, nvlinks=()) for i in range(4))
    dump = NvmlFacts(host="n1", gpus=gpus, order=(1, 0, 3, 2))
    assert places(tmp_path, SWAPPED, infos(4), dump=dump).at == (1, 0, 3, 2)
    unordered = msgspec.structs.replace(dump, order=None)
    assert places(tmp_path, SWAPPED, infos(4), dump=unordered).at == (2, 3, 0, 1)


def test_by_pci_address_with_autodetect(tmp_path: Path) -> None:
    back = tuple(reversed(infos(4)))
    assert places(tmp_path, "AutoDetect=nvml\n", back).at == (3, 2, 1, 0)
    assert places(tmp_path, "AutoDetect=nvml\n", back[1:]).at is None


@pytest.mark.parametrize(
    ("gres", "count", "gpus", "why"),
    [
        ("NodeName=n1 Name=gpu Count=4\n", 4, infos(4), "neither gres.conf nor an imported dump"),
        ("NodeName=n2 Name=gpu File=/dev/nvidia[0-3]\n", 4, infos(4), "neither gres.conf nor an imported dump"),
        ("NodeName=n1 Name=gpu File=/dev/dri/card[0-3]\n", 4, infos(4), "neither gres.conf nor an imported dump"),
        (SWAPPED, 8, infos(8), "the files tell of 4 devices, Slurm of 8"),
        (SWAPPED, 4, (*infos(3), GpuInfo(index=3, minor=3, mig=True)), "MIG is on"),
        ("Name=gpu File=[", 4, infos(4), "neither gres.conf"),
    ],
)
def test_what_is_not_known(tmp_path: Path, gres: str, count: int, gpus: tuple[GpuInfo, ...], why: str) -> None:
    found = places(tmp_path, gres, gpus, count)
    assert found.at is None
    assert why in (found.why or "")
