"""The batch script as sbatch sees it: where it is found, and what its `#SBATCH` lines say."""

import os
import stat
from collections.abc import Mapping

MAX_SCRIPT = 1 << 24
"""Bytes read of a script; Slurm takes 4 MiB unless max_script_size says otherwise."""
_MAGIC = "#SBATCH"
_OWN_MAGIC = "#COLOC"
_SPACE = " \t\n\v\f\r"


def find(name: str, folder: str, environ: Mapping[str, str]) -> str | None:
    """Path of the script that `sbatch name` takes; `folder` is its --chdir, else the working directory.

    sbatch looks in `folder`, then on PATH, then takes the name as it is. None: not readable anywhere, sbatch will say so.
    """
    places = [os.path.join(folder, name)]
    if not name.startswith((".", "/")):
        places += [os.path.join(entry, name) for entry in environ.get("PATH", "").split(":") if entry]
    for path in (*places, name):
        if os.access(path, os.R_OK) and not os.path.isdir(path):
            return path
    return None


def is_stream(path: str) -> bool:
    """Whether reading it consumes it (`sbatch <(generate)`), so that sbatch cannot read it again."""
    return not stat.S_ISREG(os.stat(path).st_mode)


def load(path: str) -> bytes:
    """The script's bytes."""
    with open(path, "rb") as file:
        return file.read(MAX_SCRIPT)


def directives(script: bytes) -> list[list[str]]:
    """The words of each `#SBATCH` line, up to the first line that is a command."""
    return _lines(script, _MAGIC)


def own_directives(script: bytes) -> list[list[str]]:
    """The words of each `#COLOC` line, up to the first line that is a command."""
    return _lines(script, _OWN_MAGIC)


def _lines(script: bytes, magic: str) -> list[list[str]]:
    found = []
    for line in script.decode(errors="surrogateescape").split("\n"):
        if line.startswith(magic):
            found.append(split(line[len(magic) :]))
        elif (bare := line.strip(_SPACE)) and not bare.startswith("#"):
            break
    return found


def is_het(lines: list[list[str]]) -> bool:
    """Whether the script describes a heterogeneous job."""
    return any(words and words[0] in ("hetjob", "packjob") for words in lines)


def split(text: str) -> list[str]:
    """Words of a `#SBATCH` line: quotes group, a backslash takes the next character, a bare # starts a comment."""
    words: list[str] = []
    i = 0
    while True:
        while i < len(text) and text[i] in _SPACE:
            i += 1
        word, i = _word(text, i)
        if not word:  # the end, a comment, or an empty word: sbatch reads no further
            return words
        words.append(word)


def _word(text: str, i: int) -> tuple[str, int]:
    word, quote, escaped = "", "", False
    while i < len(text) and (quote or text[i] not in _SPACE):
        char = text[i]
        if escaped:
            word, escaped = word + char, False
        elif char == "\\":
            escaped = True
        elif quote:
            if char == quote:
                quote = ""
            else:
                word += char
        elif char in "\"'":
            quote = char
        elif char == "#":
            break
        else:
            word += char
        i += 1
    return word, i
