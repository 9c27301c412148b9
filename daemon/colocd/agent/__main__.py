"""coloc-agent: samples the GPUs of this node and sends them to colocd until it is told to end."""

import argparse
import contextlib
import logging
import os
import secrets
import signal
import sys
import threading
import zlib
from pathlib import Path

from colocd.agent.buffer import Buffer
from colocd.agent.faults import FaultMemory
from colocd.agent.jobs import JobFinder
from colocd.agent.sample import DriverReplaced, Sampler
from colocd.agent.send import TTL, NotSent, Sender
from colocd.agent.settings import DEFAULT_PATH, Settings, load_settings
from colocd.clock import Clock, SystemClock
from colocd.errors import BadConfig, ColocError
from colocd.munge import Munge, MungeUnreachable
from colocd.notify import Notifier
from colocd.units import split_address

log = logging.getLogger("coloc-agent")
FEED = 30.0
"""Seconds after which systemd's watchdog hears of this process at the latest, unless a call of NVML or munge hangs."""


def main(argv: list[str] | None = None) -> None:
    """Run until SIGTERM or SIGINT; exits with the code of the error that prevented it."""
    parser = argparse.ArgumentParser(
        prog="coloc-agent", description="Tell colocd what the GPUs of this node do. Run it on each GPU node."
    )
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_PATH, help=f"configuration file (default: {DEFAULT_PATH})"
    )
    parser.add_argument("--once", action="store_true", help="print one sample as JSON and end; nothing is sent")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        if options.once:
            once()
            return
        settings = load_settings(options.config)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        Agent(settings, SystemClock(), Notifier(os.environ)).run(stop)
    except DriverReplaced as error:
        sys.stderr.write(f"coloc-agent: the driver was replaced, so this process ends: {error}\n")
        raise SystemExit(error.exit_code) from None
    except ColocError as error:
        sys.stderr.write(f"coloc-agent: {error}\n  {error.hint}\n")
        raise SystemExit(error.exit_code) from None


def once() -> None:
    """Print one sample, to see what this node's driver tells."""
    import msgspec

    sampler = Sampler(JobFinder(), FaultMemory(None))
    found = sampler.read()
    told = [{**_named(info), **_named(sample)} for info, sample in zip(*(found or ((), ())), strict=True)]
    sys.stdout.buffer.write(
        msgspec.json.format(msgspec.json.encode({"gpus": told, "problems": sampler.problems})) + b"\n"
    )


def _named(struct: object) -> dict[str, object]:
    import msgspec

    return msgspec.structs.asdict(struct)  # type: ignore[arg-type]


class Agent:
    """The loop. A round that fails is said once and tried again; nothing but a bad configuration ends it."""

    def __init__(self, settings: Settings, clock: Clock, notifier: Notifier) -> None:
        host = settings.node or os.uname().nodename.partition(".")[0]
        where = split_address(settings.server)
        if where is None:
            raise BadConfig(f"server: {settings.server!r} is not host:port")
        self._settings, self._clock, self._notifier = settings, clock, notifier
        size = max(1, int(settings.keep / settings.period))
        self.buffer = Buffer(host, secrets.token_hex(8), settings.period, size)
        self._sampler = Sampler(JobFinder(), FaultMemory(settings.faults))
        self._sender = Sender(*where, Munge(settings.munge_socket, ttl=TTL, only_uid=settings.reader), clock)
        # Agents that start together do not send together.
        self._phase = zlib.crc32(host.encode()) % 1000 / 1000 * settings.send_every
        self._said: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Sample and send until `stop`; what is left then is sent once more."""
        log.info("sampling every %g s, sending to %s", self._settings.period, self._settings.server)
        begun = self._clock.monotonic()
        send_at, sample_at = begun + self._phase, begun
        while not stop.is_set():
            now = self._clock.monotonic()
            if now >= sample_at:
                self._sample()
                sample_at = max(sample_at + self._settings.period, self._clock.monotonic())
            if now >= send_at:
                self._send()
                send_at = max(send_at + self._settings.send_every, self._clock.monotonic())
            self._notifier.tell("WATCHDOG=1")
            self._clock.wait(stop, min(sample_at - (now := self._clock.monotonic()), send_at - now, FEED))
        self._send()
        self._sampler.close()

    def _sample(self) -> None:
        found = self._sampler.read()
        if found is not None:
            self.buffer.add(self._clock.monotonic(), *found)
        self._say("sampling", "; ".join(self._sampler.problems))

    def _send(self) -> None:
        why = ""
        try:
            self._sender.round(self.buffer, self._sampler.problems)
        except (NotSent, MungeUnreachable) as error:
            why = str(error)
        with contextlib.suppress(OSError):
            self._say("sending", why)

    def _say(self, what: str, text: str) -> None:
        """Log a trouble when it comes, changes or goes."""
        old = self._said.get(what, "")
        if text != old:
            self._said[what] = text
            log.log(logging.WARNING if text else logging.INFO, "%s: %s", what, text or "works again")


if __name__ == "__main__":
    main()
