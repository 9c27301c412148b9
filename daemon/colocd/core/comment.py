"""The marks coloc keeps in Slurm job comments: what a batch job says of its checkpoints, and which jobs are coloc's own.

A batch job carries `[coloc v=1 signal=USR1 to=batch interval=300 saved=1760000000]` at the end of whatever its user wrote.
Slurm lets only the job's owner (or an operator) change a comment, so nobody can speak for somebody else's job.
"""

import math
import re

import msgspec

from colocd.core.view import Checkpoint, Request

_MARK = re.compile(r"\s*\[coloc v=1((?: [a-z]+=[^\s\[\]=]+)*)\]")
_PLACE = re.compile(r"\[coloc-place v=1((?: [a-z]+=[^\s\[\]=]+)*)\]")
_OWN = re.compile(r"\[coloc-own key=([0-9A-Za-z._:-]+)\]")
SIGNALS = frozenset({"HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "ALRM", "CONT", "TSTP", "URG", "XCPU"})
TARGETS = ("batch", "steps", "all")


_NAME = re.compile(r"[A-Za-z0-9_.-]{1,32}")


def _seconds(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _name(text: str | None) -> str | None:
    return text if text is not None and _NAME.fullmatch(text) else None


def parse_comment(comment: str) -> Checkpoint | None:
    """Read a job's checkpoint mark; None when it carries none. Facts that make no sense are None, never a guess."""
    found = _MARK.search(comment)
    if found is None:
        return None
    facts = dict(word.split("=", 1) for word in found.group(1).split())
    signal = facts.get("signal", "").upper().removeprefix("SIG")
    return Checkpoint(
        signal=signal if signal in SIGNALS else None,
        to=facts["to"] if facts.get("to") in TARGETS else "batch",
        interval=_seconds(facts.get("interval")),
        cost=_seconds(facts.get("cost")),
        restart=_seconds(facts.get("restart")),
        grace=_seconds(facts.get("grace")),
        saved=_seconds(facts.get("saved")),
        yielded=_seconds(facts.get("yielded")),
        deadline=_seconds(facts.get("deadline")),
        unparked=_seconds(facts.get("unparked")),
        rank=_name(facts.get("class")),
        hold="user" if facts.get("hold") == "user" else None,
    )


def with_checkpoint(comment: str, facts: Checkpoint) -> str:
    """The comment with its checkpoint mark set to `facts`; what the user wrote stays."""
    words = ["v=1"]
    if facts.signal is not None:
        words += [f"signal={facts.signal}", f"to={facts.to}"]
    for key in ("interval", "cost", "restart", "grace", "saved", "yielded", "deadline", "unparked"):
        value = getattr(facts, key)
        if value is not None:
            words.append(f"{key}={value:.15g}")
    words += [f"{key}={value}" for key, value in (("class", facts.rank), ("hold", facts.hold)) if value is not None]
    rest = _MARK.sub("", comment).strip()
    return f"{rest} [coloc {' '.join(words)}]".strip()


def parse_request(comment: str) -> Request | None:
    """Read a job's wish for a place, `[coloc-place v=1 level=NVLINK mode=guaranteed]`; None when it carries none.

    Unknown words make the wish unreadable, and an unreadable wish is None: Slurm alone decides then.
    """
    found = _PLACE.search(comment)
    if found is None:
        return None
    facts = dict(word.split("=", 1) for word in found.group(1).split())
    try:
        return msgspec.convert(facts, Request)
    except msgspec.ValidationError:
        return None


def own_token(key: str) -> str:
    """The comment of a job that coloc itself submits; `key` is the unguessable key of the intent that submits it."""
    return f"[coloc-own key={key}]"


def own_key(comment: str) -> str | None:
    """The key in the comment of one of coloc's own jobs; None: it carries none. Check the job's user, too."""
    found = _OWN.search(comment)
    return found.group(1) if found else None
