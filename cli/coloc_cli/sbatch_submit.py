"""From the user's sbatch command line to the one that is run: held, requeueable, in the batch partition, marked."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from coloc_cli import sbatch_mark, sbatch_room, sbatch_script, sbatch_wishes, sbatch_wrap
from coloc_cli.sbatch_options import OWN, CommandLine, read
from colocd.errors import BadRequest

T = TypeVar("T")
_INFORMS = ("help", "usage", "version", "autocomplete")


class Submission(NamedTuple):
    """What is run: sbatch's words, its script where coloc hands it over (None: sbatch reads it itself), and remarks.

    `stream_at` is the place in `words` of a script that has to be handed over under a new name, because it could be read only
    once or coloc changed it; None: it goes to stdin, or sbatch reads the file.
    `shown` is the script for --coloc-dry-run; None: --wrap, or not readable. `question`: how to ask Slurm whether any node can
    hold the job; None: there is nothing to ask, since sbatch itself would not look either, or waits for the job's end.
    """

    words: list[str]
    script: bytes | None = None
    stream_at: int | None = None
    shown: bytes | None = None
    remarks: tuple[str, ...] = ()
    dry: bool = False
    informs: bool = False
    question: sbatch_room.Question | None = None


def prepare(
    words: Sequence[str],
    environ: Mapping[str, str],
    partitions: Sequence[str],
    folder: str,
    read_stdin: Callable[[], bytes],
    *,
    now: float = 0.0,
    slurm: str = "/usr/bin",
) -> Submission:
    """Work out the call of sbatch. `partitions` are coloc's batch partitions; nothing is run or written.

    `now`: Unix seconds, for a deadline that counts from now on; `slurm`: folder of Slurm's commands.

    Raises `BadRequest` for what coloc cannot take care of: heterogeneous jobs, --no-requeue, wrong options of its own.
    """
    line = read(words)
    if line.has(*_INFORMS):
        return Submission(["sbatch", *_theirs(words, line, OWN), *words[line.end :]], informs=True)
    if line.rest < len(words) and words[line.rest] == ":" and line.end == line.rest:
        raise _het()
    script, stream = _script(words, line, environ, folder, read_stdin)
    lines = sbatch_script.directives(script) if script is not None else []
    if sbatch_script.is_het(lines):
        raise _het()
    inner = read([word for one in lines for word in one])
    own = sbatch_wishes.Own(line, sbatch_script.own_directives(script) if script is not None else [])
    managed, partition, remarks = _partition(line, inner, environ, partitions)
    wrapped: bytes | None = None
    ours: list[str] = []
    drop: tuple[str, ...] = OWN
    if managed:
        _check_requeue(line, inner, environ)
        signal = _first(line.last("signal"), environ.get("SBATCH_SIGNAL") or None, inner.last("signal"))
        found, remark = sbatch_wishes.wishes(own, signal, now)
        remarks += [remark] if remark else []
        users = _first(line.last("comment"), inner.last("comment")) or ""
        hold = [] if line.has("test-only") else ["--hold"]
        if found.wrapped:
            wrapped = _wrapped(words, line, script, found, slurm)
        facts = sbatch_mark.mark(found, held=line.has("hold") or inner.has("hold"))
        ours = [*hold, "--requeue", *partition, f"--comment={sbatch_mark.comment(users, facts)}"]
        drop += ("comment",)
        remarks += _remarks(line, inner, environ)
    named = line.has("job-name") or inner.has("job-name") or bool(environ.get("SBATCH_JOB_NAME"))
    by_wrap = wrapped is not None and line.has("wrap")
    moved = line.rest < len(words) and (stream or wrapped is not None)
    if not named and (moved or by_wrap):
        ours.append(f"--job-name={'wrap' if by_wrap else os.path.basename(words[line.rest])}")
    theirs = _theirs(words, line, (*drop, *(("wrap",) if by_wrap else ())))
    question: sbatch_room.Question | None = None
    waits = line.has("wait") or inner.has("wait") or _flag(environ.get("SBATCH_WAIT"))
    elsewhere = line.has("clusters") or environ.get("SBATCH_CLUSTERS") or environ.get("SLURM_CLUSTERS")
    if managed and not (waits or elsewhere or line.has("hold", "test-only") or inner.has("hold", "test-only")):
        free = ["sbatch", *(word for word in ours if word != "--hold"), *theirs]
        array = line.has("array") or inner.has("array") or "SBATCH_ARRAY_INX" in environ
        asking = sbatch_room.question_words([*free, *words[line.end :]], len(free), array)
        at = len(asking) - len(words) + line.rest if moved else None
        named_parts = line.last("partition") or partition[0].partition("=")[2]
        question = sbatch_room.Question(named_parts, sbatch_room.asked(line, inner, environ), asking, at)
    head = ["sbatch", *ours, *theirs]
    return Submission(
        [*head, *words[line.end :]],
        script=wrapped or (script if stream or line.rest >= len(words) else None),
        stream_at=len(head) + line.rest - line.end if moved else None,
        shown=wrapped or script,
        remarks=() if line.has("quiet") else tuple(remarks),
        dry=own.flag("dry-run"),
        question=question,
    )


def _wrapped(
    words: Sequence[str], line: CommandLine, script: bytes | None, found: sbatch_wishes.Wishes, slurm: str
) -> bytes | None:
    """The script with the embedded program around it; None: sbatch will refuse this job, so it gets it as it is."""
    if line.has("wrap"):
        command = line.last("wrap")
        script = sbatch_wrap.from_wrap(command) if command and line.rest >= len(words) else None
    if script is None or not sbatch_wrap.acceptable(script):
        return None
    return sbatch_wrap.wrap(script, found, slurm)


def _theirs(words: Sequence[str], line: CommandLine, drop: Sequence[str]) -> list[str]:
    """The user's options as they were given, without those in `drop` (which have no short form)."""
    gone = {
        o.first + n
        for o in line.options
        if o.name in drop and (o.value is not None or o.name in OWN)
        for n in range(o.width)
    }
    return [word for i, word in enumerate(words[: line.end]) if i not in gone]


