"""`coloc sbatch` against a stub sbatch: words, scripts and signals arrive as they should."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.stub_sbatch import Sbatch

from colocd.core.view import Checkpoint


def test_golden(sbatch: Sbatch, script: Callable[[str], str]) -> None:
    path = script("#SBATCH --comment='from script'\nsleep 1\n")
    words = [
        "-N1",
        "--gpus-per-node",
        "4",
        "--signal=B:USR1@90",
        "--array=1-3%2",
        "-dafterok:7",
        "--parsable",
        path,
        "-p",
        "x y",
    ]
    job = sbatch(*words)
    assert job.argv == [
        "--hold",
        "--requeue",
        "--partition=batch",
        "--comment=from script [coloc v=1 signal=USR1 to=batch grace=90]",
        *words,
    ]
    assert (job.code, job.calls, job.stdin) == (0, 1, "")
    assert job.out == "Submitted batch job 17\n"
    assert job.err == "sbatch: a word of its own\n"


@pytest.mark.parametrize("code", [0, 1, 255])
def test_exit_code_is_sbatchs(sbatch: Sbatch, code: int) -> None:
    assert sbatch("--wrap=true", STUB_CODE=str(code)).code == code


@pytest.mark.parametrize(
    ("signal", "facts"),
    [
        ("B:USR1@90", Checkpoint(signal="USR1", to="batch", grace=90)),
        ("USR1@90", Checkpoint(signal="USR1", to="steps", grace=90)),
        ("R:USR2", Checkpoint(signal="USR2", to="steps")),
        ("RB:10@30", Checkpoint(signal="USR1", to="batch", grace=30)),
        ("BR:sigterm", Checkpoint(signal="TERM", to="batch")),
        ("12@", Checkpoint(signal="USR2", to="steps")),
        ("B15", Checkpoint(signal="TERM", to="batch")),
        ("KILL@10", Checkpoint()),
        ("nonsense!", Checkpoint()),
        ("63", Checkpoint()),
    ],
)
def test_signals(sbatch: Sbatch, signal: str, facts: Checkpoint) -> None:
    job = sbatch(f"--signal={signal}", "--wrap=true")
    assert job.mark == facts
    assert f"--signal={signal}" in job.argv
    assert len(job.remarks) == (signal in ("KILL@10", "63"))


def test_signal_comes_from_where_sbatch_takes_it(sbatch: Sbatch, script: Callable[[str], str]) -> None:
    path = script("#SBATCH --signal=HUP@1\n#SBATCH --signal B:INT@2\ntrue\n#SBATCH --signal=CONT@3\n")
    assert sbatch(path).mark == Checkpoint(signal="INT", to="batch", grace=2)
    assert sbatch(path, SBATCH_SIGNAL="QUIT@4").mark == Checkpoint(signal="QUIT", to="steps", grace=4)
    assert sbatch("--sig", "URG@5", path, SBATCH_SIGNAL="QUIT@4").mark == Checkpoint(signal="URG", to="steps", grace=5)


def test_own_options(sbatch: Sbatch) -> None:
    words = [
        "--coloc-interval=5m",
        "--coloc-cost",
        "20",
        "--coloc-grace=1.5h",
        "--coloc-to=all",
        "--signal=USR1@9",
        "--wrap=x",
    ]
    job = sbatch(*words)
    assert job.mark == Checkpoint(signal="USR1", to="all", interval=300, cost=20, grace=5400)
    assert job.argv[4:] == ["--signal=USR1@9", "--wrap=x"]


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("--coloc-interval=soon", "not a time"),
        ("--coloc-cost=-1", "not a time"),
        ("--coloc-grace=", "needs a value"),
        ("--coloc-to=me", "batch, steps, all"),
        ("--coloc-to=all", "needs a signal"),
    ],
)
def test_wrong_own_options(sbatch: Sbatch, word: str, text: str) -> None:
    job = sbatch(word, "--wrap=x")
    assert (job.code, job.calls) == (64, 0)
    assert text in job.err


@pytest.mark.parametrize(
    "name", ["plain", "a b", 'q"uote', "it's", "$(id)", "`id`", "new\nline", "ü", "-x", "a;b|c&d", "\\", "*"]
)
def test_hostile_words_pass_unchanged(sbatch: Sbatch, script: Callable[..., str], name: str) -> None:
    path = script("true\n", name="s" + name)
    job = sbatch("-J", name, "--comment", name, f"--export=A={name}", path, name)
    latin = name.encode().decode("latin-1")
    assert job.argv[3] == f"--comment={latin} [coloc v=1]"
    assert job.argv[4:] == ["-J", latin, f"--export=A={latin}", path.encode().decode("latin-1"), latin]


def test_bytes_that_are_no_text(sbatch: Sbatch) -> None:
    job = sbatch("--comment", "\udcff\udcfe", "--wrap=x")
    assert job.argv[3] == "--comment=\xff\xfe [coloc v=1]"


def test_script_on_stdin_is_read_and_passed_on(sbatch: Sbatch) -> None:
    text = "#!/bin/sh\n#SBATCH --signal=B:USR1@7 --comment=mine\nsleep 1\n"
    job = sbatch("-n", "2", stdin=text.encode())
    assert job.stdin == text
    assert job.comment == "mine [coloc v=1 signal=USR1 to=batch grace=7]"


def test_script_in_a_pipe_is_read_once(sbatch: Sbatch, tmp_path: Path) -> None:
    text = "#!/bin/sh\n#SBATCH --signal=USR1\ntrue\n"
    fifo = tmp_path / "pipe.sh"
    os.mkfifo(fifo)
    writer = subprocess.Popen(["sh", "-c", 'printf %s "$1" >"$2"', "sh", text, str(fifo)])
    job = sbatch(str(fifo), "argument")
    assert writer.wait(10) == 0
    assert job.script == text
    assert job.mark == Checkpoint(signal="USR1", to="steps")
    assert job.argv[4] == "--job-name=pipe.sh"
    assert job.argv[6:] == ["argument"]


def test_wrap_reads_no_stdin_and_no_directives(sbatch: Sbatch) -> None:
    job = sbatch("--wrap", "#SBATCH --comment=zz\ntrue", stdin=b"not mine")
    assert job.comment == "[coloc v=1]"
    assert job.stdin == "not mine"


def test_script_is_found_where_sbatch_finds_it(sbatch: Sbatch, tmp_path: Path) -> None:
    for folder, note in (("work", "cwd"), ("work/sub", "sub"), ("path", "path")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "s.sh").write_text(f"#!/bin/sh\n#SBATCH --comment={note}\n")
    assert sbatch("s.sh").comment == "cwd [coloc v=1]"
    assert sbatch("-D", "sub", "s.sh").comment == "sub [coloc v=1]"
    (tmp_path / "work/s.sh").unlink()
    path = f"{tmp_path}/bin:{tmp_path}/path:{os.environ['PATH']}"
    assert sbatch("s.sh", PATH=path).comment == "path [coloc v=1]"
    assert sbatch("missing.sh").argv[3:] == ["--comment=[coloc v=1]", "missing.sh"]
