"""Hostile input at the batch user's side, on a live Slurm: names, scripts sbatch refuses, other people's jobs, huge arrays."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.helpers.live import LiveSite

from coloc_cli import sbatch_wrap
from coloc_cli.jobmark import read_comment
from colocd.clock import SystemClock
from colocd.core.view import JobState
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]
Sbatch = Callable[..., "subprocess.CompletedProcess[bytes]"]
NAMES = ["a b", "it's", 'q"uote', "$(touch hacked)", "`touch hacked`", "new\nline", "*", "ü;&|", "-rf", "\\"]


@pytest.fixture
def folder(clean_cluster: PrivateCluster) -> Iterator[Path]:
    """A working folder on the cluster."""
    path = clean_cluster.work / "hostile"
    path.mkdir()
    path.chmod(0o1777)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def sbatch(clean_cluster: PrivateCluster, folder: Path) -> Sbatch:
    """`coloc-sbatch`, or with `plain` sbatch itself, in that folder."""

    def call(*words: str, plain: bool = False, text: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        argv = ["sbatch"] if plain else [sys.executable, "-m", "coloc_cli.sbatch_main"]
        env = {
            **clean_cluster.environment,
            "COLOC_CONFIG": "/nowhere",
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        return subprocess.run(
            [*argv, *words], input=text, capture_output=True, env=env, cwd=folder, timeout=60, check=False
        )

    return call


def test_names_and_arguments_arrive_as_they_are(clean_cluster: PrivateCluster, sbatch: Sbatch, folder: Path) -> None:
    clock, refs = SystemClock(), []
    for number, name in enumerate(NAMES):
        script = folder / f"s{number}{name}.sh"
        script.write_text(f'#!/bin/bash\nprintf "%s|" "$SLURM_JOB_NAME" "$@" >out{number}\n')
        done = sbatch(
            "--parsable",
            "-o/dev/null",
            f"--job-name={name}",
            f"--comment={name}",
            "--coloc-preset=program",
            str(script),
            name,
            "",
        )
        assert done.returncode == 0, done.stderr
        refs.append(done.stdout.decode().strip())
        assert read_comment(refs[-1], clean_cluster.environment, clock).startswith(f"{name} [coloc v=1 signal=USR1")
        clean_cluster.run("scontrol", "release", refs[-1])
    end = clock.monotonic() + 60
    while not all(
        (folder / f"out{n}").exists() and (folder / f"out{n}").read_text().endswith("||") for n in range(len(NAMES))
    ):
        assert clock.monotonic() < end, sorted(os.listdir(folder))
        clock.sleep(0.1)
    for number, name in enumerate(NAMES):
        assert (folder / f"out{number}").read_text() == f"{name}|{name}||"
    assert not (folder / "hacked").exists()


@pytest.mark.parametrize("preset", [[], ["--coloc-preset=hf"]], ids=["plain", "around"])
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" \n",
        b"echo no shebang\n",
        b"#!/bin/sh\r\necho dos\r\n",
        b"#!/bin/sh\necho \0\n",
        b"\x7fELF\x02\x01\x01\0\0\xff",
    ],
    ids=["empty", "blank", "no shebang", "CRLF", "NUL", "binary"],
)
def test_scripts_that_sbatch_refuses_get_its_own_answer(
    sbatch: Sbatch, folder: Path, text: bytes, preset: list[str]
) -> None:
    (folder / "bad.sh").write_bytes(text)
    ours, plain = sbatch(*preset, "bad.sh"), sbatch("bad.sh", plain=True)
    assert plain.returncode != 0
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    ours, plain = sbatch(*preset, text=text), sbatch(text=text, plain=True)
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ["missing.sh"],
        ["--wrap=true", "word"],
        ["--array=1-999999", "--wrap=true"],
        ["--dependency=afterok:999999", "--nonsense", "--wrap=true"],
        ["--time=soon", "--wrap=true"],
    ],
)
def test_what_sbatch_says_no_to(sbatch: Sbatch, words: list[str]) -> None:
    for preset in ([], ["--coloc-preset=hf"]):
        ours, plain = sbatch(*preset, *words), sbatch(*words, plain=True)
        assert plain.returncode != 0
        assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)


@pytest.mark.root
def test_the_embedded_program_cannot_speak_for_somebody_elses_job(
    clean_cluster: PrivateCluster, sbatch: Sbatch, folder: Path
) -> None:
    ref = sbatch("--parsable", "--wrap=true", "--signal=B:USR1").stdout.decode().strip()
    (folder / "helper.py").write_bytes(sbatch_wrap.helper())
    before = read_comment(ref, clean_cluster.environment, SystemClock())
    env = {**clean_cluster.environment, "SLURM_JOB_ID": ref}
    argv = [
        "setpriv",
        "--reuid",
        "65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-I",
        "helper.py",
        "checkpointed",
        "--yield",
    ]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, "scontrol failed" in done.stderr) == (69, True)
    assert read_comment(ref, clean_cluster.environment, SystemClock()) == before == "[coloc v=1 signal=USR1 to=batch]"


def test_ten_thousand_tasks(tmp_path: Path) -> None:
    """Colocd goes on in its rhythm, tasks start and end, one is evicted and speaks for itself alone."""
    place = Path("/tmp") / f"coloc-slurm-{os.getpid()}-array"
    with (
        PrivateCluster(place, nodes=2, settings=("MaxArraySize=10001", "MaxJobCount=30000")) as cluster,
        LiveSite(cluster) as site,
    ):
        site.load(5)
        site.begin()
        (site.jobs / "task.sh").write_text(
            "#!/bin/bash\necho $SLURM_ARRAY_TASK_ID >>done-$SLURM_ARRAY_TASK_ID\nsleep 5\n"
        )
        words = [
            "--parsable",
            "--array=1-10000",
            "--gpus-per-node=2",
            "-N1",
            f"--chdir={site.jobs}",
            "--output=/dev/null",
        ]
        done = site.run("coloc_cli.sbatch_main", *words, "--coloc-preset=program", str(site.jobs / "task.sh"))
        ref = done.stdout.strip()
        site.until(lambda: len(list(site.jobs.glob("done-*"))) >= 12, "the start of some tasks", 150)
        running = [j for j in site.slurm.read().jobs if j.ref.startswith(f"{ref}_") and j.state is JobState.RUNNING]
        assert running
        assert len(site.ask("queue")) > 9000
        site.cluster.run("scancel", ref)
