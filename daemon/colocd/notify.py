"""systemd's notification socket: readiness, watchdog and one status line."""

import contextlib
import socket
from collections.abc import Mapping


class Notifier:
    """Tells systemd; does nothing where there is no NOTIFY_SOCKET. The environment is read once, at construction."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        path = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path

    def tell(self, *words: str) -> None:
        """Send `READY=1`, `WATCHDOG=1`, `STATUS=…`, …; a socket that is gone is no reason to stop."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as s:
            s.sendto("\n".join(w.replace("\n", " ") for w in words).encode(), self._address)
