"""systemd's watchdog hears of an agent that goes round, however seldom it samples, and of no other."""

import socket
import threading
from pathlib import Path

from colocd.agent.__main__ import FEED, Agent
from colocd.agent.settings import Settings
from colocd.munge import MungeUnreachable
from colocd.notify import Notifier


class Hours:
    """A clock that goes on only while somebody waits; it ends the loop after two hours."""

    def __init__(self) -> None:
        self.at = 0.0
        self.longest = 0.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.at += max(0.0, seconds)
        self.longest = max(self.longest, seconds)
        if self.at > 7200:
            event.set()
        return event.is_set()


class Silent:
    """A driver that tells nothing, and a munge that does not answer."""

    problems: tuple[str, ...] = ()
    reads = 0

    def read(self) -> None:
        self.reads += 1

    def close(self) -> None:
        pass

    def round(self, *_: object) -> None:
        raise MungeUnreachable("munge does not answer")


def test_the_watchdog_is_fed_between_samples(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        clock, silent = Hours(), Silent()
        settings = Settings(server="127.0.0.1:9", node="n1", period=600.0, send_every=3600.0, faults=None)
        agent = Agent(settings, clock, Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}))
        agent._sampler = agent._sender = silent  # type: ignore[assignment]
        words = 0
        stop = threading.Event()
        tell = agent._notifier.tell

        def count(*said: str) -> None:
            nonlocal words
            tell(*said)
            assert heard.recv(100) == b"WATCHDOG=1"
            words += 1

        agent._notifier.tell = count  # type: ignore[method-assign]
        agent.run(stop)
    assert clock.longest <= FEED
    assert words >= 7200 / FEED
    assert 12 <= silent.reads <= 13
