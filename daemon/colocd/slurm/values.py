"""Slurm's notations as Python values: times, limits, counts of GPUs, masks of GPUs. Pure; unknown is None."""

import datetime as dt
import re
from functools import lru_cache

from coloc_topology.errors import TopologyError
from coloc_topology.hostlist import expand

NOTHING = frozenset({"", "(null)", "N/A", "n/a", "None", "Unknown", "NONE"})
SHARES = ("shard", "mps")
"""Generic resources that are parts of GPUs."""
YEAR = 365 * 86400.0
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", re.ASCII)
_LIMIT = re.compile(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)")
_ENTRY = re.compile(r"([^,(]+)(?:\(([^)]*)\))?")


def word(text: str) -> str | None:
    """The text, or None for Slurm's many words for nothing."""
    text = text.strip()
    return None if text in NOTHING else text


def number(text: str) -> int | None:
    """A whole number; None for anything else, and for Slurm's NO_VAL and INFINITE."""
    text = text.strip()
    value = int(text) if text.isascii() and text.isdigit() else None
    return None if value is None or value >= 0xFFFFFFFC else value


@lru_cache(4096)
def moment(text: str) -> float | None:
    """Unix seconds of a time that a command printed with TZ=UTC; None: unknown."""
    found = _MOMENT.fullmatch(text.strip())
    try:
        return None if found is None else dt.datetime.fromisoformat(found[0]).replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        return None


@lru_cache(4096)
def limit(text: str) -> float | None:
    """Seconds of a time limit (`10:00`, `2-01:00:00`); None: unlimited or unknown.

    When a job without a limit starts, Slurm writes a year in its place; that is None, too.
    """
    found = _LIMIT.fullmatch(text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    total = days * 86400.0 + hours * 3600 + minutes * 60 + seconds
    return None if total >= YEAR else total


@lru_cache(4096)
def names(text: str) -> tuple[str, ...]:
    """The names of a host list; empty when there are none or it cannot be read."""
    found = word(text)
    if found is None:
        return ()
    try:
        return expand(found)
    except TopologyError:
        return ()


@lru_cache(4096)
def dependency(text: str) -> str | None:
    """What a job depends on, its conditions in a fixed order: adapters tell them in orders of their own. None: nothing."""
    found = word(text)
    if found is None:
        return None
    either = "?" if "?" in found else ","
    return either.join(sorted(found.split(either)))


@lru_cache(4096)
def gpus_in(text: str) -> int:
    """GPUs in a TRES request: `gres:gpu:2`, `gres/gpu:h100:2,gres/nvme:1`, `gres:gpu` (one); 0 when there are none."""
    total = 0
    for item in text.split(","):
        parts = re.split(r"[:/=]", item.strip())
        if parts[:2] == ["gres", "gpu"]:
            total += next((int(part) for part in reversed(parts[2:]) if part.isdigit()), 1)
    return total


def types_of(gres: str) -> tuple[str, ...]:
    """The gres type of each GPU, from a node's `Gres=`: `gpu:a:2(S:0),gpu:b:1` gives a, a, b. Empty: untyped.

    Slurm numbers a node's GPUs type by type in this order, whatever the order of gres.conf is (22.05).
    """
    found: list[str] = []
    for entry, _ in _ENTRY.findall(gres):
        parts = entry.strip().split(":")
        if parts[0] == "gpu" and parts[-1].isdigit():
            found += [":".join(parts[1:-1])] * int(parts[-1])
    return tuple(found)


def mask(gres: str) -> int | None:
    """GPU mask of `gpu:a:2(IDX:0-1),gpu:b:0(IDX:)`, 0 when it names no GPUs; None: some without their indices.

    GPUs of which a share is in use (`shard:3(IDX:4)`, `mps:…`) are in it: Slurm gives such a GPU to nobody else.
    """
    total = 0
    for entry, note in _ENTRY.findall(gres):
        parts = entry.strip().split(":")
        if parts[0] not in ("gpu", *SHARES):
            continue
        found = indices(note.removeprefix("IDX:")) if note.startswith("IDX:") else 0
        if parts[0] in SHARES and found is not None:
            total |= found  # the number is one of shares, not of GPUs
            continue
        if found is None or not parts[-1].isdigit() or found.bit_count() != int(parts[-1]) or total & found:
            return None
        total |= found
    return total


def indices(text: str) -> int | None:
    """Mask of `0-2,5`; 0 for nothing; None when it makes no sense."""
    if text in NOTHING:
        return 0
    total = 0
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", part)
        if found is None:
            return None
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last > 255:
            return None
        total |= ((1 << (last - first + 1)) - 1) << first
    return total
