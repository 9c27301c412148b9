"""The store on SQLite and PostgreSQL."""

from colocd.store.facts import Facts
from colocd.store.history import History
from colocd.store.ledger import Ledger
from colocd.store.rollup import Rollup


class SqlStore(Facts, Ledger, History, Rollup):
    """`colocd.store.port.Store` over SQLAlchemy; open one with `colocd.store.open_store`. Safe to use from threads."""
