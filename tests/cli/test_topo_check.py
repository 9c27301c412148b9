"""`coloc topo check`: what it asks, what it prints, how it ends; also against a live Slurm."""

import os
from pathlib import Path

import pytest
from tests.cli.conftest import Coloc

from coloc_topology.gres_conf import read_gres_conf
from colocd.testcluster import PrivateCluster

NVML = Path(__file__).parents[1] / "topology" / "data" / "nvml"
NODE = "NodeName=n1 Gres=gpu:h100:8 Sockets=2 CoresPerSocket=8 ThreadsPerCore=2"


def lines(nodes: str = "n1", links: str = "4", cores: bool = True) -> str:
    return "".join(
        f"NodeName={nodes} Name=gpu Type=h100 File=/dev/nvidia{i}"
        + (f" Cores={'0-7' if i < 4 else '8-15'}" if cores else "")
        + " Links="
        + ",".join("-1" if i == j else links if i // 4 == j // 4 else "0" for j in range(8))
        + "\n"
        for i in range(8)
    )


@pytest.fixture
def site(tmp_path: Path, config_file: Path) -> Path:
    """A folder with slurm.conf, gres.conf and a scontrol that answers from files."""
    (tmp_path / "slurm.conf").write_text(NODE + "\n")
    (tmp_path / "gres.conf").write_text(lines())
    (tmp_path / "show-config").write_text("SLURM_VERSION           = 24.11.5\n")
    (tmp_path / "show-node").write_text(NODE + "\n")
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\nfor last; do :; done\nexec cat "{tmp_path}/show-$last"\n')
    scontrol.chmod(0o755)
    config_file.write_text(f'[slurm]\nbin_dir = "{tmp_path}"\nconf = "{tmp_path}/slurm.conf"\n')
    return tmp_path


def test_slurm_is_asked(coloc: Coloc, site: Path) -> None:
    said = coloc("topo", "check", "--nvml", f"n1={NVML}/quads.json")
    assert (said.code, said.err) == (78, "")
    first, *rest = said.out.splitlines()
    assert first == (
        "warning  n1: its Links are not all equal, and Slurm 24.11 takes the worst-linked GPUs for --gres and "
        "--gpus-per-node; leave Links out"
    )
    assert rest[1] == f"# {site}/gres.conf: instead of the lines for n1"
    assert rest[2] == "NodeName=n1 AutoDetect=off Name=gpu Type=h100 File=/dev/nvidia0 Cores=0-7"
    assert rest[-1] == "# coloc itself still needs the links: see `coloc topo import`"
    assert read_gres_conf("\n".join(rest)).node("n1").shape is not None


def test_json_and_release(coloc: Coloc, site: Path) -> None:
    told = coloc("topo", "check", "--json").json
    assert told["slurm"] == {"release": "24.11", "asked": True, "why_not": None}
    assert [(f["code"], f["severity"], f["nodes"]) for f in told["findings"]] == [("links-inverted", "warning", ["n1"])]
    assert len(told["corrections"][0]["lines"]) == 8
    said = coloc("topo", "check", "--release", "23.11")
    assert (said.code, said.out) == (0, f"{site}/gres.conf: nothing to complain about\n")
    assert coloc("topo", "check", "--release", "new").code == 64


def test_a_note_alone_is_no_failure(coloc: Coloc, site: Path) -> None:
    said = coloc("topo", "check", "--offline")
    assert said.code == 0
    assert said.out.splitlines()[0] == "Slurm    release unknown; counts are slurm.conf's (not asked)"
    assert said.out.splitlines()[1].startswith("note     n1: its Links are not all equal")


def test_slurm_does_not_answer(coloc: Coloc, site: Path) -> None:
    (site / "scontrol").write_text("#!/bin/sh\necho 'connect failure' >&2\nexit 1\n")
    said = coloc("topo", "check")
    assert (said.code, "(scontrol: connect failure)" in said.out) == (0, True)
    os.unlink(site / "slurm.conf")
    assert "its counts are not checked" in coloc("topo", "check").out
    assert coloc("topo", "check", "--slurm-conf", f"{site}/slurm.conf").code == 65


def test_broken_links_do_not_end_the_check(coloc: Coloc, site: Path) -> None:
    broken = lines().replace("Links=-1,4,4,4", "Links=0,4,4,4").replace("4,4,4,-1,0", "4,4,4,3,0")
    (site / "gres.conf").write_text(broken)
    said = coloc("topo", "check", "--release", "22.05", "--nvml", f"n1={NVML}/quads.json")
    assert said.code == 78
    errors = [line for line in said.out.splitlines() if line.startswith("error")]
    assert [("line 1," in errors[0], "line 4," in errors[1], len(errors))] == [(True, True, 2)]
    assert "File=/dev/nvidia0 Cores=0-7 Links=-1,4,4,4,0,0,0,0" in said.out


def test_sources_of_the_configuration_count(coloc: Coloc, site: Path, config_file: Path) -> None:
    source = f'[[topology.sources]]\nnodes = "n1"\nfile = "{NVML}/quads_swapped.json"\n'
    config_file.write_text(config_file.read_text() + source)
    said = coloc("topo", "check", "--release", "22.05")
    assert (said.code, "which is number 4 in PCI order" in said.out) == (78, True)
    said = coloc("topo", "check", "--release", "22.05", "--nvml", f"n1={NVML}/quads.json")
    assert said.code == 0  # the command line comes first


def test_facts_without_a_node(coloc: Coloc, site: Path) -> None:
    smi = NVML.parent / "nvidia-smi" / "hgx_a100_8xA100_4nic.txt"
    said = coloc("topo", "check", "--nvml", str(smi))
    assert (said.code, "does not tell which node" in said.err) == (64, True)
    assert "Links says 4 NVLinks" in coloc("topo", "check", "--nvml", f"n1={smi}").out
    assert coloc("topo", "check", "--nvml", f"n1={site}/gres.conf").code == 65
    assert coloc("topo", "check", "--nvml", f"n[1={smi}").code == 64
    # a dump without NODES= counts for the host that it names
    said = coloc("topo", "check", "--nvml", f"{NVML}/quads.json", "--release", "22.05")
    assert (said.code, said.out) == (78, "warning  gpu1: Slurm has no such node\n")


def test_wrong_files(coloc: Coloc, site: Path, config_file: Path) -> None:
    (site / "gres.conf").write_text("NodeName=n1 Name=gpu File\n")
    said = coloc("topo", "check")
    assert (said.code, f"{site}/gres.conf, line 1, column 22: " in said.err) == (65, True)
    assert coloc("topo", "check", "--gres-conf", f"{site}/none").code == 65
    (site / "slurm.conf").write_text("NodeName=n[1\n")
    assert coloc("topo", "check", "--offline").code == 65
    config_file.write_text("[topology]\nsources = 3\n")
    assert coloc("topo", "check").code == 78


@pytest.mark.slurm
def test_a_live_slurm_is_asked(coloc: Coloc, cluster: PrivateCluster, tmp_path: Path, config_file: Path) -> None:
    conf = ("--slurm-conf", str(cluster.conf))
    said = coloc("topo", "check", *conf, "--json")
    assert (said.code, said.json["findings"], said.json["slurm"]["asked"]) == (0, [], True)
    release = said.json["slurm"]["release"]
    assert release == ".".join(cluster.run("scontrol", "--version").stdout.split()[1].split(".")[:2])
    gres = tmp_path / "gres.conf"
    gres.write_text(lines("n[1-4]", cores=False).replace("File=/dev/nvidia7 ", "File=/dev/nvidia8 "))
    said = coloc("topo", "check", *conf, "--gres-conf", str(gres), "--nvml", f"n[1-3]={NVML}/quads.json", "--json")
    assert said.code == 78
    told = {finding["code"]: finding["nodes"] for finding in said.json["findings"]}
    assert told["file"] == ["n1", "n2", "n3"]
    gres.write_text(lines("n[1-2]"))
    told = coloc("topo", "check", *conf, "--gres-conf", str(gres), "--json").json["findings"]
    assert [(f["code"], f["nodes"]) for f in told if f["code"] == "gpus-missing"] == [("gpus-missing", ["n3", "n4"])]
