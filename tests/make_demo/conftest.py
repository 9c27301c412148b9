"""Real processes of the demo's programs; each test ends what it started."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "demo"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a program of demo/ with the given environment on top; ended with the test."""
    with contextlib.ExitStack() as stack:

        def run(name: str, *args: str, **env: str) -> "subprocess.Popen[str]":
            python = [sys.executable] if name.endswith(".py") else []
            process = subprocess.Popen(
                [*python, str(DEMO / name), *args],
                env={**os.environ, "COLOC_COMMAND": "none", **env},
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(finish, process)
            return process

        yield run


def finish(process: "subprocess.Popen[str]") -> None:
    """End it, whatever it does."""
    process.kill()
    process.communicate(timeout=10)
