"""SQL store: history, intents, outcomes, decisions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colocd.store.sql import SqlStore


def open_store(url: str, *, check: bool = True, wait: float = 5.0) -> "SqlStore":
    """Open the store at an SQLAlchemy URL; see `colocd.store.opening.open_store`. Loads SQLAlchemy only when called."""
    from colocd.store import opening

    return opening.open_store(url, check=check, wait=wait)
