"""How a Slurm is set up: `scontrol show config`, the federation, and what the caller may do."""

import os
import pwd
import re

from colocd.errors import SlurmRefused, SlurmUnreachable
from colocd.slurm.port import Site
from colocd.slurm.shares import read_shares
from colocd.slurm.shell import Shell

_SETTING = re.compile(r"^(\S+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_ID = re.compile(r"\((\d+)\)$")
_LEVELS = {"operator": True, "administrator": True, "none": False}


def settings(text: str) -> dict[str, str]:
    """The pairs of `scontrol show config`; values that Slurm shows as `(null)` are empty."""
    return {name: "" if value == "(null)" else value for name, value in _SETTING.findall(text)}


def federation(text: str) -> str | None:
    """The name in `scontrol show federation`; None: the cluster is in none."""
    found = re.search(r"^Federation:\s*(\S+)", text, re.MULTILINE)
    return found[1] if found else None


def read_site(shell: Shell) -> Site:
    """Ask Slurm how it is set up. Raises `SlurmUnreachable`."""
    known = settings(shell.ask("scontrol", "show", "config"))
    try:
        member = federation(shell.ask("scontrol", "show", "federation"))
    except SlurmRefused:
        member = None  # a release that no longer knows the word has none
    accounts = "slurmdbd" in known.get("AccountingStorageType", "")
    return Site(
        settings=known,
        federation=member,
        user=_me(),
        privileged=_privileged(shell, known),
        shares=read_shares(shell) if accounts else None,
    )


def _me() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _privileged(shell: Shell, known: dict[str, str]) -> bool | None:
    """uid 0 and SlurmUser may do everything; anybody else what slurmdbd says of them."""
    uid, owner = os.getuid(), _ID.search(known.get("SlurmUser", ""))
    if uid == 0 or (owner is not None and int(owner[1]) == uid):
        return True
    if "slurmdbd" not in known.get("AccountingStorageType", ""):
        return False
    try:
        said = shell.ask("sacctmgr", "-nP", "show", "user", f"name={_me()}", "format=AdminLevel")
    except (SlurmRefused, SlurmUnreachable):
        return None
    return _LEVELS.get(said.strip().lower(), False)
