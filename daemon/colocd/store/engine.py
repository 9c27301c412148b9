"""From a URL to an engine, and from database errors to one sentence. No password gets out of here."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    SQLAlchemyError,
    StatementError,
)

from colocd.clock import SystemClock
from colocd.errors import BadConfig, BadRequest, StoreUnavailable
from colocd.store.types import dump_json

WRITING = "coloc_writing"
"""Execution option of connections that are going to write: SQLite takes its write lock at the start."""

_URL_HINT = "write sqlite:////absolute/path/coloc.db or postgresql+psycopg://user@host/database as [database] url"


class Target(msgspec.Struct, frozen=True):
    """Where the database is. `path`: the file, for SQLite. `label`: how to name it to people, without any password."""

    url: URL
    path: Path | None
    label: str


def parse(text: str) -> Target:
    """Read a database URL; raises `BadConfig`. Never repeats the text: it may hold a password."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise BadConfig("the database URL cannot be read", _URL_HINT) from None
    if url.drivername == "sqlite":
        if not url.database or not url.database.startswith("/") or url.host:
            raise BadConfig("the database URL must name a file by its absolute path", _URL_HINT)
        if url.query:
            raise BadConfig("a sqlite database URL takes no options", _URL_HINT)
        # As it stands: only some releases of SQLAlchemy decode percent signs.
        path = text.partition("://")[2][1:]
        return Target(url, Path(path), f"sqlite:///{path}")
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        url = url.set(drivername="postgresql+psycopg")
        return Target(url, None, url.set(query={}).render_as_string(hide_password=True))
    raise BadConfig(f"the database URL scheme {url.drivername!r} is not supported", _URL_HINT)


def connect(target: Target, *, wait: float, statement_limit: float | None = None) -> Engine:
    """Make an engine; nothing is opened yet. `wait`: seconds for a lock or a server to answer.

    `statement_limit`: longest time of one statement in seconds, PostgreSQL only; None: no limit.
    """
    if target.path is not None:
        return _sqlite(target.path, wait)
    limits = f"-c timezone=UTC -c lock_timeout={_ms(wait)} -c statement_timeout={_ms(statement_limit or 0)}"
    arguments: dict[str, Any] = {
        "connect_timeout": max(1, round(wait)),
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "coloc",
        **target.url.query,
    }
    arguments["options"] = f"{arguments.get('options', '')} {limits}".strip()
    try:
        return create_engine(
            target.url.set(query={}),
            connect_args=arguments,
            pool_pre_ping=True,
            pool_timeout=wait,
            hide_parameters=True,
            json_serializer=dump_json,
        )
    except ModuleNotFoundError:
        raise BadConfig(
            "the database URL asks for PostgreSQL but psycopg is not installed", "install coloc[postgresql]"
        ) from None


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _sqlite(path: Path, wait: float) -> Engine:
    # mode=rw: a file that vanished is an error, not a new empty database.
    name = f"file:{quote(str(path))}?mode=rw"

    def opened() -> sqlite3.Connection:
        connection = sqlite3.connect(name, uri=True, timeout=wait, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(connection, wait)
            # FULL: a commit is on the disk before the call to Slurm that it announces.
            for pragma in ("synchronous=FULL", "foreign_keys=ON", "journal_size_limit=67108864"):
                connection.execute(f"PRAGMA {pragma}").close()
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=opened,
        pool_timeout=wait,
        hide_parameters=True,
        json_serializer=dump_json,
        poolclass=QueuePool,
    )

    @event.listens_for(engine, "connect")
    def remember(connection: sqlite3.Connection, record: Any) -> None:
        record.info["file"] = _identity(path)

    @event.listens_for(engine, "checkout")
    def same_file(connection: sqlite3.Connection, record: Any, proxy: object) -> None:
        # A connection to a file that was removed or replaced would go on writing into the void.
        if record.info.get("file") != _identity(path) or record.info["file"] is None:
            raise DisconnectionError("the database file is another one now")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _use_wal(connection: sqlite3.Connection, wait: float) -> None:
    """Switch a new file to WAL. SQLite's own wait does not cover this: of several at once one may be refused at once."""
    clock = SystemClock()
    deadline = clock.monotonic() + wait
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or clock.monotonic() >= deadline:
                raise
        clock.sleep(0.02)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def answering(target: Target) -> Iterator[None]:
    """Turn every database error inside into `StoreUnavailable`, or `BadRequest` where the value is to blame."""
    try:
        yield
    except (IntegrityError, DataError) as error:
        raise BadRequest(f"the database refuses the row: {_sentence(target, error)}", "nothing was written") from error
    except DBAPIError as error:
        raise StoreUnavailable(f"the database {target.label} does not answer: {_sentence(target, error)}") from error
    except (StatementError, OverflowError, UnicodeError) as error:
        raise BadRequest(f"a value cannot be stored: {_sentence(target, error)}", "nothing was written") from error
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise StoreUnavailable(f"the database {target.label} does not answer: {_sentence(target, error)}") from error
    except msgspec.ValidationError as error:
        raise StoreUnavailable(
            f"the database {target.label} holds a row that this release cannot read: {error}",
            "use the release that wrote it, or restore a backup",
        ) from error


def _sentence(target: Target, error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    words = re.sub(r"\s+", " ", str(cause)).strip().rstrip(".")
    secrets = (target.url.password, target.url.query.get("password"), target.url.query.get("sslpassword"))
    for secret in secrets:
        if secret:
            words = words.replace(str(secret), "***")
    return words[:300]
