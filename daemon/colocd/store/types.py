"""Column types that mean the same on SQLite and PostgreSQL: instants, text, numbers, JSON."""

import datetime as dt
import json
import math
import re
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Float, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

from colocd.clock import unix, utc

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Instant(TypeDecorator[float]):
    """Unix seconds in Python, a UTC instant in the row (to the microsecond).

    PostgreSQL: `timestamp with time zone`. SQLite: text in UTC; with `compact`, an integer of microseconds since 1970,
    for tables that get large.
    """

    impl = DateTime
    cache_ok = True

    def __init__(self, compact: bool = False) -> None:
        super().__init__(timezone=True)
        self.compact = compact

    def _counts(self, dialect: Dialect) -> bool:
        return self.compact and dialect.name == "sqlite"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See `TypeDecorator`."""
        return dialect.type_descriptor(BigInteger() if self._counts(dialect) else DateTime(timezone=True))

    def process_bind_param(self, value: float | None, dialect: Dialect) -> dt.datetime | int | None:
        """See `TypeDecorator`."""
        if value is None:
            return None
        moment = utc(value)
        return (moment - _EPOCH) // _MICROSECOND if self._counts(dialect) else moment

    def process_result_value(self, value: Any, dialect: Dialect) -> float | None:
        """See `TypeDecorator`."""
        if value is None:
            return None
        return float(value / 1_000_000) if self._counts(dialect) else unix(value)


def storable(text: str) -> str:
    """The text as a row keeps it (see `Words`)."""
    return _UNSTORABLE.sub("\ufffd", str(text))


class Words(TypeDecorator[str]):
    """Text that is ordered by code point on both databases (not by the server's language).

    Job names may hold anything; NUL and broken UTF-8, which no database keeps, become the replacement character.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """See `TypeDecorator`."""
        return Text(collation="C") if dialect.name == "postgresql" else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """See `TypeDecorator`."""
        return None if value is None else storable(value)


class Number(TypeDecorator[float]):
    """A double; not-a-number is unknown and therefore None (SQLite would do that silently, PostgreSQL would not)."""

    impl = Float(53)
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        """See `TypeDecorator`."""
        return None if value is None or math.isnan(value) else float(value)


def dump_json(value: Any) -> str:
    """Write JSON for a row; numbers that JSON has no word for (NaN, infinity) are unknown and become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
