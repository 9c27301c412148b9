"""`coloc sbatch` against a stub sbatch that writes down what it was given."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from colocd.core.comment import parse_comment
from colocd.core.view import Checkpoint

Fresh = Callable[..., subprocess.CompletedProcess[bytes]]
Sbatch = Callable[..., Any]

STUB = """#!{python} -S
import json, os, sys
words = sys.argv[1:]
script = None
for word in words:
    if word.startswith("/proc/self/fd/"):
        script = open(word).read()
record = {{"argv": [os.fsencode(w).decode("latin-1") for w in words], "stdin": sys.stdin.read(), "script": script}}
open(os.environ["RECORD"], "a").write(json.dumps(record) + "\\n")
sys.stderr.write("sbatch: a word of its own\\n")
print("Submitted batch job 17")
sys.exit(int(os.environ.get("STUB_CODE", "0")))
"""


class Call:
    """One call of the stub: its words, and how the wrapper ended."""

    def __init__(self, done: subprocess.CompletedProcess[bytes], records: list[dict[str, Any]]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout.decode(), done.stderr.decode()
        self.calls = len(records)
        self.argv: list[str] = records[0]["argv"] if records else []
        self.stdin = records[0]["stdin"] if records else None
        self.script = records[0]["script"] if records else None

    @property
    def comment(self) -> str:
        return next(w.removeprefix("--comment=") for w in self.argv if w.startswith("--comment="))

    @property
    def mark(self) -> Checkpoint | None:
        return parse_comment(self.comment)

    @property
    def remarks(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("coloc: ")]


@pytest.fixture
def sbatch(fresh: Fresh, tmp_path: Path) -> Sbatch:
    folder = tmp_path / "bin"
    folder.mkdir()
    stub = folder / "sbatch"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    record = tmp_path / "record"

    def call(*words: str, stdin: bytes = b"", **environ: str) -> Call:
        record.unlink(missing_ok=True)
        given = {
            "RECORD": str(record),
            "COLOC_CONFIG": str(tmp_path / "none"),
            "PATH": f"{folder}:{os.environ['PATH']}",
        }
        done = fresh("coloc_cli.sbatch_main", *words, stdin=stdin, cwd=work, **{**given, **environ})
        lines = record.read_text().splitlines() if record.exists() else []
        return Call(done, [json.loads(line) for line in lines])

    return call


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str, name: str = "job.sh") -> str:
        path = tmp_path / name
        path.write_text("#!/bin/sh\n" + text)
        return str(path)

    return write


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
        ("--coloc-grace=", "not a time"),
        ("--coloc-to=me", "batch, steps, all"),
        ("--coloc-to=all", "needs --signal"),
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


def test_users_hold_is_explained(sbatch: Sbatch) -> None:
    assert "scontrol hold" in sbatch("-H", "--wrap=x").remarks[0]


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
