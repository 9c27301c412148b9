"""`coloc sbatch` against a stub: #COLOC lines, presets, acknowledgements, and the script that goes around the user's."""

import ast
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.conftest import Coloc
from tests.cli.stub_sbatch import Sbatch

from coloc_cli import sbatch_wrap
from coloc_cli.presets import presets
from coloc_cli.sbatch_wishes import ACKS, TARGETS
from colocd.core.comment import SIGNALS
from colocd.core.view import Checkpoint

Script = Callable[..., str]


def test_lines_in_the_script_and_the_command_line_over_them(sbatch: Sbatch, script: Script) -> None:
    path = script(
        "#COLOC --coloc-interval=5m --coloc-cost 20 # note\n#COLOC --coloc-class=low\ntrue\n#COLOC --coloc-cost=1\n"
    )
    assert sbatch(path).mark == Checkpoint(interval=300, cost=20, rank="low")
    assert sbatch("--coloc-cost=7", path).mark == Checkpoint(interval=300, cost=7, rank="low")
    text = b"#!/bin/sh\n#COLOC --coloc-restart=9\n"
    assert sbatch(stdin=text).mark == Checkpoint(restart=9)


@pytest.mark.parametrize("line", ["-n2", "--time=5", "--coloc-cost=5 --mem=1", "stray", "--coloc-nonsense=1", "-- x"])
def test_lines_take_colocs_own_options_only(sbatch: Sbatch, script: Script, line: str) -> None:
    job = sbatch(script(f"#COLOC {line}\n"))
    assert (job.code, job.calls) == (64, 0)
    assert "#COLOC line" in job.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--coloc-interval=0"], "no program saves without a pause"),
        (["--coloc-preset=torch"], "no preset 'torch'"),
        (["--coloc-signal=KILL"], "cannot ask"),
        (["--coloc-ack=done"], "is not one of"),
        (["--coloc-ack=exit:256", "--coloc-signal=TERM"], "is not one of"),
        (["--coloc-ack=exit:x"], "is not one of"),
        (["--coloc-ack=report:1"], "is not one of"),
        (["--coloc-ack=file"], "needs a pattern"),
        (["--coloc-ack=file:"], "is not one of"),
        (["--coloc-ack=command"], "no command saves"),
        (["--coloc-ack=exit"], "needs a signal"),
        (["--coloc-preset=command"], "no command saves"),
        (["--coloc-to=step:x", "--coloc-signal=TERM"], "step:N"),
        (["--coloc-deadline=someday"], "is no time"),
        (["--coloc-class=a b"], "no name of a class"),
        (["--coloc-preset"], "needs a value"),
        (["--comment=x [coloc-place v=1]"], "its comment asks for a place"),
        (["--comment", "[coloc_place v=2"], "its comment asks for a place"),
    ],
)
def test_wrong_options_are_refused_with_a_reason(sbatch: Sbatch, words: list[str], text: str) -> None:
    job = sbatch("--wrap=x", *words)
    assert (job.code, job.calls) == (64, 0)
    assert text in job.err
    assert "Traceback" not in job.err


def test_deadlines(sbatch: Sbatch) -> None:
    assert sbatch("--coloc-deadline=2026-12-01T08:00+00:00", "--wrap=x").mark.deadline == 1796112000
    assert sbatch("--coloc-deadline=2h", "--wrap=x").mark.deadline > 1_760_000_000


def test_a_hold_of_the_users_own_is_marked(sbatch: Sbatch, script: Script) -> None:
    assert sbatch("-H", "--wrap=x").mark == Checkpoint(hold="user")
    assert sbatch(script("#SBATCH --hold\n")).mark == Checkpoint(hold="user")
    assert sbatch("--wrap=x").mark == Checkpoint()


def test_the_registry_is_sound(coloc: Coloc) -> None:
    assert {"plain", "lightning", "submitit", "hf", "megatron", "torchrun", "orbax", "command"} <= set(presets())
    for name, one in presets().items():
        assert one.ack in ACKS, name
        assert one.to in TARGETS, name
        assert one.signal is None or one.signal in SIGNALS, name
        assert (Path(__file__).parents[2] / "examples" / one.example).is_file(), name
        assert one.needs in coloc("presets", name).out
    assert [row["title"] for row in coloc("presets", "--json").json.values()] == [p.title for p in presets().values()]
    assert coloc("presets", "nope").code == 64
    assert all(name in coloc("presets").out for name in presets())


