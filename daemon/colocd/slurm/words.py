"""Job ids and names as Slurm's calls take them: what does not look like one is refused here, before anything is asked."""

import re
from collections.abc import Iterable

from colocd.errors import SlurmRefused

REF = re.compile(r"[0-9]{1,10}(?:_[0-9]{1,10})?")
"""A job id, or one task of an array."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


def job_list(refs: Iterable[str]) -> str:
    """The job ids in one word; raises `SlurmRefused` for what is no job id."""
    found = list(refs)
    for ref in found:
        if not REF.fullmatch(ref):
            raise SlurmRefused(f"{ref!r} is no job id", hint="job ids look like 17, or 17_3 for an array task")
    return ",".join(found)


def plain_name(text: str, what: str) -> str:
    """The name of a node, reservation or user; raises `SlurmRefused` for what is no such name."""
    if not _NAME.fullmatch(text):
        raise SlurmRefused(f"{text!r} is no name of a {what}", hint="use letters, digits, `.`, `_` and `-`")
    return text
