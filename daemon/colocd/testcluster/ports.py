"""Blocks of free ports for clusters side by side: a lock file a block, in one folder that all users of the machine share."""

import contextlib
import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from colocd.errors import ColocError

# Below every default ephemeral range (32768 up), so that no outgoing connection takes a port between our look and its use.
FIRST, LAST, BLOCK = 20000, 32000, 40


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / "coloc-testcluster-ports"
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)
    return folder


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Keep others from looking for stale locks at the same time; a folder needs no right to write to be locked."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _stale(lock: Path) -> bool:
    """True when the lock's cluster is gone. A lock that cannot be read, or was not yet written, is in use."""
    try:
        directory = json.loads(lock.read_text())
    except (OSError, ValueError):
        return False
    return not Path(directory).is_dir()


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def reserve(directory: Path, count: int) -> int:
    """Reserve `count` consecutive ports for the existing `directory` and return the first. Raises `ColocError`."""
    if count > BLOCK:
        raise ColocError(f"a test cluster has at most {BLOCK - 3} nodes", hint="ask for fewer nodes")
    folder = _folder()
    with _only_one(folder):
        first = _take(folder, directory, count)
    if first is None:
        raise ColocError("no block of free ports for a test cluster", hint=f"end other test clusters, see {folder}")
    return first


def _take(folder: Path, directory: Path, count: int) -> int | None:
    for first in range(FIRST, LAST, BLOCK):
        lock = folder / str(first)
        if lock.exists():
            if not _stale(lock):
                continue
            with contextlib.suppress(OSError):
                lock.unlink()
        try:
            handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except OSError:
            continue
        with os.fdopen(handle, "w") as file:
            json.dump(str(directory), file)
        if all(_free(first + k) for k in range(count)):
            return first
        lock.unlink()
    return None


def release(port: int) -> None:
    """Give a block back; one that is not reserved is no error."""
    with contextlib.suppress(OSError):
        (_folder() / str(port)).unlink()


def loopback() -> str | None:
    """The address of this host's own name if it is a loopback address; None: it is not, or the name has no address."""
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        return None
    return address if address.startswith("127.") else None
