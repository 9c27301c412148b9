"""Reads many serving endpoints at once over HTTP; one that hangs, drips or never ends cannot delay the others or the cycle."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import httpx
import msgspec

from colocd.clock import Clock
from colocd.telemetry.serving import ServingSample, parse_serving

Key = Hashable
A = TypeVar("A")
POOL = 32
"""Endpoints that share an HTTP client: what one does for each of its connections grows with their number."""
OWN = 0.003
"""Seconds a call may last longer for each endpoint: what this process takes itself must not count as the servers' delay."""
_Ask = Callable[[httpx.AsyncClient, str], Coroutine[Any, Any, A]]


class Target(msgspec.Struct, frozen=True):
    """One endpoint to read: `key` is the caller's own, `server` a key of `colocd.telemetry.names.SERVERS`, `series` own names."""

    key: Any
    url: str
    server: str
    series: Mapping[str, str] = msgspec.field(default_factory=dict)


class Failure(msgspec.Struct, frozen=True):
    """Why an endpoint could not be read: one sentence without the URL. `at` is Unix seconds."""

    reason: str
    at: float


class Readiness(msgspec.Struct, frozen=True):
    """Answer of a ready check. `ok` None: it could not even be asked (the URL is unusable). `reason` None: it is ready."""

    ok: bool | None
    reason: str | None = None


class _Body(msgspec.Struct, frozen=True):
    """An answer and when it was there."""

    text: str
    at: float
    tick: float


class Scraper:
    """Holds no connection and no thread between calls, so it needs no close.

    `timeout` seconds (and `OWN` for each endpoint) bound each call as a whole, `max_bytes` each answer, `workers` the look-ups
    of names that go on at the same time (connections are not limited: a limit would let hanging servers starve healthy ones).
    """

    def __init__(self, clock: Clock, *, timeout: float = 2.0, max_bytes: int = 4 << 20, workers: int = 16) -> None:
        self._clock = clock
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._workers = workers
        self._tls: ssl.SSLContext | None = None

    def read(self, targets: Sequence[Target]) -> dict[Key, ServingSample | Failure]:
        """Read all targets at once; an answer for each, in time. Never raises for an answer.

        Not to be called from a thread in which an event loop runs.
        """

        answers = self._run(self._get, [target.url for target in targets])
        # Parsed only now: it takes time of its own, which must not count as another server's delay.
        return {
            target.key: Failure(str(answer), self._clock.now())
            if isinstance(answer, Exception)
            else parse_serving(answer.text, target.server, series=target.series, at=answer.at, tick=answer.tick)
            for target, answer in zip(targets, answers, strict=True)
        }

    def ready(self, urls: Mapping[Any, str]) -> dict[Key, bool | None]:
        """Ask ready URLs: 2xx is True; other answers and no contact are False; an unusable URL is None. Never raises."""
        return {key: answer.ok for key, answer in self.check(urls).items()}

    def check(self, urls: Mapping[Any, str]) -> dict[Key, Readiness]:
        """Ask ready URLs like `ready`, and say why one is not ready."""
        asked = list(urls.items())
        return {
            key: Readiness(None if isinstance(answer, _Unusable) else False, str(answer))
            if isinstance(answer, Exception)
            else answer
            for (key, _), answer in zip(asked, self._run(self._ask, [url for _, url in asked]), strict=True)
        }

    @staticmethod
    async def _ask(client: httpx.AsyncClient, url: str) -> Readiness:
        async with client.stream("GET", url) as response:  # the body does not matter and is not read
            ok = response.is_success
            return Readiness(ok, None if ok else f"answers {response.status_code}")

    async def _get(self, client: httpx.AsyncClient, url: str) -> _Body:
        async with client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                raise _NoSample(f"answers {response.status_code}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _NoSample("answers compressed, although plain text was asked for")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > self._max_bytes:
                    raise _NoSample(f"answers more than {self._max_bytes} bytes")
            return _Body(body.decode("utf-8", "replace"), self._clock.now(), self._clock.monotonic())

    def _run(self, ask: _Ask[A], urls: Sequence[str]) -> list[A | Exception]:
        if not urls:
            return []
        context = self._context(any(url.lower().startswith("https:") for url in urls))
        # A loop of its own per call: closing it does not wait for name look-ups that hang, as asyncio.run would.
        loop = asyncio.new_event_loop()
        try:
            loop.set_default_executor(ThreadPoolExecutor(self._workers, thread_name_prefix="coloc-names"))
            return loop.run_until_complete(self._all(ask, urls, context))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _all(self, ask: _Ask[A], urls: Sequence[str], context: ssl.SSLContext) -> list[A | Exception]:
        headers = {"Accept-Encoding": "identity", "Accept": "text/plain", "User-Agent": "colocd"}
        async with AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(
                    httpx.AsyncClient(
                        verify=context,
                        follow_redirects=False,
                        # a proxy of the daemon's environment has no place between the head node and its own nodes
                        trust_env=False,
                        timeout=None,
                        limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                        headers=headers,
                    )
                )
                for _ in range(0, len(urls), POOL)
            ]
            deadline = asyncio.get_running_loop().time() + self._timeout + OWN * len(urls)
            asked = (ask(clients[i // POOL], url) for i, url in enumerate(urls))
            return list(await asyncio.gather(*(self._bounded(answer, deadline) for answer in asked)))

    async def _bounded(self, answer: Coroutine[Any, Any, A], deadline: float) -> A | Exception:
        try:
            async with asyncio.timeout_at(deadline):
                return await answer
        except TimeoutError:
            return _NoSample(f"no whole answer within {self._timeout:g} s")
        except _NoSample as wrong:
            return wrong
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as wrong:
            return _Unusable(f"the URL is unusable: {wrong}")
        except httpx.ConnectError as wrong:
            return _NoSample(f"no connection: {_cause(wrong)}")
        except (httpx.HTTPError, OSError, ValueError) as wrong:
            return _NoSample(f"no proper HTTP answer: {_cause(wrong)}")

    def _context(self, secure: bool) -> ssl.SSLContext:
        if not secure:
            return httpx.create_ssl_context(verify=False, trust_env=False)
        if self._tls is None:
            self._tls = ssl.create_default_context()  # the system's certificates: sites add their own authority there
        return self._tls


class _NoSample(Exception):
    """The server was asked, but gave no usable answer."""


class _Unusable(Exception):
    """The server could not be asked at all."""


def _cause(wrong: BaseException) -> str:
    """The innermost message of an exception chain, in one line."""
    text = str(wrong) or type(wrong).__name__
    return " ".join(text.split())[:200]
