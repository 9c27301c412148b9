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
        self.answers: dict[tuple[str, ...], str] = {tuple(answer["argv"]): answer["out"] for answer in recorded}

    def ask(self, *argv: str) -> str:
        key = tuple(plain(argv))
        nonce = re.search(r":0[<>]([\w~]+)", " ".join(argv))
        if key in self.answers:
            text: str = self.answers[key]
        elif nonce is not None:
            text = self._other_columns(key)
        else:
            raise SlurmRefused(f"not recorded: {argv}")
        return text.replace("NONCE", nonce[1]) if nonce else text

    def _other_columns(self, key: tuple[str, ...]) -> str:
        """squeue's answer with the columns that are asked for now; one that was not recorded is told as N/A."""
        recorded = next((k for k in self.answers if k[:-1] == key[:-1]), None)
        if recorded is None:
            raise SlurmRefused(f"not recorded: {key}")
        old, new = ([word.partition(":")[0] for word in k[-1].split(",")] for k in (recorded, key))
        rows = [
            dict(zip(old, body.split("<NONCE"), strict=True)) for body in self.answers[recorded].split(">NONCE\n")[:-1]
        ]
        return "".join("<NONCE".join(row.get(name, "N/A") for name in new) + ">NONCE\n" for row in rows)

    def slurm(self) -> CliSlurm:
        """An adapter that reads these answers."""
        slurm = CliSlurm(SlurmConfig(), SystemClock())
        slurm._shell = self
        return slurm
