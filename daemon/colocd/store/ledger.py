"""Intents and handovers: what must survive a crash at any instruction."""

from collections.abc import Callable

import msgspec
from sqlalchemy import Connection, insert, select, update

from colocd.errors import NotFound
from colocd.store.base import Base, values
from colocd.store.records import OPEN_STATES, Handover, Intent, Outcome
from colocd.store.tables import handovers, intents

UNSETTLED = (Outcome.OPEN, Outcome.UNKNOWN)
_INTENT = [column for column in intents.columns if column.name != "id"]


class Ledger(Base):
    """The part of `Store` that is written before and after each call to Slurm."""

    def intend(self, intent: Intent) -> bool:
        """See `Store.intend`. Of all callers with one key, in any process, exactly one gets True."""
        # RETURNING and not the row count: psycopg gives none for this statement.
        statement = self._insert(intents).on_conflict_do_nothing(index_elements=["key"]).returning(intents.c.id)
        with self._writing() as connection:
            return connection.scalar(statement, values(intent)) is not None

    def settle(self, key: str, outcome: Outcome, at: float, detail: str | None = None) -> None:
        """See `Store.settle`. Raises `NotFound` for a key that was never intended."""
        change = update(intents).where(intents.c.key == key).values(outcome=outcome, settled_at=at, detail=detail)
        with self._writing() as connection:
            if connection.execute(change).rowcount == 0:
                raise NotFound(f"there is no intent {key!r} to settle")

    def intent(self, key: str) -> Intent | None:
        """See `Store.intent`."""
        return next(iter(self._select(select(*_INTENT).where(intents.c.key == key), Intent)), None)

    def intents(self, *, unsettled: bool = False, handover: int | None = None) -> tuple[Intent, ...]:
        """See `Store.intents`."""
        query = select(*_INTENT).order_by(intents.c.at, intents.c.id)
        if unsettled:
            query = query.where(intents.c.outcome.in_(UNSETTLED))
        if handover is not None:
            query = query.where(intents.c.handover == handover)
        return self._select(query, Intent)

    def add_handover(self, handover: Handover) -> Handover:
        """See `Store.add_handover`. The id given is ignored."""
        with self._writing() as connection:
            return _added(connection, handover)

    def add_pair(self, lead: Handover, follower: Callable[[Handover], Handover]) -> tuple[Handover, Handover]:
        """See `Store.add_pair`. The ids given are ignored."""
        with self._writing() as connection:
            first = _added(connection, lead)
            return first, _added(connection, follower(first))

    def save_handover(self, handover: Handover) -> None:
        """See `Store.save_handover`. Raises `NotFound` for one that was never added."""
        row = values(handover)
        number = row.pop("id")
        with self._writing() as connection:
            if connection.execute(update(handovers).where(handovers.c.id == number), row).rowcount == 0:
                raise NotFound(f"there is no handover {number} to save")

    def handover(self, number: int) -> Handover | None:
        """See `Store.handover`."""
        return next(iter(self._select(select(handovers).where(handovers.c.id == number), Handover)), None)

    def handovers(self, *, only_open: bool = False, limit: int = 1000) -> tuple[Handover, ...]:
        """See `Store.handovers`."""
        query = select(handovers).limit(limit)
        if only_open:
            query = query.where(handovers.c.state.in_(OPEN_STATES)).order_by(handovers.c.id)
        else:
            query = query.order_by(handovers.c.id.desc())
        return self._select(query, Handover)


def _added(connection: Connection, handover: Handover) -> Handover:
    row = values(handover)
    del row["id"]
    return msgspec.structs.replace(handover, id=connection.scalar(insert(handovers).returning(handovers.c.id), row))
