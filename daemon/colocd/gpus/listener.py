"""The TCP port for agents: a thread of its own, with bounds on everything that a stranger can make it do."""

import asyncio
import contextlib
import logging
import struct
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from colocd.agent import wire
from colocd.clock import Clock
from colocd.errors import BadConfig
from colocd.gpus.identity import Identity, Once, Refused
from colocd.gpus.intake import Intake
from colocd.munge import Munge, MungeUnreachable

log = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds in which a whole credential must have come, and its answer have gone."""
AT_ONCE, AT_ONCE_EACH = 1024, 8
"""Open connections: in all, and from one address."""
BURST, RATE = 40.0, 8.0
"""Connections from one address: so many at once, so many a second in the long run."""
WAITING = 256
"""Credentials that wait for munge; more are sent away and come again."""
ADDRESSES = 8192
_HEAD = struct.Struct(f">{len(wire.MAGIC)}sI")


class Gate:
    """Who may connect: bounds by address, so that one host cannot take the others' places."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._buckets: dict[str, tuple[float, float]] = {}

    def enter(self, address: str) -> bool:
        """Count a connection in; False: it is one too many."""
        now = self._clock.monotonic()
        left, at = self._buckets.get(address, (BURST, now))
        left = min(BURST, left + (now - at) * RATE)
        if left < 1 or self._open.total() >= AT_ONCE or self._open[address] >= AT_ONCE_EACH:
            return False
        if len(self._buckets) >= ADDRESSES and address not in self._buckets:
            self._buckets.clear()  # strangers fill it; the count of open connections still bounds them
        self._buckets[address] = (left - 1, now)
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Count a connection out."""
        self._open[address] -= 1
        if self._open[address] <= 0:
            del self._open[address]


class Listener:
    """Listens from `start` to `stop`. `refused` counts by kind; `noted` has the last reason of each node."""

    def __init__(self, host: str, port: int, munge: Munge, identity: Identity, intake: Intake, clock: Clock) -> None:
        self._host, self._port = host, port
        self._munge, self._identity, self._intake, self._clock = munge, identity, intake, clock
        self._gate, self._once = Gate(clock), Once(clock)
        self._judges = ThreadPoolExecutor(1, thread_name_prefix="coloc-munge")
        self._waiting = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="coloc-agents", daemon=True)
        self._up = threading.Event()
        self._end: asyncio.Event | None = None
        self._wrong: OSError | None = None
        self.refused: Counter[str] = Counter()
        self.noted: dict[str, tuple[float, str]] = {}
        self.port = port

    def start(self) -> None:
        """Listen; raises `BadConfig` when the address is taken or not this host's."""
        self._thread.start()
        self._up.wait(10)
        if self._wrong is not None:
            why = self._wrong.strerror or str(self._wrong)
            raise BadConfig(
                f"telemetry.agents.listen: {self._host}:{self._port}: {why}", "choose another address or port"
            )

    def stop(self) -> None:
        """Close the port and end the thread; again is no error."""
        if self._end is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE + 5)
        self._judges.shutdown(wait=False, cancel_futures=True)
        self._identity.close()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        try:
            server = await asyncio.start_server(self._meet, self._host, self._port, limit=1 << 15, backlog=1024)
        except OSError as error:
            self._wrong = error
            self._up.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        async with server:
            await self._end.wait()
            server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        address = str(peer[0]) if peer else "?"
        if not self._gate.enter(address):
            self.refused["flood"] += 1
            writer.transport.abort()
            return
        try:
            async with asyncio.timeout(PATIENCE):
                reply = await self._hear(reader, address)
                data = wire.encode(reply)
                writer.write(struct.pack(">I", len(data)) + data)
                await writer.drain()
                writer.write_eof()
                # Gone when the other side has read it; a stranger who does not is thrown out by the timeout.
                await reader.read(1)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError, OSError):
            self.refused["broken"] += 1
        finally:
            self._gate.leave(address)
            writer.transport.abort()

    async def _hear(self, reader: asyncio.StreamReader, address: str) -> wire.Reply:
        magic, size = _HEAD.unpack(await reader.readexactly(_HEAD.size))
        if magic != wire.MAGIC or not 0 < size <= wire.MAX_CREDENTIAL:
            self.refused["garbage"] += 1
            return wire.Reply(False, -1, "this is no batch of coloc-agent, or it is too long")
        credential = await reader.readexactly(size)
        if self._waiting >= WAITING:
            self.refused["busy"] += 1
            return wire.Reply(False, -1, "colocd is busy; send it again")
        self._waiting += 1
        try:
            return await self._loop.run_in_executor(self._judges, self._judge, credential, address)
        finally:
            self._waiting -= 1

    def _judge(self, credential: bytes, address: str) -> wire.Reply:
        """Munge's word on a credential, then what it says; in a thread, because munged may be slow."""
        who = address
        try:
            found = self._munge.decode(credential)
            self._identity.believe(found)
            batch = wire.decode_batch(found.payload)
            who = batch.node
            self._identity.match(batch.node, found.origin)
            self._once.take(found)
            with contextlib.suppress(KeyError):
                del self.noted[who]
            return self._intake.take(batch, self._clock.now())
        except Refused as error:
            return self._refuse(error.kind, who, str(error))
        except wire.NotABatch as error:
            return self._refuse("garbage", who, str(error))
        except MungeUnreachable as error:
            return self._refuse("munge", "munge", str(error))

    def _refuse(self, kind: str, who: str, why: str) -> wire.Reply:
        self.refused[kind] += 1
        if kind not in ("waiting", "replayed") and (who in self.noted or len(self.noted) < 64):
            self.noted[who] = (self._clock.monotonic(), why)
        return wire.Reply(False, -1, why[:300])
