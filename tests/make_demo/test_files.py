"""What the demo writes is what coloc's own readers accept."""

from pathlib import Path

import pytest
from demo import curve, files
from demo.site import Site

from coloc_cli.sbatch_submit import prepare
from coloc_topology.nvidia_smi import read_topo
from coloc_topology.shape import quads
from colocd.clock import SystemClock
from colocd.config import parse_config
from colocd.servicefile import parse_service

VALUES = {
    "DATABASE": "sqlite:////x/coloc.db",
    "SLURM_CONF": "/x/slurm.conf",
    "NODES": "n[1-4]",
    "TOPOLOGY": "/x/topo.txt",
    "RUN": "/x",
    "DAY": curve.DAY,
    "USER": "root",
    "REPLICAS": files.REPLICAS,
    "PORT": 18000,
    "CAPACITY": curve.CAPACITY,
    "PYTHON": "/usr/bin/python3",
    "SERVER": "/x/chat_server.py",
    "DEMO": "/x",
}


def test_the_configuration_is_accepted() -> None:
    config = parse_config(files.fill("colocd.toml.in", VALUES), "colocd.toml")
    assert config.mode == "act"
    assert config.cycle.period <= 1.0


def test_the_service_file_is_accepted() -> None:
    spec = parse_service(files.fill("chat.toml.in", VALUES), "chat.toml")
    assert spec.script.startswith("#!/bin/bash\n")
    assert "exec /usr/bin/python3 /x/chat_server.py" in spec.script
    assert spec.season == curve.DAY
    peak = max(load for _, load in curve.TODAY)
    assert spec.max_replicas * spec.capacity.per_replica * spec.capacity.target_use >= peak


def test_every_value_is_used() -> None:
    both = (files.HERE / "colocd.toml.in").read_text() + (files.HERE / "chat.toml.in").read_text()
    assert [name for name in VALUES if f"@{name}@" not in both] == []


def test_the_topology_is_read_back() -> None:
    found = read_topo(files.topology_text(quads()), "quads")
    assert found.shape == quads()


def test_the_backlog_fits_the_day() -> None:
    """More than the valleys hold, so that there is always something to take back; no more than four minutes hold."""
    jobs = files.backlog()
    work = sum(job.gpus * job.steps / files.RATE for job in jobs)
    assert 1500 < work < 3000
    assert len({job.name for job in jobs}) == len(jobs)
    assert not any(job.deaf for job in jobs)
    assert [job.name for job in files.backlog(deaf=True) if job.deaf] == ["train-deaf"]


def test_ports_are_free_and_in_a_row() -> None:
    import socket

    first = files.free_ports(3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first + 1))
        taken.listen()
        assert files.free_ports(3) > first + 1


def test_the_submission_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The words of the demo's submission carry the signal, its target and the interval into the job's mark."""
    site = Site(tmp_path, SystemClock())
    script = tmp_path / "day" / "train_job.sh"
    script.parent.mkdir()
    script.write_bytes((files.HERE / "train_job.sh").read_bytes())
    words = site.submission(files.backlog()[0])
    job = prepare(words, {}, ("batch",), str(tmp_path), lambda: b"")
    (comment,) = [word for word in job.words if "[coloc v=1" in word]
    assert "signal=USR1 to=batch interval=8" in comment
