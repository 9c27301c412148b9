"""The client of colocd's API: one Unix socket for reading, one for changing; answers are the API's JSON values."""

import json
import socket
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from colocd.config import ApiConfig
from colocd.errors import ColocError, DaemonUnreachable, NotAllowed

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 60.0
"""Seconds for an answer: a change may wait for one step of a handover and for a slow slurmctld."""


class Client:
    """Talks to one daemon; use as a context manager, or call `close`.

    Every method raises the `ColocError` that the daemon raised, `DaemonUnreachable` when it does not answer, and
    `NotAllowed` when the file permissions of the socket refuse the caller.
    """

    def __init__(self, config: ApiConfig) -> None:
        self._read = _Door(config.socket)
        self._admin = _Door(config.admin_socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._read.close()
        self._admin.close()

    def status(self) -> dict[str, Any]:
        """See `Backend.status`."""
        return self._object(self._read.ask("GET", "/v1/status"))

    def view(self) -> bytes:
        """The last view as canonical JSON, byte for byte as the daemon made it."""
        return self._read.ask("GET", "/v1/view")

    def plan(self) -> bytes:
        """What would happen now, as canonical JSON."""
        return self._read.ask("GET", "/v1/plan")

    def explain(self, subject: str) -> dict[str, Any]:
        """See `Backend.explain`; raises `NotFound` for a subject coloc does not know."""
        return self._object(self._read.ask("GET", f"/v1/explain/{quote(subject, safe=':')}"))

    def valleys(self, hours: int = 24) -> dict[str, Any]:
        """See `Backend.valleys`."""
        return self._object(self._read.ask("GET", "/v1/valleys", params={"hours": str(hours)}))

    def history(self, limit: int = 50) -> list[dict[str, Any]]:
        """The `limit` newest decisions and handovers, newest first."""
        return self._list(self._read.ask("GET", "/v1/history", params={"limit": str(limit)}))

    def queue(self) -> list[dict[str, Any]]:
        """See `Backend.queue`."""
        return self._list(self._read.ask("GET", "/v1/queue"))

    def report(self, month: str | None, user: str | None) -> list[dict[str, Any]]:
        """See `Backend.report`."""
        asked = {key: value for key, value in (("month", month), ("user", user)) if value is not None}
        return self._list(self._read.ask("GET", "/v1/report", params=asked))

    def forecast(self, name: str) -> dict[str, Any]:
        """See `Backend.forecast`."""
        return self._object(self._read.ask("GET", f"/v1/forecast/{quote(name, safe='')}"))

    def services(self) -> list[dict[str, Any]]:
        """See `Backend.services`."""
        return self._list(self._read.ask("GET", "/v1/services"))

    def metrics(self) -> bytes:
        """Prometheus text."""
        return self._read.ask("GET", "/metrics")

    def apply_service(self, text: str, filename: str) -> dict[str, Any]:
        """Apply a service file; raises `BadFile` with the line when it is wrong, then nothing has changed."""
        body = text.encode()
        return self._object(self._admin.ask("POST", "/v1/services", params={"filename": filename}, content=body))

    def remove_service(self, name: str) -> dict[str, Any]:
        """Remove a service: its replicas are drained."""
        return self._object(self._admin.ask("DELETE", f"/v1/services/{quote(name, safe='')}"))

    def override(self, name: str, reason: str) -> dict[str, Any]:
        """See `Backend.override`."""
        body = json.dumps({"reason": reason}).encode()
        return self._object(self._admin.ask("POST", f"/v1/services/{quote(name, safe='')}/override", content=body))

    def pause(self, reason: str) -> dict[str, Any]:
        """Stop acting after the current step."""
        return self._object(self._admin.ask("POST", "/v1/pause", content=json.dumps({"reason": reason}).encode()))

    def resume(self) -> dict[str, Any]:
        """Act again."""
        return self._object(self._admin.ask("POST", "/v1/resume"))

    def _object(self, body: bytes) -> dict[str, Any]:
        value = _json(body)
        if not isinstance(value, dict):
            raise _nonsense(self._read.path)
        return value

    def _list(self, body: bytes) -> list[dict[str, Any]]:
        value = _json(body)
        if not isinstance(value, list):
            raise _nonsense(self._read.path)
        return value


class _Door:
    """One socket."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._http: httpx.Client | None = None

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def ask(
        self, method: str, path: str, *, params: dict[str, str] | None = None, content: bytes | None = None
    ) -> bytes:
        if self._http is None:
            _knock(self.path)
            # trust_env: a proxy from the environment must not come between us and a local socket.
            self._http = httpx.Client(
                transport=httpx.HTTPTransport(uds=self.path),
                base_url="http://coloc",
                timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
                trust_env=False,
            )
        try:
            answer = self._http.request(method, path, params=params, content=content)
        except httpx.TimeoutException:
            message = f"colocd does not answer on {self.path} within {READ_TIMEOUT:g} seconds"
            raise DaemonUnreachable(message) from None
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise DaemonUnreachable(f"colocd on {self.path} broke the connection off: {reason}") from None
        if answer.is_success:
            return answer.content
        raise _told(answer.status_code, answer.content, self.path)


def _knock(path: str) -> None:
    """Connect once by hand: httpx hides the reason of a refused connection and leaks the socket of it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT)
        try:
            probe.connect(path)
        except PermissionError:
            raise NotAllowed(f"you may not use the socket {path}") from None
        except FileNotFoundError:
            raise DaemonUnreachable(f"colocd is not running: there is no socket {path}") from None
        except ConnectionRefusedError:
            raise DaemonUnreachable(f"colocd is not running: nobody listens on {path}") from None
        except OSError as error:
            raise DaemonUnreachable(f"the socket {path} cannot be used: {error}") from None


def _told(status: int, body: bytes, path: str) -> ColocError:
    try:
        facts = json.loads(body)
        message, hint, code = str(facts["error"]), str(facts["hint"]), int(facts["exit_code"])
    except (ValueError, TypeError, KeyError):
        if status == 503:
            return DaemonUnreachable(f"colocd on {path} has too many requests open", "try again in a moment")
        return _nonsense(path)
    kind = next((known for known in ColocError.__subclasses__() if known.exit_code == code), ColocError)
    error = kind(message, hint)
    error.exit_code = code
    return error


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _nonsense(path: str) -> ColocError:
    return DaemonUnreachable(f"what answers on {path} is not colocd, or another release of it")
