"""The schema's life: look at it, bring it up, take it back. Works from an installed package, without alembic.ini."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import msgspec
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from colocd.errors import BadRequest, SchemaOutdated, StoreUnavailable
from colocd.store.engine import WRITING, Target, answering, connect, parse
from colocd.store.tables import metadata

_LOCK = 0x636F6C6F63
"""Key of the PostgreSQL advisory lock that keeps two upgrades apart ("coloc")."""

_ALEMBIC = threading.Lock()
"""Alembic's context is one per process, whatever the database."""


class SchemaState(msgspec.Struct, frozen=True):
    """`current`: revision of the database, None: no coloc schema. `known`: this release has heard of it."""

    current: str | None
    head: str
    known: bool = True

    @property
    def up_to_date(self) -> bool:
        """Whether this release can work with the schema."""
        return self.current == self.head


def config() -> Config:
    """The alembic configuration, made in code."""
    made = Config()
    folder = files("coloc_migrations")  # by name: neither package imports the other
    made.set_main_option("script_location", str(folder).replace("%", "%%"))
    made.attributes["metadata"] = metadata
    return made


def revisions() -> tuple[str, ...]:
    """All revisions, oldest first; the last is the one this release needs."""
    scripts = ScriptDirectory.from_config(config())
    return tuple(reversed([script.revision for script in scripts.walk_revisions()]))


def check(url: str, *, wait: float = 5.0) -> SchemaState:
    """Compare the database with this release; creates nothing. Raises `BadConfig` and `StoreUnavailable`."""
    target = parse(url)
    known = revisions()
    if target.path is not None and _missing(target, target.path):
        return SchemaState(None, known[-1])
    with _session(target, wait, writing=False) as connection:
        current = _current(connection)
    return SchemaState(current, known[-1], current is None or current in known)


def upgrade(url: str, *, wait: float = 5.0) -> tuple[str | None, str | None]:
    """Bring the schema to head in one transaction; return the revisions before and after.

    Makes the SQLite file (mode 0640) if there is none, never its folder. Raises as `check`, and `SchemaOutdated` when the
    schema is newer than this release.
    """
    target = parse(url)
    if target.path is not None and _missing(target, target.path):
        _create(target, target.path)
    return _migrate(target, wait, lambda made: command.upgrade(made, "head"))


def downgrade(url: str, revision: str, *, wait: float = 5.0) -> tuple[str | None, str | None]:
    """Take the schema back to `revision` (`base`, or `-1` for one step); data that has no place there is lost."""
    target = parse(url)
    if target.path is not None and _missing(target, target.path):
        raise StoreUnavailable(f"the database file {target.path} does not exist")
    return _migrate(target, wait, lambda made: command.downgrade(made, revision))


def _migrate(target: Target, wait: float, step: Callable[[Config], None]) -> tuple[str | None, str | None]:
    made = config()
    with _session(target, wait, writing=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        before = _current(connection)
        if before is not None and before not in revisions():
            raise SchemaOutdated(
                f"the schema of {target.label} is at {before}, which this release does not know",
                "use the newer release of coloc that wrote it",
            )
        made.attributes["connection"] = connection
        try:
            with _ALEMBIC:
                step(made)
        except CommandError as error:
            raise BadRequest(f"the schema cannot go there: {error}", "`coloc db check` shows revisions") from error
        return before, _current(connection)


@contextmanager
def _session(target: Target, wait: float, *, writing: bool) -> Iterator[Connection]:
    engine = connect(target, wait=wait)
    try:
        with answering(target), engine.execution_options(**{WRITING: writing}).begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _missing(target: Target, path: Path) -> bool:
    """Whether there is no database file; a missing folder is an error, for it is most likely a misspelt path."""
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"the folder of {target.label} does not exist", f"create {path.parent} or correct [database] url"
        )
    return not path.exists()


def _create(target: Target, path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreUnavailable(f"the database {target.label} cannot be created: {error.strerror}") from error
    try:
        os.fchmod(handle, 0o640)  # whatever the umask; SQLite gives its side files the same mode
    finally:
        os.close(handle)
