"""The script of a service, script files, and the sbatch options that come with it."""

import os
from pathlib import Path

import pytest
from tests.services.test_servicefile import refused, service

from colocd.errors import BadFile
from colocd.sbatch_options import option_reason, script_reason
from colocd.servicefile import inline_script, parse_service


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('"echo"', 'must start with "#!"'),
        ('""', 'must start with "#!"'),
        ("'''#! \necho'''", "must name an interpreter"),
        ('"#!/bin/sh\\n\\u0000"', "contains a NUL character"),
        (
            "'''#!/bin/sh\n#SBATCH --time=3 -J x\n'''",
            "line 2 of the script has the option '-J', but coloc sets --job-name",
        ),
        ("3", "must be a text"),
    ],
)
def test_bad_scripts(script: str, reason: str) -> None:
    assert refused(service(script=f"script = {script}\n")).startswith(f"f:5: script: {reason}")


def test_windows_line_ends_become_plain_ones(tmp_path: Path) -> None:
    expected = parse_service(service(), "f")
    assert parse_service(service().replace("\n", "\r\n"), "f") == expected
    escaped = service(script='script = "#!/bin/bash\\r\\nexec serve --port \\"$COLOC_PORT\\"\\r\\n"\n')
    assert parse_service(escaped, "f") == expected
    (tmp_path / "run.sh").write_bytes(expected.script.replace("\n", "\r\n").encode())
    assert parse_service(service(script="script_file = 'run.sh'\n"), str(tmp_path / "f.toml")) == expected


def test_a_script_is_needed_once(tmp_path: Path) -> None:
    assert refused(service(script="")) == "f:1: script: is missing; give script or script_file"
    assert "beside script" in refused(service("script_file = 'x'\n"))


def test_script_file_is_read_from_below_the_service_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "run.sh").write_text("#!/bin/bash\n: $COLOC_PORT\n")
    spec = parse_service(service(script="script_file = 'sub/run.sh'\n"), str(tmp_path / "f.toml"))
    assert spec.script == "#!/bin/bash\n: $COLOC_PORT\n"


def test_script_file_needs_an_absolute_file_name() -> None:
    said = refused(service(script="script_file = 'run.sh'\n"), "f.toml")
    assert said == "f.toml:5: script_file: can only be read here when the service file is named by its absolute path"


@pytest.mark.parametrize(
    "script", ["#!/bin/bash\n: $COLOC_PORT\n", '#!/bin/sh\n"\\\x7f\x01 é \U0001f600 \u2028\r\n\\u0041']
)
def test_a_script_file_can_be_put_into_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.sh").write_bytes(script.encode())
    text = service(script="'script_file'='run.sh' # here\n")
    sent = inline_script(text, "f.toml")
    spec = parse_service(sent, "f.toml")
    assert spec.script == script.replace("\r\n", "\n")
    assert spec == parse_service(text, str(tmp_path / "f.toml"))
    assert sent.count("\n") == text.count("\n")
    assert refused(sent.replace("= 32", "= 0"), "f.toml").startswith("f.toml:7: capacity.per_replica")
    assert inline_script(sent, "f.toml") == sent


@pytest.mark.parametrize("name", ["'missing.sh'", "3", "'../x'", '"""\nrun.sh"""'])
def test_a_script_file_that_cannot_be_put_into_the_text(tmp_path: Path, name: str) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    with pytest.raises(BadFile, match=r"f\.toml:5: script_file: "):
        inline_script(service(script=f"script_file = {name}\n"), str(tmp_path / "f.toml"))


def test_script_files_that_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "outside.sh").write_text("#!/bin/sh\n")
    (folder / "link.sh").symlink_to("../outside.sh")
    (folder / "loop.sh").symlink_to("loop.sh")
    (folder / "bin.sh").write_bytes(b"#!/bin/sh\n\xff")
    (folder / "plain.sh").write_text("echo")
    os.mkfifo(folder / "pipe.sh")
    reasons = {
        "../outside.sh": "must be a path below",
        "/etc/passwd": "must be a path below",
        "": "must not be empty",
        "link.sh": "outside the folder",
        "loop.sh": "cannot be read",
        "bin.sh": "is not UTF-8",
        "plain.sh": 'must start with "#!"',
        "pipe.sh": "is not a regular file",
        ".": "cannot be read",
        "missing.sh": "No such file",
    }
    for name, reason in reasons.items():
        said = refused(service(script=f"script_file = '{name}'\n"), str(folder / "f.toml"))
        assert said.startswith(f"{folder}/f.toml:5: script_file: ")
        assert reason in said
    assert "must be a text" in refused(service(script="script_file = 3\n"))


@pytest.mark.parametrize(
    "word",
    [
        "--job-name=x",
        "--comment=x",
        "--partition=p",
        "--gres=gpu:1",
        "--gpus=1",
        "--gpus-per-node=1",
        "--nodelist=n",
        "--reservation=r",
        "--hold",
        "--requeue",
        "--no-requeue",
        "--uid=0",
        "--gid=0",
        "--array=1-9",
        "--wrap=x",
        "--exclusive",
        "--nodel=n",
        "--jo=x",
        "--res=x",
        "--u=0",
        "--export=ALL",
        "--parsable",
        "--test-only",
        "--help",
        "-Jx",
        "-H",
        "x",
        "--",
        "--account",
        "run.sh",
        "",
        "--account=a\n",
    ],
)
def test_options_that_are_refused(word: str) -> None:
    assert option_reason(word) is not None


@pytest.mark.parametrize(
    "word",
    [
        "--output=x",
        "--error=x",
        "--account=x",
        "--qos=x",
        "--time=1",
        "--mem=4G",
        "--nice",
        "--signal=B:USR1@60",
        "--chdir=/x",
    ],
)
def test_options_that_are_taken(word: str) -> None:
    assert option_reason(word) is None


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("#!/bin/sh\n#SBATCH -A lab --mem=0 # --hold\n##SBATCH -H\necho\n#SBATCH --hold\n", None),
        ("#!/bin/sh\n\n# x\n#SBATCH -QH\n", 4),
        ("#!/bin/sh\n#SBATCH -Ahold\n", None),
        ("#!/bin/sh\n#SBATCH --gpus=3\n", 2),
        ("#!/bin/sh\n#SBATCH hetjob\n", 2),
        ("#!/bin/sh\n#SBATCH --comment='x\n", 2),
    ],
)
def test_sbatch_lines_of_the_script(script: str, line: int | None) -> None:
    found = script_reason(script)
    assert (found[0] if found else None) == line
