"""Topology files from the command line: read, told apart by content, every failure a `BadFile` with file and line."""

import sys
from pathlib import Path

from coloc_topology.errors import TopologyError
from coloc_topology.hostlist import expand
from coloc_topology.source import Source, decode, read_source
from colocd.errors import BadFile, BadRequest

HINT = "give an output of `nvidia-smi topo -m` or `rocm-smi --showtopo`, a dump of `coloc topo dump`, or a gres.conf"
LARGEST = 16 << 20


def read_text(path: str, hint: str = HINT) -> str:
    """The text of a file (`-`: stdin), whatever its bytes are; raises `BadFile` with this hint."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "is no name of a file"
        raise BadFile(f"{path} cannot be read: {reason}", hint) from None
    if len(data) > LARGEST:
        raise BadFile(f"{path} is larger than {LARGEST >> 20} MiB", hint)
    return decode(data)


def read_file(path: str, text: str | None = None) -> Source:
    """An nvidia-smi output or an NVML dump; raises `BadFile`."""
    try:
        return read_source(read_text(path) if text is None else text, stem(path))
    except TopologyError as error:
        raise BadFile(f"{path}, {error}", HINT) from None


def stem(path: str) -> str:
    """A name for what is in a file."""
    return "stdin" if path == "-" else Path(path).stem


def is_file(word: str) -> bool:
    """Whether a word of the command line means a file and not a node."""
    try:
        return word == "-" or "/" in word or Path(word).is_file()
    except (OSError, ValueError):
        return False


def hosts(text: str) -> tuple[str, ...]:
    """The names of a host list; raises `BadRequest`."""
    try:
        return expand(text)
    except TopologyError as error:
        raise BadRequest(
            f"{text[:80]!r} is no host list: {error.reason}", "write it as Slurm does: n[1-4],gpu07"
        ) from None
