"""colocd as a process of its own, with a stand-in for systemd's notify socket."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from colocd.clock import Clock

STOP = 40.0


class Colocd:
    """A started colocd. `messages`: what it told systemd so far."""

    def __init__(self, config: Path, log: Path, env: Mapping[str, str], clock: Clock) -> None:
        self.log, self.clock = log, clock
        self.messages: list[str] = []
        self._inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = config.parent / f"notify-{clock.monotonic()}"
        self._inbox.bind(str(path))
        self._inbox.settimeout(0.2)
        self._over = threading.Event()
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "colocd", "--config", str(config)],
                env={**env, "NOTIFY_SOCKET": str(path)},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                self.messages.append(self._inbox.recv(65536).decode())
            except TimeoutError:
                if self._over.is_set():
                    return

    def said(self, word: str) -> int:
        """How many messages had this line."""
        return sum(word in message.splitlines() for message in list(self.messages))

    def status(self) -> list[str]:
        """The sentences of the finished cycles."""
        return [line[7:] for m in list(self.messages) for line in m.splitlines() if line.startswith("STATUS=")]

    def check(self) -> None:
        """Fail when it has ended."""
        code = self.process.poll()
        assert code is None, f"colocd ended with exit {code}: {self.log.read_text(errors='replace')[-3000:]}"

    def hup(self) -> None:
        """Have it read its configuration again."""
        self.process.send_signal(signal.SIGHUP)

    def wait(self) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(STOP)
        self._close()
        return code

    def _close(self) -> None:
        self._over.set()
        self._reader.join(5)
        self._inbox.close()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.wait()

    def stop(self) -> int:
        """End it with TERM (KILL when that does not do); the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
        return self.wait()
