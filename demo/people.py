"""Who runs what in the demo: as root several unprivileged users of the system, else everything is one user's."""

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence

import msgspec

CANDIDATES = ("nobody", "daemon", "www-data", "games", "bin")


class People(msgspec.Struct, frozen=True, kw_only=True):
    """`service` owns the replicas, `batch` submit the backlog in turns. `remark`: what is less than it should be."""

    service: str
    batch: tuple[str, ...]
    remark: str | None = None


def run_as(
    user: str, argv: Sequence[str], env: Mapping[str, str], cwd: str, timeout: float = 60.0
) -> "subprocess.CompletedProcess[str]":
    """Run a command as a user (any other than oneself: root only), without the caller's groups and standard input."""
    who = pwd.getpwnam(user)
    other = who.pw_uid != os.getuid()
    return subprocess.run(
        list(argv),
        env=dict(env),
        cwd=cwd,
        timeout=timeout,
        check=False,
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        user=who.pw_uid if other else None,
        group=who.pw_gid if other else None,
        extra_groups=[] if other else None,
    )


def choose(probe: Sequence[str], env: Mapping[str, str], cwd: str) -> People:
    """Pick the users; `probe` is a command each of them must be able to run (coloc itself: the jobs call it)."""
    me = pwd.getpwuid(os.getuid()).pw_name
    if os.getuid():
        return People(service=me, batch=(me,), remark=f"not root: service and all batch jobs are {me}'s")
    able = []
    for name in CANDIDATES:
        try:
            if run_as(name, probe, env, cwd).returncode == 0:
                able.append(name)
        except (KeyError, OSError):
            continue  # no such user here, or the program lies where others may not look
    if len(able) < 2:
        remark = f"other users cannot run {probe[0]} (a folder above it is closed to them): all jobs are {me}'s"
        return People(service=me, batch=(me,), remark=remark)
    return People(service=able[2] if len(able) > 2 else able[0], batch=(able[0], able[1]))
