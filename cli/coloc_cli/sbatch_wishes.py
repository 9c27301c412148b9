"""What a batch job wishes of coloc: from --signal, coloc's own options, `#COLOC` lines and presets."""

import math
import re
import signal as signals
from collections.abc import Mapping
from datetime import datetime

import msgspec

from coloc_cli.presets import Preset, preset
from coloc_cli.sbatch_options import CommandLine, read
from colocd.core.comment import SIGNALS
from colocd.errors import BadRequest

TARGETS = ("batch", "steps", "all", "program")
ACKS = ("report", "exit", "file", "requeue", "command")
_HELP = "see `coloc sbatch --help`"
_SIGNAL = re.compile(r"((?:[RB]:?){0,2})(?:SIG)?([A-Z0-9]+)(?:@([0-9]*))?\Z", re.IGNORECASE)
_SECONDS = re.compile(r"([0-9]+(?:\.[0-9]*)?)([smhd]?)\Z")
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_STEP = re.compile(r"step:[0-9]{1,6}\Z")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """How one job is asked to save and says that it has. Durations are seconds; None: not told.

    `signal` goes to the program (`to`), None: nothing does. `ask` are the signals on which the embedded program asks it.
    """

    signal: str | None = None
    to: str = "batch"
    ask: tuple[str, ...] = ("USR1",)
    ack: str = "report"
    exits: tuple[int, ...] = ()
    """Exit codes that say "saved" with ack `exit`; empty: any."""
    files: str | None = None
    checkpoint: str | None = None
    resume: str | None = None
    resume_arg: str | None = None
    interval: float | None = None
    cost: float | None = None
    restart: float | None = None
    grace: float | None = None
    deadline: float | None = None
    rank: str | None = None

    @property
    def wrapped(self) -> bool:
        """Whether a program of coloc's has to run around the script."""
        own = (self.files, self.checkpoint, self.resume, self.resume_arg)
        return self.to not in ("batch", "steps", "all") or self.ack in ("exit", "file", "command") or any(own)


class Own:
    """Coloc's own options: the command line's, then the script's `#COLOC` lines."""

    def __init__(self, line: CommandLine, script: list[list[str]]) -> None:
        self._lines = [line, _inner(script)]

    def text(self, key: str) -> str | None:
        """The value of `--coloc-KEY`; None: not given. Raises `BadRequest` when it was given without one."""
        name = f"coloc-{key}"
        for line in self._lines:
            if line.has(name):
                value = line.last(name)
                if not value:
                    raise BadRequest(f"--{name} needs a value", _HELP)
                return value
        return None

    def flag(self, key: str) -> bool:
        """Whether `--coloc-KEY` was given."""
        return any(line.has(f"coloc-{key}") for line in self._lines)

    def seconds(self, key: str) -> float | None:
        """A time in seconds; None: not given."""
        text = self.text(key)
        return None if text is None else _time(f"--coloc-{key}={text}", text)


def wishes(own: Own, signal: str | None, now: float) -> tuple[Wishes, str | None]:
    """What the job wishes, and a remark for the user. `signal` is the value of --signal that applies; `now`: Unix seconds.

    Raises `BadRequest` for a wrong value of one of coloc's own options; a wrong --signal is left to sbatch.
    """
    name, slurm_to, grace, remark = _slurms(signal) if signal is not None else (None, None, None, None)
    chosen = own.text("preset")
    base = preset(chosen) if chosen is not None else None
    own_signal = _signal_name(own.text("signal"))
    mine = own_signal or (base.signal if base else None)
    own_to = own.text("to")
    if own_to is not None and own_to not in TARGETS and not _STEP.match(own_to):
        raise BadRequest(f"--coloc-to={own_to} is not one of {', '.join(TARGETS)}, step:N", _HELP)
    if own_to is not None and mine is None and name is None:
        raise BadRequest("--coloc-to needs a signal: it says who gets it", "add --coloc-signal or --signal")
    to = own_to or (base.to if base else None) or ("program" if own_signal else slurm_to) or "batch"
    checkpoint, files = own.text("checkpoint"), own.text("files")
    ack, exits, pattern = _ack(own.text("ack"), base, to, checkpoint)
    own_grace = own.seconds("grace")
    if own_grace is None:
        own_grace = grace if grace is not None else base.grace if base else None
    found = Wishes(
        signal=mine or name,
        to=to,
        ask=("USR1", *((name,) if name is not None and slurm_to == "batch" and name != "USR1" else ())),
        ack=ack,
        exits=exits,
        files=pattern or files,
        checkpoint=checkpoint,
        resume=own.text("resume"),
        resume_arg=own.text("resume-arg"),
        interval=_interval(own),
        cost=own.seconds("cost"),
        restart=own.seconds("restart"),
        grace=own_grace,
        deadline=_deadline(own.text("deadline"), now),
        rank=_rank(own.text("class")),
    )
    if ack == "file" and found.files is None:
        raise BadRequest("--coloc-ack=file needs a pattern", "write --coloc-ack='file:ckpt/*.pt', or add --coloc-files")
    if ack == "command" and checkpoint is None:
        raise BadRequest("no command saves this job", "add --coloc-checkpoint=COMMAND")
    if ack == "exit" and found.signal is None and checkpoint is None:
        raise BadRequest(
            "--coloc-ack=exit needs a signal that makes the program save and end", "add --coloc-signal=TERM"
        )
    return found, remark


