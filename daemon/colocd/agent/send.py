"""Brings one batch to colocd: a munge credential over TCP, one connection each, and its answer."""

import socket
import struct

from colocd.agent import wire
from colocd.agent.buffer import Buffer
from colocd.clock import Clock
from colocd.munge import Munge

TIMEOUT = 5.0
TTL = 60
"""Seconds for which a credential is good; the hosts' clocks may differ by that much."""
MOST = 4
"""Batches a round: after an outage the agents must not drown colocd."""


class NotSent(Exception):
    """The batch did not arrive, or colocd refused it; it is kept and sent again."""


class Sender:
    """Sends to `host`, `port`. Every batch gets a credential of its own, also one that is sent again: munge takes each once."""

    def __init__(self, host: str, port: int, munge: Munge, clock: Clock) -> None:
        self._address, self._munge, self._clock = (host, port), munge, clock
        self._limit = wire.MAX_SAMPLES

    def round(self, buffer: Buffer, problems: tuple[str, ...]) -> None:
        """Send what is in the buffer, at most `MOST` batches; raises `NotSent` or `MungeUnreachable` with the rest kept."""
        for number in range(MOST):
            if number and not len(buffer):
                return
            batch = buffer.batch(self._clock.monotonic(), self._limit, problems)
            payload = wire.encode(batch)
            while len(payload) > wire.MAX_PAYLOAD and len(batch.samples) > 1:
                self._limit = max(1, len(batch.samples) // 2)
                batch = buffer.batch(self._clock.monotonic(), self._limit, problems)
                payload = wire.encode(batch)
            reply = self._post(payload)
            if reply.taken >= 0:
                buffer.taken(reply.taken)
            if not reply.ok:
                raise NotSent(f"colocd refused the batch: {reply.why}")

    def _post(self, payload: bytes) -> wire.Reply:
        credential = self._munge.encode(payload)
        deadline = self._clock.monotonic() + TIMEOUT
        try:
            with socket.create_connection(self._address, timeout=TIMEOUT) as link:
                link.sendall(wire.MAGIC + struct.pack(">I", len(credential)) + credential)
                (size,) = struct.unpack(">I", self._receive(link, 4, deadline))
                if size > wire.MAX_REPLY:
                    raise NotSent(f"what answers on port {self._address[1]} is not colocd")
                return wire.decode_reply(self._receive(link, size, deadline))
        except wire.NotABatch as error:
            raise NotSent(str(error)) from None
        except OSError as error:
            raise NotSent(
                f"colocd on {self._address[0]}:{self._address[1]} cannot be reached: {error.strerror or error}"
            ) from None

    def _receive(self, link: socket.socket, size: int, deadline: float) -> bytes:
        data = b""
        while len(data) < size:
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise NotSent("colocd does not answer in time")
            link.settimeout(left)
            more = link.recv(size - len(data))
            if not more:
                raise NotSent("colocd closed the connection without an answer")
            data += more
        return data
