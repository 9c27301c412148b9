"""munged as it runs on several hosts of one cluster: one key, a socket and an address each."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from colocd.clock import SystemClock


class Hosts:
    """`socket(address)`: the socket of a munged that says it is on the host with this address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "munge.key"
        self.key.write_bytes(os.urandom(1024))
        self.key.chmod(0o600)
        self._started: dict[str, int] = {}

    def socket(self, address: str = "127.0.0.1") -> str:
        place = self.folder / address
        if address not in self._started:
            place.mkdir(mode=0o755, exist_ok=True)
            argv = ["munged", f"--key-file={self.key}", f"--socket={place}/sock", f"--pid-file={place}/pid"]
            argv += [f"--log-file={place}/log", f"--seed-file={place}/seed", "--num-threads=2", "--force"]
            subprocess.run([*argv, f"--origin={address}"], check=True, timeout=30, cwd="/")
            for _ in range(100):
                if (place / "pid").exists() and (place / "sock").exists():
                    break
                SystemClock().sleep(0.05)
            self._started[address] = int((place / "pid").read_text())
        return str(place / "sock")

    def pid(self, address: str = "127.0.0.1") -> int:
        self.socket(address)
        return self._started[address]

    def end(self, address: str) -> None:
        os.kill(self._started.pop(address), 15)
        for _ in range(100):
            if not (self.folder / address / "sock").exists():
                return
            SystemClock().sleep(0.05)

    def close(self) -> None:
        for address in list(self._started):
            self.end(address)


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    with tempfile.TemporaryDirectory(prefix="coloc-munge-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        found = Hosts(Path(folder))
        yield found
        found.close()


@pytest.fixture
def clock() -> SystemClock:
    return SystemClock()