def _inner(script: list[list[str]]) -> CommandLine:
    words = [word for one in script for word in one]
    line = read(words)
    if line.end < len(words) or any(not (o.name or "").startswith("coloc-") for o in line.options):
        wrong = next((words[o.first] for o in line.options if not (o.name or "").startswith("coloc-")), None)
        raise BadRequest(
            f"a #COLOC line has {wrong or words[line.end]!r}, which is no option of coloc's",
            "write options of sbatch in #SBATCH lines",
        )
    return line


def _interval(own: Own) -> float | None:
    seconds = own.seconds("interval")
    if seconds == 0:
        raise BadRequest(
            "--coloc-interval=0: no program saves without a pause", "say how often it saves, or leave it out"
        )
    return seconds


def _slurms(text: str) -> tuple[str | None, str, float | None, str | None]:
    """Signal, target and seconds of sbatch's --signal, and a remark."""
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


def _signal_name(text: str | None) -> str | None:
    if text is None:
        return None
    name = text.upper().removeprefix("SIG")
    if name not in SIGNALS:
        raise BadRequest(f"--coloc-signal={text} cannot ask for a checkpoint", f"signals: {', '.join(sorted(SIGNALS))}")
    return name


def _ack(
    text: str | None, base: Preset | None, to: str, checkpoint: str | None
) -> tuple[str, tuple[int, ...], str | None]:
    """Kind of acknowledgement, exit codes, file pattern."""
    if text is None:
        text = base.ack if base else "command" if checkpoint else "exit" if to == "program" else "report"
    kind, colon, rest = text.partition(":")
    if kind == "exit" and (not colon or re.fullmatch(r"[0-9]{1,3}(,[0-9]{1,3})*", rest)):
        codes = tuple(map(int, rest.split(","))) if rest else ()
        if all(code < 256 for code in codes):
            return kind, codes, None
    elif kind == "file" and (not colon or rest):
        return kind, (), rest or None
    elif kind in ACKS and kind != "exit" and not colon:
        return kind, (), None
    raise BadRequest(f"--coloc-ack={text} is not one of report, exit, exit:CODE, file:PATTERN, requeue, command", _HELP)


def _time(word: str, text: str) -> float:
    found = _SECONDS.match(text)
    value = float(found.group(1)) * _UNITS[found.group(2)] if found else math.nan
    if not math.isfinite(value):
        raise BadRequest(f"{word} is not a time", "write seconds, or 90s, 5m, 2h")
    return value


def _deadline(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    if _SECONDS.match(text):
        return now + _time(f"--coloc-deadline={text}", text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise BadRequest(f"--coloc-deadline={text} is no time", "write 2026-12-01T08:00, or from now on: 8h") from None


def _rank(text: str | None) -> str | None:
    if text is not None and not _NAME.match(text):
        raise BadRequest(f"--coloc-class={text} is no name of a class", "letters, digits, `.`, `_` and `-`")
    return text


def told(found: Wishes) -> Mapping[str, object]:
    """The wishes for a person: what --coloc-dry-run shows."""
    return {k: v for k, v in msgspec.structs.asdict(found).items() if v not in (None, ())}
