"""Answers of the API: JSON bodies, and errors as `{error, hint, exit_code}` with a fitting HTTP status."""

from typing import Any

import msgspec
from starlette.responses import Response

from colocd import errors
from colocd.errors import ColocError

STATUS: dict[type[ColocError], int] = {
    errors.BadRequest: 400,
    errors.BadFile: 422,
    errors.NotFound: 404,
    errors.NotAllowed: 403,
    errors.SlurmRefused: 409,
    errors.SlurmUnreachable: 503,
    errors.SlurmUnknown: 504,
    errors.StoreUnavailable: 503,
    errors.SchemaOutdated: 503,
    errors.DaemonUnreachable: 503,
    errors.BadConfig: 500,
}


def json_answer(value: Any, status: int = 200) -> Response:
    """A JSON answer; bytes are taken as finished JSON. NaN and infinity become null: they are not numbers."""
    body = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return Response(body, status, media_type="application/json")


def error_answer(error: ColocError, status: int | None = None) -> Response:
    """The error as JSON. `status` None: the one that fits the error's class."""
    if status is None:
        status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)
    return json_answer({"error": str(error), "hint": error.hint, "exit_code": error.exit_code}, status)
