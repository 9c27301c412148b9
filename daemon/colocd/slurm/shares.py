"""Slurm's fair-share as weights: what `sshare` says of accounts and users, as each user's part of the cluster."""

from colocd.errors import SlurmRefused, SlurmUnreachable
from colocd.slurm.shell import Shell

LEAST, MOST = 0.01, 100.0
"""Weights beyond these are cut, as those of `[[policy.shares]]` are refused."""


def read_shares(shell: Shell) -> dict[str, float] | None:
    """Ask slurmctld for the shares; None: it told none. One command."""
    try:
        return weights(shell.ask("sshare", "--all", "--noheader", "--parsable2", "-o", "Account,User,RawShares"))
    except (SlurmRefused, SlurmUnreachable):
        return None


def weights(text: str) -> dict[str, float] | None:
    """Each user's weight; all of them are 1 on average. None: nothing usable was told.

    An account's part is split among what is directly below it by its raw shares; a user with `parent` has as much as one of
    the account's users would have if all had the same. Users in several accounts have the sum. Depth is told by leading
    blanks. https://slurm.schedmd.com/sshare.html, https://slurm.schedmd.com/fair_tree.html
    """
    rows = [_row(line) for line in text.splitlines() if line.count("|") >= 2]
    part: dict[str, float] = {}
    above: dict[int, float] = {}
    for at, (depth, user, shares) in enumerate(rows):
        beside = _beside(rows, at)
        total = sum(other for _, _, other in beside if other is not None)
        if depth == 0:
            mine = 1.0
        elif shares is None:
            mine = 1.0 / sum(1 for _, other, _ in beside if other)
        else:
            mine = shares / total if total else 0.0
        mine *= above.get(depth - 1, 1.0)
        above[depth] = mine
        if user and (user, depth) != ("root", 1):  # Slurm's own entry
            part[user] = part.get(user, 0.0) + mine
    whole = sum(part.values())
    if not whole:
        return None
    return {user: min(MOST, max(LEAST, found * len(part) / whole)) for user, found in sorted(part.items())}


_Row = tuple[int, str, float | None]


def _row(line: str) -> _Row:
    """Depth, user (empty: an account) and raw shares (None: `parent`, or not told)."""
    account, user, shares = line.split("|")[:3]
    return len(account) - len(account.lstrip(" ")), user, float(shares) if shares.isdecimal() else None


def _beside(rows: list[_Row], at: int) -> list[_Row]:
    """The rows with the same parent, this one too; Slurm's own user root is left out beside others."""
    depth = rows[at][0]
    first = at
    while first > 0 and rows[first - 1][0] >= depth:
        first -= 1
    found = []
    for row in rows[first:]:
        if row[0] < depth:
            break
        if row[0] == depth and (row[:2] != (1, "root") or row is rows[at]):
            found.append(row)
    return found
