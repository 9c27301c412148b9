"""Unix sockets of the API: who may connect is decided by the file's owner, group and mode, and by nothing else."""

import errno
import grp
import logging
import os
import socket
import stat
from pathlib import Path

from colocd.errors import BadConfig, NotAllowed

log = logging.getLogger(__name__)

LONGEST = 107
"""Bytes of path that fit into Linux's `sockaddr_un` (108 with the closing NUL)."""
_BACKLOG = 128


class UnixSocket:
    """A bound and listening socket file; `remove` takes the file away only while it is still ours."""

    def __init__(self, path: str, sock: socket.socket) -> None:
        self.path = path
        self.sock = sock
        self._identity = _identity(path)

    def remove(self) -> None:
        """Close the socket and delete its file; safe to call twice and after somebody else took the path."""
        self.sock.close()
        if self._identity is not None and _identity(self.path) == self._identity:
            Path(self.path).unlink(missing_ok=True)
        self._identity = None


def listen(path: str, mode: int, group: str | None = None) -> UnixSocket:
    """Bind `path` with the given mode and group and listen; a dead daemon's socket file is replaced.

    `group` None: the group of the process. Raises `BadConfig` when the path is too long, not a socket, in a missing
    folder, or when a live daemon answers there; `NotAllowed` when the folder or the group may not be used.
    """
    _check_length(path)
    gid = _gid(group)
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(sock, path)
        # Nobody can connect before listen(), so the file never lets the wrong people in, whatever the umask is.
        try:
            os.chown(path, 0 if os.geteuid() == 0 else -1, gid)
        except PermissionError:
            raise NotAllowed(f"cannot give {path} to group {group}", "run colocd as root or as a member") from None
        os.chmod(path, mode)
        sock.listen(_BACKLOG)
        return UnixSocket(path, sock)
    except BaseException:
        sock.close()
        raise


def _check_length(path: str) -> None:
    size = len(os.fsencode(path))
    if size > LONGEST:
        raise BadConfig(
            f"the socket path {path} is {size} bytes long; Linux allows {LONGEST}",
            "choose a shorter api.socket and api.admin_socket",
        )


def _gid(group: str | None) -> int:
    if group is None:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise BadConfig(
            f"api.group names the group {group!r}, which does not exist", "create the group, or leave api.group out"
        ) from None


def _bind(sock: socket.socket, path: str) -> None:
    try:
        sock.bind(path)
    except FileNotFoundError:
        raise BadConfig(
            f"the folder of the socket {path} does not exist", "create it; systemd does so with RuntimeDirectory=coloc"
        ) from None
    except PermissionError:
        raise NotAllowed(f"the socket {path} may not be created") from None
    except OSError as error:
        raise BadConfig(f"the socket {path} cannot be created: {error.strerror}", "choose another path") from None


def _clear_stale(path: str) -> None:
    try:
        info = os.lstat(path)
    except OSError:
        return  # nothing there, or bind() tells better what is wrong
    if not stat.S_ISSOCK(info.st_mode):
        raise BadConfig(f"{path} exists and is not a socket", "move the file away, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(path)
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:
                log.info("replacing the socket %s of a daemon that is gone", path)
                Path(path).unlink(missing_ok=True)
                return
            if error.errno == errno.ENOENT:
                return
    raise BadConfig(
        f"another daemon already listens on {path}",
        "stop it first, or give this one its own api.socket and admin_socket",
    )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return (info.st_dev, info.st_ino)
