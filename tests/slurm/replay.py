"""`CliSlurm` on the recorded answers of a release (tools/record_slurm.py)."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from colocd.clock import SystemClock
from colocd.config import SlurmConfig
from colocd.errors import SlurmRefused
from colocd.slurm.cli import CliSlurm
from colocd.slurm.shell import Shell

DATA = Path(__file__).with_name("data")
_NONCE = re.compile(r":0([<>])[\w~]+")


def plain(argv: Sequence[str]) -> list[str]:
    """The command with NONCE for the random word."""
    return [_NONCE.sub(r":0\1NONCE", word) for word in argv]


class Replay(Shell):
    """Answers as the recorded Slurm did; a command that was not recorded fails."""

    def __init__(self, folder: Path) -> None:
        super().__init__(SlurmConfig(), SystemClock())
        self.folder = folder
        recorded = json.loads((folder / "answers.json").read_text())
        self.answers = {tuple(answer["argv"]): answer["out"] for answer in recorded}

    def ask(self, *argv: str) -> str:
        key = tuple(plain(argv))
        if key not in self.answers:
            raise SlurmRefused(f"not recorded: {argv}")
        nonce = re.search(r":0[<>]([\w~]+)", " ".join(argv))
        text: str = self.answers[key]
        return text.replace("NONCE", nonce[1]) if nonce else text

    def slurm(self) -> CliSlurm:
        """An adapter that reads these answers."""
        slurm = CliSlurm(SlurmConfig(), SystemClock())
        slurm._shell = self
        return slurm
