"""The test cluster itself: comes up, breaks on request, and leaves nothing behind."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from colocd.errors import ColocError, NotFound
from colocd.testcluster import PrivateCluster, down
from colocd.testcluster.processes import every

pytestmark = pytest.mark.slurm
LONG_JOB = "#!/bin/bash\ntrap '' TERM\nenv -i sleep 600 &\nsrun --overlap sleep 600 &\nwait\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="coloc-t-") as folder:
        yield Path(folder) / "c"
        for left in Path(folder).rglob("cluster.json"):  # a test failed before it took its cluster down
            down(left.parent)


def left_behind(path: Path | str) -> list[int]:
    """Processes that still mention the directory, this one excepted."""
    found = (p for p in every() if p.pid != os.getpid())
    return [p.pid for p in found if any(f"{path}/" in word for word in (*p.argv, *p.environ))]


def test_nothing_is_left_behind(directory: Path) -> None:
    with PrivateCluster(directory, nodes=2) as cluster:
        cluster.run("sbatch", "-N2", "--gres=gpu:1", "-o", f"{cluster.work}/%j", text=LONG_JOB)
        assert "idle" in cluster.run("sinfo", "-h").stdout
    assert not directory.exists()
    assert left_behind(directory) == []


def test_long_path_with_odd_characters(directory: Path) -> None:
    odd = directory / ("x" * 100) / "a b'c"
    cluster = PrivateCluster(odd, nodes=1).up()
    short = Path(cluster.spec.base).parent
    assert len(str(cluster.conf)) < 60
    assert (odd / "slurm.conf").is_file()
    cluster.down()
    assert not odd.exists()
    assert not short.exists()


def test_owner_killed_then_down(directory: Path) -> None:
    code = (
        "import os, sys, pathlib; from colocd.testcluster import PrivateCluster\n"
        "PrivateCluster(pathlib.Path(sys.argv[1]), nodes=1).up(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(directory)], check=False).returncode == -9
    attached = PrivateCluster.attach(directory)
    assert attached.run("sinfo", "-h", "-o", "%D").stdout.split() == ["1"]
    down(directory)
    assert left_behind(directory) == []
    with pytest.raises(NotFound):
        down(directory)


def test_owner_that_just_ends_takes_it_down(directory: Path) -> None:
    code = (
        "import sys, pathlib; from colocd.testcluster import PrivateCluster\n"
        "PrivateCluster(pathlib.Path(sys.argv[1]), nodes=1).up()"
    )
    assert subprocess.run([sys.executable, "-c", code, str(directory)], check=False).returncode == 0
    assert not directory.exists()


def test_a_directory_that_is_not_ours_is_left_alone(directory: Path) -> None:
    directory.mkdir()
    (directory / "thesis.tex").touch()
    with pytest.raises(ColocError, match="not empty"):
        PrivateCluster(directory).up()
    assert (directory / "thesis.tex").exists()


def test_failure_names_the_reason(directory: Path) -> None:
    broken = PrivateCluster(directory, nodes=1, gpu_type="h100\nNoSuchWord=1\n#")
    with pytest.raises(ColocError, match="NoSuchWord"):
        broken.up()
    assert not directory.exists()


def test_as_ordinary_user() -> None:
    if os.getuid() != 0:
        pytest.fail("this test needs root to become another user")
    with tempfile.TemporaryDirectory(prefix="coloc-u-") as folder:
        Path(folder).chmod(0o777)
        # The interpreter may lie where that user may not look, so it becomes that user only after its imports.
        code = (
            "import os, pwd, sys, pathlib, tempfile, encodings.idna; from colocd.testcluster import PrivateCluster\n"
            "who = pwd.getpwnam('daemon'); os.setgroups([]); os.setgid(who.pw_gid); os.setuid(who.pw_uid)\n"
            "with PrivateCluster(pathlib.Path(sys.argv[1]), nodes=1) as c:\n"
            "    print(c.run('squeue', '-h', '-a').returncode, c.spec.user)"
        )
        done = subprocess.run([sys.executable, "-c", code, f"{folder}/c"], capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == ("0 daemon\n", "")
        assert left_behind(folder) == []


def test_node_goes_and_comes(clean_cluster: PrivateCluster) -> None:
    clean_cluster.node_down("n3")
    assert "down" in clean_cluster.run("sinfo", "-h", "-N", "-n", "n3", "-o", "%T").stdout
    clean_cluster.node_up("n3")
    assert set(clean_cluster.run("sinfo", "-h", "-N", "-n", "n3", "-o", "%T").stdout.split()) == {"idle"}


def test_controller_restarts_with_its_jobs(clean_cluster: PrivateCluster) -> None:
    job = clean_cluster.run("sbatch", "--parsable", "--hold", text="#!/bin/sh\ntrue\n").stdout.strip()
    clean_cluster.stop_controller()
    assert clean_cluster.daemons.pid("slurmctld") is None
    clean_cluster.start_controller()
    assert clean_cluster.run("squeue", "-h", "-o", "%A").stdout.split() == [job]


def test_munge_stops_and_starts(clean_cluster: PrivateCluster) -> None:
    clean_cluster.stop_munge()
    assert clean_cluster.run("squeue", "-h", check=False).returncode != 0
    clean_cluster.start_munge()
    assert clean_cluster.run("squeue", "-h").returncode == 0
