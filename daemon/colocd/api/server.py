"""The API server: one thread, two Unix sockets, two applications over the same backend."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from socket import socket

import uvicorn

from colocd.api.backend import Backend
from colocd.api.peer import PeerProtocol
from colocd.api.routes import build_app
from colocd.api.sockets import UnixSocket, listen
from colocd.config import ApiConfig
from colocd.errors import BadConfig, ColocError

log = logging.getLogger(__name__)

_CALLS = 8
"""Backend calls at once, per socket: readers who hang never keep an operator out."""
_CONNECTIONS = 200
_DRAIN = 2
"""Seconds that running requests get when the server stops."""
_JOIN = 0.2
"""Seconds to wait for each idle worker thread; they end at once."""


class ApiServer:
    """Serves a backend from `start` to `stop`; can be started once."""

    def __init__(self, backend: Backend, config: ApiConfig) -> None:
        self._backend = backend
        self._config = config
        self._sockets: list[UnixSocket] = []
        self._servers: list[_Server] = []
        self._pools: list[ThreadPoolExecutor] = []
        self._workers: list[threading.Thread] = []
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind both sockets and serve them. Raises `BadConfig` or `NotAllowed`; nothing is left behind then."""
        config = self._config
        if config.socket == config.admin_socket:
            raise BadConfig("api.socket and api.admin_socket are the same path", "give them two paths")
        try:
            self._sockets.append(listen(config.socket, 0o666))
            self._sockets.append(listen(config.admin_socket, 0o660, config.group))
        except ColocError:
            self._remove_sockets()
            raise
        for admin in (False, True):
            name = "api-admin" if admin else "api-read"
            pool = ThreadPoolExecutor(_CALLS, thread_name_prefix=name, initializer=self._enlist)
            self._pools.append(pool)
            self._servers.append(_Server(_settings(build_app(self._backend, admin=admin, pool=pool))))
        self._thread = threading.Thread(target=self._run, name="api", daemon=True)
        self._thread.start()
        for server in self._servers:
            if not server.up.wait(10):
                self.stop()
                raise ColocError("the API server did not start", "read colocd's log: the cause is there")
        log.info("API on %s (reading) and %s (operators)", config.socket, config.admin_socket)

    def stop(self) -> None:
        """Finish running requests (2 s at most), end the thread and remove the sockets; safe to call twice."""
        for server in self._servers:
            server.should_exit = True
        if self._thread is not None:
            self._thread.join(_DRAIN + 8)
            self._thread = None
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            # A backend call that hangs keeps its own thread, but must not keep the daemon from stopping.
            worker.join(_JOIN)
        self._servers, self._pools, self._workers = [], [], []
        self._remove_sockets()

    def _enlist(self) -> None:
        self._workers.append(threading.current_thread())

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:
            log.exception("the API server ended")

    async def _serve(self) -> None:
        pairs = zip(self._servers, self._sockets, strict=True)
        await asyncio.gather(*(server.serve(sockets=[unix.sock]) for server, unix in pairs))

    def _remove_sockets(self) -> None:
        for unix in self._sockets:
            unix.remove()
        self._sockets = []


class _Server(uvicorn.Server):
    """Says when it serves: stopping one that is still starting would leak its listener."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


def _settings(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # a Starlette application is an ASGI application
        http=PeerProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_DRAIN,
    )