@pytest.mark.parametrize(
    ("name", "mark"), [("plain", Checkpoint(signal="USR1")), ("submitit", Checkpoint(signal="USR2", to="steps"))]
)
def test_presets_that_need_nothing_around_them(sbatch: Sbatch, script: Script, name: str, mark: Checkpoint) -> None:
    job = sbatch(f"--coloc-preset={name}", script("true\n"), "word")
    assert (job.mark, job.script) == (mark, None)
    assert job.argv[-1] == "word"


def test_a_preset_goes_around_the_script(sbatch: Sbatch, script: Script) -> None:
    path = script(
        "#SBATCH -n2 --comment='my own'\n#SBATCH --signal=B:USR2@40\n# note\necho 'é' \"$@\"\n#SBATCH -n9\n",
        name="a b.sh",
    )
    job = sbatch("-c3", "--coloc-preset=torchrun", "--coloc-resume-arg=--again 'it''s'", path, "x y")
    assert job.comment == "my own [coloc v=1 signal=USR1 to=batch grace=40]"
    assert job.argv[:2] == ["--hold", "--requeue"]
    assert job.argv[4:6] == ["--job-name=a b.sh", "-c3"]
    assert job.argv[-1] == "x y"
    head, _, rest = job.script.partition("cat >")
    assert head.splitlines()[:3] == ["#!/bin/sh", "#SBATCH -n2 --comment='my own'", "#SBATCH --signal=B:USR2@40"]
    assert "#SBATCH -n9" not in head
    assert Path(path).read_text() in rest
    assert "--ask=USR1,USR2 --send=TERM --to=program --ack=exit" in rest
    assert "'--resume-arg=--again '\"'\"'it'\"'\"''\"'\"'s'\"'\"''" in rest
    assert subprocess.run(["sh", "-n"], input=job.script.encode(), check=False).returncode == 0


def test_wrap_and_stdin_with_a_preset(sbatch: Sbatch) -> None:
    job = sbatch("--coloc-preset=hf", "--wrap", "echo $(id) 'q'")
    assert not any(word.startswith("--wrap") for word in job.argv)
    assert job.argv[-1] == "--job-name=wrap"
    assert "# This script was created by sbatch --wrap.\n\necho $(id) 'q'\n" in job.stdin
    job = sbatch("--coloc-preset=hf", "-Jmine", stdin=b"#!/bin/bash\necho hello\n")
    assert "#!/bin/bash\necho hello\nCOLOC-END" in job.stdin
    assert not any(word.startswith("--job-name") for word in job.argv)


@pytest.mark.parametrize(
    "text", [b"", b"echo no shebang\n", b"#!/bin/sh\r\necho dos\r\n", b"#!/bin/sh\n\0\n", b"\x7fELF\x02\x01\xff"]
)
def test_what_sbatch_would_refuse_goes_to_it_as_it_is(sbatch: Sbatch, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bad.sh"
    path.write_bytes(text)
    job = sbatch("--coloc-preset=hf", str(path))
    assert (job.calls, job.script, job.argv[-1]) == (1, None, str(path))


def test_a_script_with_the_end_mark_of_its_own_is_kept_whole(sbatch: Sbatch, script: Script) -> None:
    text = "cat <<'COLOC-END-0'\nx\nCOLOC-END-0\necho done"  # and no line end
    assert f"{text}\nCOLOC-END-" in sbatch("--coloc-preset=hf", script(text)).script


def test_dry_run_shows_the_whole_script(sbatch: Sbatch, script: Script) -> None:
    job = sbatch("--coloc-dry-run", "--coloc-preset=hf", script("echo mine\n"))
    assert (job.code, job.calls) == (0, 0)
    assert job.out.startswith("sbatch --hold --requeue")
    assert "echo mine\n" in job.out
    assert "class Runner" in job.out
    assert sbatch(script("#COLOC --coloc-dry-run\n")).calls == 0


def test_the_embedded_program_runs_on_old_pythons() -> None:
    text = sbatch_wrap.helper().decode()
    ast.parse(text, feature_version=(3, 6))
    assert "coloc_cli" not in text
    assert "removeprefix" not in text
    assert "capture_output" not in text
