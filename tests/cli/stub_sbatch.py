"""A stub sbatch that writes down what it was given, and the wrapper in front of it."""

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
