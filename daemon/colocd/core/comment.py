"""The marks coloc keeps in Slurm job comments: what a batch job says of its checkpoints, and which jobs are coloc's own.

A batch job carries `[coloc v=1 signal=USR1 to=batch interval=300 saved=1760000000]` at the end of whatever its user wrote.
Slurm lets only the job's owner (or an operator) change a comment, so nobody can speak for somebody else's job.
"""

import math
import re

import msgspec

from coloc_topology.shape import Level
from colocd.core.service import Closeness, Mode
from colocd.core.view import Checkpoint, Request

_MARK = re.compile(r"\s*\[coloc v=1((?: [a-z]+=[^\s\[\]=]+)*)\]")
_PLACE = re.compile(r"\[coloc-place\b([^\[\]]*)(\]?)")
_LIKE_PLACE = re.compile(r"coloc[-_]places?\b|\[\s*coloc ?places?\b", re.IGNORECASE)
_OWN = re.compile(r"\[coloc-own key=([0-9A-Za-z._:-]+)\]")
SIGNALS = frozenset({"HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "ALRM", "CONT", "TSTP", "URG", "XCPU"})
TARGETS = ("batch", "steps", "all")
_REQUEST = {
    "level": tuple(level.name for level in sorted(Level, reverse=True)),
    "mode": tuple(mode.value for mode in Mode),
    "near": tuple(near.value for near in Closeness),
}
"""Keys of a request for a place and what they may say."""


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
        interval=_seconds(facts.get("interval")) or None,
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

    Unknown words make the wish unreadable, and an unreadable wish is None: Slurm alone decides then, and `request_problem`
    says what cannot be read.
    """
    if "[coloc-place" not in comment:
        return None
    request = _place(comment)
    return request if isinstance(request, Request) else None


def request_problem(comment: str) -> str | None:
    """Why a wish for a place in a job's comment cannot be read; None: it can, or there is none."""
    problem = _place(comment) if asks_for_place(comment) else None
    return problem if isinstance(problem, str) else None


def asks_for_place(comment: str) -> bool:
    """Whether a comment holds a wish for a place, readable or not."""
    return _LIKE_PLACE.search(comment) is not None


def _place(comment: str) -> Request | str:
    """The wish, or what is wrong with it."""
    found = _PLACE.findall(comment)
    if len(found) != 1:
        return "there are two of them" if found else "it is not written like [coloc-place v=1 level=NVLINK]"
    words, closed = found[0]
    if not closed:
        return "its ] is missing"
    facts: dict[str, str] = {}
    for word in words.split():
        key, _, value = word.partition("=")
        if key not in ("v", *_REQUEST) or not value:
            return f"{word[:40]!r} is none of v=1, level=, mode= and near="
        if key in facts:
            return f"{key} stands in it twice"
        facts[key] = value.upper() if key == "level" else value.lower()
    if facts.pop("v", None) != "1":
        return "v=1 has to stand in it, the version of these words"
    wrong = next((key for key, value in facts.items() if value not in _REQUEST[key]), None)
    if wrong is not None:
        return f"{wrong}={facts[wrong][:40]} is none of {', '.join(_REQUEST[wrong])}"
    return msgspec.convert(facts, Request)


def own_token(key: str) -> str:
    """The comment of a job that coloc itself submits; `key` is the unguessable key of the intent that submits it."""
    return f"[coloc-own key={key}]"


def own_key(comment: str) -> str | None:
    """The key in the comment of one of coloc's own jobs; None: it carries none. Check the job's user, too."""
    found = _OWN.search(comment)
    return found.group(1) if found else None
