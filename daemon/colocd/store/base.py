"""What all parts of the SQL store share: transactions, upserts, rows from records and back."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, Executable, QueuePool, Table
from sqlalchemy.dialects import postgresql, sqlite

from colocd.errors import StoreUnavailable
from colocd.store.engine import WRITING, Target, answering

Record = TypeVar("Record", bound=msgspec.Struct)


class Base:
    """An engine and its short transactions. Safe to use from several threads."""

    def __init__(self, engine: Engine, target: Target) -> None:
        self._engine = engine
        self._writer = engine.execution_options(**{WRITING: True})
        self._target = target
        self._closed = False

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        if self._closed:
            raise StoreUnavailable("the store is closed", "start the program again")
        with answering(self._target), engine.begin() as connection:
            yield connection

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._transaction(self._engine)

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._transaction(self._writer)

    def _insert(self, table: Table) -> "postgresql.Insert | sqlite.Insert":
        return postgresql.insert(table) if self._engine.dialect.name == "postgresql" else sqlite.insert(table)

    def _put(self, connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
        """Insert or replace rows. The last of two with one key wins; in key order, so that two writers never deadlock."""
        keys = [column.name for column in table.primary_key]
        unique = {tuple(row[key] for key in keys): row for row in rows}
        if not unique:
            return
        statement = self._insert(table)
        changed = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)
        connection.execute(statement, [unique[key] for key in sorted(unique)])

    def _select(self, query: Executable, kind: type[Record]) -> tuple[Record, ...]:
        with self._reading() as connection:
            found = connection.execute(query)
            names = [str(name) for name in found.keys()]  # noqa: SIM118 -- a result is no dict
            return tuple(msgspec.convert(dict(zip(names, row, strict=True)), kind) for row in found)

    def open_connections(self) -> int:
        """Connections in use now; 0 between calls, or something leaks."""
        pool = self._engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0

    def close(self) -> None:
        """See `Store.close`."""
        self._closed = True
        with answering(self._target):
            self._engine.dispose()


def values(record: msgspec.Struct) -> dict[str, Any]:
    """The record as a row."""
    return msgspec.structs.asdict(record)
