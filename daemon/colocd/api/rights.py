"""Whose services an operator may apply: his own, and those whose file is root's. Why: docs/security.md."""

import os
import stat
from pathlib import Path

from colocd.api.peer import Peer
from colocd.errors import BadFile, NotAllowed
from colocd.servicefile import SCRIPT_LIMIT, inline_script

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH


def check_apply(user: str, text: str, filename: str, peer: Peer | None) -> None:
    """Raise `NotAllowed` unless `peer` may have jobs of `user` submitted with this text. None: colocd itself.

    Root may. Anybody else may for himself; for another user only what stands in a file that nobody but root can have
    written: then being an operator does not mean being able to run commands as everybody.
    """
    if peer is None or peer.uid == 0 or (peer.uid > 0 and peer.name == user):
        return
    why = _not_roots(filename)
    if why is None and _content(filename) != text:
        why = "does not hold what was sent"
    if why is not None:
        raise NotAllowed(
            f"{peer.name} may apply services of user {user} only from a file of root's: {filename} {why}",
            "have root own the file and every folder above it, writable by nobody else, or apply it as root",
        )


def _not_roots(filename: str) -> str | None:
    """Why somebody besides root could have written the file; None: nobody could."""
    if not filename.startswith("/"):
        return "is no absolute path"
    path = Path(os.path.realpath(filename))
    for place in (path, *path.parents):
        try:
            info = place.stat()
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if info.st_uid != 0:
            return f"lies in or is {place}, which is not root's"
        if info.st_mode & _WRITABLE:
            return f"lies in or is {place}, which others may write to"
    return None if stat.S_ISREG(path.stat().st_mode) else "is no regular file"


def _content(filename: str) -> str | None:
    try:
        with open(filename, encoding="utf-8") as file:
            text = file.read(4 * SCRIPT_LIMIT)
        return inline_script(text, filename)
    except (OSError, UnicodeDecodeError, BadFile):
        return None
