"""`coloc sbatch` against a stub sbatch: what it adds, refuses, explains and leaves to sbatch."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.stub_sbatch import Fresh, Sbatch


def test_partitions(sbatch: Sbatch, script: Callable[[str], str], tmp_path: Path) -> None:
    own = script("#SBATCH -p online\ntrue\n")
    assert "--partition=batch" in sbatch(own).argv
    assert "instead of online" in sbatch(own).remarks[0]
    assert sbatch("-Q", own).remarks == []
    assert "--partition=fill" in sbatch("--wrap=x", COLOC_BATCH_PARTITION="fill").argv
    config = tmp_path / "c.toml"
    config.write_text('[policy]\nbatch_partitions = ["low", "lower"]\n')
    for words, environ, added in (
        (["--wrap=x"], {}, ["--partition=low"]),
        (["--wrap=x"], {"COLOC_BATCH_PARTITION": "fill"}, ["--partition=low"]),
        (["-plower", "--wrap=x"], {}, []),
        (["--wrap=x"], {"SBATCH_PARTITION": "lower,low"}, []),
    ):
        job = sbatch(*words, COLOC_CONFIG=str(config), **environ)
        assert [w for w in job.argv if w.startswith("--partition=")] == added
        assert job.remarks == []


def test_a_foreign_partition_on_the_command_line_means_plain_sbatch(sbatch: Sbatch) -> None:
    words = ["-p", "batch,online", "--comment=c", "--no-requeue", "--coloc-interval=5", "--wrap=x"]
    job = sbatch(*words)
    assert job.argv == ["-p", "batch,online", "--comment=c", "--no-requeue", "--wrap=x"]
    assert "without coloc" in job.remarks[0]


@pytest.mark.parametrize(
    ("words", "environ", "refused"),
    [
        (["--no-requeue"], {}, True),
        (["--no-req"], {}, True),
        (["--requeue", "--no-requeue"], {}, True),
        (["--no-requeue", "--requeue"], {}, False),
        ([], {"SBATCH_NO_REQUEUE": "1"}, True),
        ([], {"SBATCH_NO_REQUEUE": ""}, True),
        ([], {"SBATCH_NO_REQUEUE": "0"}, False),
        (["--requeue"], {"SBATCH_NO_REQUEUE": "1"}, False),
    ],
)
def test_no_requeue_is_refused(sbatch: Sbatch, words: list[str], environ: dict[str, str], refused: bool) -> None:
    job = sbatch(*words, "--wrap=x", **environ)
    assert (job.code, job.calls) == ((64, 0) if refused else (0, 1))
    if refused:
        assert ("SBATCH_NO_REQUEUE: coloc must be able" if environ else "--no-requeue: coloc must be able") in job.err


@pytest.mark.parametrize("words", [["-n1", ":", "-n2", "s.sh"], [":", "s.sh"]])
def test_het_jobs_are_refused(sbatch: Sbatch, script: Callable[[str], str], words: list[str]) -> None:
    job = sbatch(*words)
    assert (job.code, job.calls) == (64, 0)
    assert "heterogeneous" in job.err
    assert sbatch(script("#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n1\n")).code == 64
    assert sbatch(script("true\n"), ":", "argument").code == 0


@pytest.mark.parametrize("word", ["--version", "-V", "--usage", "--help", "-h"])
def test_questions_go_to_sbatch_alone(sbatch: Sbatch, word: str) -> None:
    job = sbatch(word, "--coloc-dry-run")
    assert job.argv == [word]
    assert ("--coloc-interval" in job.out) == (word in ("--help", "-h"))


def test_test_only_does_not_hold(sbatch: Sbatch) -> None:
    assert "--hold" not in sbatch("--test-only", "--wrap=x").argv


def test_users_hold_is_explained(sbatch: Sbatch, script: Callable[[str], str]) -> None:
    assert "scontrol release" in sbatch(script("#SBATCH --hold\ntrue\n")).remarks[0]
    assert "scontrol release" in sbatch("-H", "--wrap=x").remarks[0]


def test_other_clusters_are_explained(sbatch: Sbatch) -> None:
    assert "this cluster only" in sbatch("-M", "far", "--wrap=x").remarks[0]


def test_long_comments(sbatch: Sbatch) -> None:
    assert sbatch("--comment=" + "x" * 950, "--wrap=x").code == 0
    job = sbatch("--comment=" + "x" * 990, "--wrap=x")
    assert (job.code, job.calls) == (64, 0)


def test_marks_are_not_doubled(sbatch: Sbatch) -> None:
    assert sbatch("--comment=me [coloc v=1 signal=TERM to=all]", "--wrap=x").comment == "me [coloc v=1]"


def test_dry_run(sbatch: Sbatch, script: Callable[[str], str]) -> None:
    path = script("echo 'ä'\n")
    job = sbatch("--coloc-dry-run", "-J", "a b", path)
    assert (job.code, job.calls) == (0, 0)
    assert job.out.splitlines() == [
        f"sbatch --hold --requeue --partition=batch '--comment=[coloc v=1]' -J 'a b' {path}",
        "# --- the script ---",
        "#!/bin/sh",
        "echo 'ä'",
    ]


def test_missing_sbatch(fresh: Fresh, tmp_path: Path) -> None:
    done = fresh("coloc_cli.sbatch_main", "--wrap=x", PATH=str(tmp_path), COLOC_CONFIG=str(tmp_path / "none"))
    assert done.returncode == 69
    assert b"sbatch is not on PATH" in done.stderr


def test_a_wrapper_named_sbatch_is_passed_over(sbatch: Sbatch, tmp_path: Path) -> None:
    (tmp_path / "coloc-sbatch").write_text("#!/bin/sh\nexit 99\n")
    (tmp_path / "coloc-sbatch").chmod(0o755)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sbatch").symlink_to("../coloc-sbatch")
    path = f"{tmp_path}/first:{tmp_path}/bin:{os.environ['PATH']}"
    assert sbatch("--wrap=x", PATH=path).code == 0


def test_broken_configuration_is_told(sbatch: Sbatch, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("= 3")
    job = sbatch("--wrap=x", COLOC_CONFIG=str(tmp_path / "bad.toml"))
    assert (job.code, job.calls) == (78, 0)
    assert "bad.toml" in job.err


def test_entry_point_imports_no_click(fresh: Fresh) -> None:
    code = "import coloc_cli.sbatch_main, sys; print(sorted({'click', 'httpx', 'rich', 'numpy'} & set(sys.modules)))"
    from tests.cli.conftest import python_path

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=python_path(), check=True)
    assert done.stdout == "[]\n"
