"""The checkpoint mark of a job that `coloc sbatch` submits: from --signal and from coloc's own options."""

import math
import re
import signal as signals

import msgspec

from coloc_cli.sbatch_options import CommandLine
from colocd.core.comment import SIGNALS, TARGETS, with_checkpoint
from colocd.core.view import Checkpoint
from colocd.errors import BadRequest

LONGEST_COMMENT = 1024
"""Bytes of a comment that Slurm accepts."""
_SIGNAL = re.compile(r"((?:[RB]:?){0,2})(?:SIG)?([A-Z0-9]+)(?:@([0-9]*))?\Z", re.IGNORECASE)
_SECONDS = re.compile(r"([0-9]+(?:\.[0-9]*)?)([smhd]?)\Z")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def checkpoint(line: CommandLine, signal: str | None) -> tuple[Checkpoint, str | None]:
    """What the job says of its checkpoints, and a remark for the user. `signal` is the value of --signal that applies.

    Raises `BadRequest` for a wrong value of one of coloc's own options; a wrong --signal is left to sbatch.
    """
    name, to, grace, remark = _signal(signal) if signal is not None else (None, "batch", None, None)
    own_to = line.last("coloc-to")
    if own_to is not None:
        if own_to not in TARGETS:
            raise BadRequest(f"--coloc-to={own_to} is not one of {', '.join(TARGETS)}", _HELP)
        if name is None:
            raise BadRequest("--coloc-to needs --signal: it says who gets the signal", _HELP)
        to = own_to
    own_grace = _seconds(line, "grace")
    facts = Checkpoint(
        signal=name,
        to=to,
        interval=_seconds(line, "interval"),
        cost=_seconds(line, "cost"),
        grace=grace if own_grace is None else own_grace,
    )
    return facts, remark


def comment(users: str, facts: Checkpoint) -> str:
    """The user's comment with the mark behind it; raises `BadRequest` when Slurm would not take it, now or later."""
    later = msgspec.structs.replace(facts, saved=9999999999.0, yielded=9999999999.0)
    longest = with_checkpoint(users, later)
    over = len(longest.encode(errors="surrogateescape")) - LONGEST_COMMENT
    if over > 0:
        raise BadRequest(f"the comment is {over} bytes too long to keep coloc's mark behind it", "shorten --comment")
    return with_checkpoint(users, facts)


_HELP = "see `coloc sbatch --help`"


def _signal(text: str) -> tuple[str | None, str, float | None, str | None]:
    found = _SIGNAL.match(text)
    if found is None:
        return None, "batch", None, None
    flags, word, time = found.groups()
    to = "batch" if "B" in flags.upper() else "steps"
    name = word.upper()
    if name.isdigit():
        try:
            name = signals.Signals(int(name)).name.removeprefix("SIG")
        except ValueError:
            name = f"number {name}"
    if name not in SIGNALS:
        return None, to, None, f"signal {name} cannot ask for a checkpoint, so coloc will not signal the job"
    return name, to, float(time) if time else None, None


def _seconds(line: CommandLine, key: str) -> float | None:
    text = line.last(f"coloc-{key}")
    if text is None:
        if line.has(f"coloc-{key}"):
            raise BadRequest(f"--coloc-{key} needs a value", _HELP)
        return None
    found = _SECONDS.match(text)
    value = float(found.group(1)) * _UNITS[found.group(2)] if found else math.nan
    if not math.isfinite(value):
        raise BadRequest(f"--coloc-{key}={text} is not a time", "write seconds, or 90s, 5m, 2h")
    return value
