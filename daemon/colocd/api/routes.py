"""The API's routes over a `Backend`: reading for everybody, changing only where `admin` is true.

Backend calls run in threads of the given pool, so one that blocks (a slow slurmctld) stops no other request.
"""

import asyncio
import contextvars
import logging
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any, cast

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from colocd.api.answers import error_answer, json_answer
from colocd.api.backend import Backend
from colocd.api.discreet import Discreet
from colocd.api.peer import enter
from colocd.errors import BadRequest, ColocError, NotAllowed

log = logging.getLogger(__name__)

MAX_BODY = 1 << 20
"""Largest request body in bytes; a service file is a few kilobytes."""
MAX_HISTORY = 10_000
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Handler = Callable[[Request], Awaitable[Response]]


class _TooLarge(Exception):
    """A request body over `MAX_BODY`."""


def build_app(backend: Backend, *, admin: bool, pool: Executor) -> Starlette:
    """The application of one socket; with `admin` False changing routes answer 403."""
    api = _Api(backend if admin else cast("Backend", Discreet(backend)), pool)
    reads: list[tuple[str, Handler]] = [
        ("/v1/status", api.status),
        ("/v1/view", api.view),
        ("/v1/plan", api.plan),
        ("/v1/explain/{subject:path}", api.explain),
        ("/v1/valleys", api.valleys),
        ("/v1/history", api.history),
        ("/v1/queue", api.queue),
        ("/v1/report", api.report),
        ("/v1/services", api.services),
        ("/v1/services/{name}/endpoints", api.endpoints),
        ("/v1/forecast/{name}", api.forecast),
        ("/metrics", api.metrics),
    ]
    changes: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/services", api.apply_service),
        ("DELETE", "/v1/services/{name}", api.remove_service),
        ("POST", "/v1/services/{name}/override", api.override),
        ("POST", "/v1/pause", api.pause),
        ("POST", "/v1/resume", api.resume),
    ]
    routes = [Route(path, _guarded(handler), methods=["GET"]) for path, handler in reads]
    routes += [
        Route(path, _guarded(handler if admin else _denied), methods=[method]) for method, path, handler in changes
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})


def _guarded(handler: Handler) -> Handler:
    """Turn every exception into an answer: a `ColocError` as itself, anything else logged here and told as 500."""

    async def answer(request: Request) -> Response:
        enter(request.client.host if request.client is not None else None)
        try:
            return await handler(request)
        except _TooLarge:
            problem = BadRequest(f"the request body is larger than {MAX_BODY} bytes", "send a smaller file")
            return error_answer(problem, 413)
        except ColocError as error:
            return error_answer(error)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            return error_answer(ColocError("colocd failed on this request", "read colocd's log: the cause is there"))

    return answer


async def _denied(request: Request) -> Response:
    raise NotAllowed(
        f"{request.method} {request.url.path} changes something, and this socket is for reading only",
        "ask an operator; members of the operators' group use the admin socket",
    )


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = "is not possible on" if status == 405 else "does not exist:"
    problem = BadRequest(f"{request.method} {what} {request.url.path}", "the routes are listed in docs/api.md")
    return error_answer(problem, status)


class _Api:
    def __init__(self, backend: Backend, pool: Executor) -> None:
        self._backend = backend
        self._pool = pool

    async def _call(self, call: Callable[..., Any], *args: Any) -> Any:
        context = contextvars.copy_context()  # who asks goes along into the thread
        return await asyncio.get_running_loop().run_in_executor(self._pool, context.run, call, *args)

    async def _json(self, call: Callable[..., Any], *args: Any) -> Response:
        return json_answer(await self._call(call, *args))

    async def status(self, request: Request) -> Response:
        return await self._json(self._backend.status)

    async def view(self, request: Request) -> Response:
        return await self._json(self._backend.view)

    async def plan(self, request: Request) -> Response:
        return await self._json(self._backend.plan)

    async def explain(self, request: Request) -> Response:
        return await self._json(self._backend.explain, request.path_params["subject"])

    async def valleys(self, request: Request) -> Response:
        text = request.query_params.get("hours", "24")
        if text not in {str(n) for n in range(1, 25)}:
            raise BadRequest(f"hours is {text[:20]!r}; it must be a number from 1 to 24")
        return await self._json(self._backend.valleys, int(text))

    async def history(self, request: Request) -> Response:
        text = request.query_params.get("limit", "50")
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_HISTORY and len(text) <= 6):
            raise BadRequest(f"limit is {text!r}; it must be a number from 1 to {MAX_HISTORY}")
        return await self._json(self._backend.history, int(text))

    async def queue(self, request: Request) -> Response:
        return await self._json(self._backend.queue)

    async def report(self, request: Request) -> Response:
        month, user = request.query_params.get("month"), request.query_params.get("user")
        if month is not None and not _MONTH.fullmatch(month):
            raise BadRequest(f"month is {month!r:.40}; it must look like 2026-11")
        return await self._json(self._backend.report, month, user)

    async def forecast(self, request: Request) -> Response:
        return await self._json(self._backend.forecast, request.path_params["name"])

    async def services(self, request: Request) -> Response:
        return await self._json(self._backend.services)

    async def endpoints(self, request: Request) -> Response:
        return await self._json(self._backend.endpoints, request.path_params["name"])

    async def metrics(self, request: Request) -> Response:
        return Response(await self._call(self._backend.metrics), headers={"content-type": METRICS_TYPE})

    async def apply_service(self, request: Request) -> Response:
        text = _text(await _body(request))
        return await self._json(self._backend.apply_service, text, request.query_params.get("filename", "service file"))

    async def remove_service(self, request: Request) -> Response:
        return await self._json(self._backend.remove_service, request.path_params["name"])

    async def override(self, request: Request) -> Response:
        reason = _reason(await _body(request), "override")
        return await self._json(self._backend.override, request.path_params["name"], reason)

    async def pause(self, request: Request) -> Response:
        return await self._json(self._backend.pause, _reason(await _body(request), "pause"))

    async def resume(self, request: Request) -> Response:
        return await self._json(self._backend.resume)


async def _body(request: Request) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise _TooLarge
        parts.append(part)
    return b"".join(parts)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the request body is not UTF-8 at byte {error.start}", "save the file as UTF-8") from None


def _reason(body: bytes, what: str) -> str:
    try:
        given = msgspec.json.decode(body or b"{}", type=dict[str, Any])
        reason = given.get("reason", "")
    except msgspec.DecodeError as error:
        raise BadRequest(
            f"the body of a request to {what} is not a JSON object: {error}", 'send {"reason": "…"}'
        ) from None
    if not isinstance(reason, str):
        raise BadRequest(f"the reason to {what} is not a text", 'send {"reason": "…"}')
    return reason