def _script(
    words: Sequence[str], line: CommandLine, environ: Mapping[str, str], folder: str, read_stdin: Callable[[], bytes]
) -> tuple[bytes | None, bool]:
    """The script's bytes (None: --wrap or not readable), and whether it was a stream that is used up now."""
    if line.has("wrap"):
        return None, False
    if line.rest >= len(words):
        return read_stdin(), False
    place = os.path.join(folder, line.last("chdir") or "")
    path = sbatch_script.find(words[line.rest], place, environ)
    if path is None:
        return None, False
    try:
        stream = sbatch_script.is_stream(path)
        return sbatch_script.load(path), stream
    except OSError:
        return None, False


def _partition(
    line: CommandLine, inner: CommandLine, environ: Mapping[str, str], partitions: Sequence[str]
) -> tuple[bool, list[str], list[str]]:
    """Whether coloc takes care of the job, the partition option to add, and remarks."""
    care = f"coloc takes care only of {', '.join(partitions)}"
    given = line.last("partition")
    if given is not None:
        if _within(given, partitions):
            return True, [], []
        return (
            False,
            [],
            [f"partition {given}: {care}; the job is submitted as by plain sbatch, and starts without coloc"],
        )
    given = _first(environ.get("SBATCH_PARTITION") or None, inner.last("partition"))
    if given is not None and _within(given, partitions):
        return True, [], []
    remarks = [f"the job goes to partition {partitions[0]} instead of {given}: {care}"] if given is not None else []
    return True, [f"--partition={partitions[0]}"], remarks


def _within(given: str, partitions: Sequence[str]) -> bool:
    return all(name in partitions for name in given.split(","))


def _check_requeue(line: CommandLine, inner: CommandLine, environ: Mapping[str, str]) -> None:
    def last(one: CommandLine) -> bool | None:
        return next((o.name == "requeue" for o in reversed(one.options) if o.name in ("requeue", "no-requeue")), None)

    env: bool | None = True if _flag(environ.get("SBATCH_REQUEUE")) else None
    env = False if _flag(environ.get("SBATCH_NO_REQUEUE")) else env
    if _first(last(line), env, last(inner)) is False:
        where = "--no-requeue" if last(line) is False or env is None else "SBATCH_NO_REQUEUE"
        raise BadRequest(
            f"{where}: coloc must be able to requeue its batch jobs, or their GPUs could never be taken back",
            f"leave {where} out if the job can start again, else submit it with plain sbatch",
        )


def _flag(text: str | None) -> bool:
    """How sbatch reads a flag in the environment: empty, `yes` or a number other than zero."""
    return text is not None and (text in ("", "yes") or (re.fullmatch(r"[0-9]+", text) is not None and int(text) != 0))


def _remarks(line: CommandLine, inner: CommandLine, environ: Mapping[str, str]) -> list[str]:
    found = []
    if line.has("hold") or inner.has("hold"):
        found.append("the job stays on hold until you say `scontrol release JOB`; from then on coloc looks after it")
    if line.has("clusters", "cluster") or environ.get("SBATCH_CLUSTERS") or environ.get("SLURM_CLUSTERS"):
        found.append("coloc looks after this cluster only: on another one the job stays on hold")
    return found


def _het() -> BadRequest:
    return BadRequest(
        "heterogeneous jobs cannot be given to coloc: Slurm requeues their parts only together, on GPUs of several kinds",
        "submit it with plain sbatch, or as several jobs with --dependency",
    )


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)
