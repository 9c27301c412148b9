"""colocd as the demo starts it: a process with a notify socket, like under systemd."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from colocd.clock import Clock
from colocd.errors import ColocError

START = 30.0
STOP = 15.0


class Daemon:
    """Use as a context: colocd is ready inside of it and gone after it."""

    def __init__(self, config: Path, log: Path, env: Mapping[str, str], clock: Clock) -> None:
        self.config, self.log, self.env, self.clock = config, log, dict(env), clock
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        path = self.config.parent / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox, self.log.open("wb") as log:
            inbox.bind(str(path))
            inbox.settimeout(0.2)
            argv = [sys.executable, "-m", "colocd", "--config", str(self.config)]
            # A session of its own: Ctrl-C goes to the demo, which then ends colocd in order.
            self._process = subprocess.Popen(
                argv,
                env={**self.env, "NOTIFY_SOCKET": str(path)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                self._wait(inbox)
            except BaseException:
                self.stop()
                raise
        return self

    def _wait(self, inbox: socket.socket) -> None:
        until = self.clock.monotonic() + START
        while self.clock.monotonic() < until:
            self.check()
            with contextlib.suppress(TimeoutError):
                if "READY=1" in inbox.recv(4096).decode("utf-8", "replace").splitlines():
                    return
        raise ColocError(f"colocd is not ready after {START:.0f} s: {self.tail()}", hint=f"see {self.log}")

    def check(self) -> None:
        """Raise `ColocError` with the end of its log when colocd has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise ColocError(
                f"colocd ended with exit {self._process.returncode}: {self.tail()}", hint=f"see {self.log}"
            )

    def tail(self) -> str:
        """The last lines of its log."""
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-6:]) or "its log is empty"

    def stop(self) -> None:
        """End it: TERM, and KILL for its whole session when that does not do."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(STOP)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
