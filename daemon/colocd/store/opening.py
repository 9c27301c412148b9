"""Opening a store: the URL is right, the database answers, the schema is the one this release needs."""

from colocd.errors import SchemaOutdated
from colocd.store import schema
from colocd.store.engine import connect, parse
from colocd.store.sql import SqlStore

STATEMENT_LIMIT = 30.0
"""Seconds after which PostgreSQL gives up one statement: a stuck server must not stop the cycle for good."""


def open_store(url: str, *, check: bool = True, wait: float = 5.0) -> SqlStore:
    """Open the store at `url`. `wait`: seconds to wait for a lock or for the server before `StoreUnavailable`.

    Raises `BadConfig` (URL), `StoreUnavailable` (no answer) and, with `check`, `SchemaOutdated` (schema not at head).
    Never creates or changes a schema: that is `colocd.store.schema.upgrade`. Without `check` nothing is opened yet.
    """
    target = parse(url)
    if check:
        state = schema.check(url, wait=wait)
        if state.current is None:
            raise SchemaOutdated(f"the database {target.label} has no coloc schema yet")
        if not state.known:
            raise SchemaOutdated(
                f"the schema of {target.label} is at {state.current}, which a newer release of coloc wrote",
                "install that release again, or restore the backup made before its upgrade; `coloc db upgrade` cannot help here",
            )
        if not state.up_to_date:
            raise SchemaOutdated(f"the schema of {target.label} is at {state.current}, this release needs {state.head}")
    return SqlStore(connect(target, wait=wait, statement_limit=STATEMENT_LIMIT), target)
