"""Load samples and decisions, which only grow, and pruning."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Text, case, cast, delete, insert, literal, or_, select, true

from colocd.store.base import Base, values
from colocd.store.ledger import UNSETTLED
from colocd.store.packs import MINUTE, SPAN, TEN_MINUTES
from colocd.store.records import OPEN_STATES, Decision, LoadSample
from colocd.store.tables import batch_jobs, decisions, handovers, intents, load_packs, load_samples, load_series, runs
from colocd.store.types import storable

_SLICE = 5000
"""Rows deleted in one transaction: pruning never makes an intent wait for long."""


class History(Base):
    """The part of `Store` that appends, and prunes what is old."""

    def add_load(self, samples: Sequence[LoadSample]) -> None:
        """See `Store.add_load`."""
        if not samples:
            return
        names = sorted({storable(sample.service) for sample in samples})
        with self._writing() as connection:
            numbers = self._series(connection, names)
            rows = [{"series": numbers[storable(s.service)], "at": s.at, "value": s.value} for s in samples]
            self._put(connection, load_samples, rows)

    def _series(self, connection: Connection, names: Sequence[str]) -> dict[str, int]:
        query = select(load_series.c.name, load_series.c.id).where(load_series.c.name.in_(names))
        known = dict(connection.execute(query).all())
        missing = [{"name": name} for name in names if name not in known]
        if missing:
            connection.execute(self._insert(load_series).on_conflict_do_nothing(index_elements=["name"]), missing)
            known = dict(connection.execute(query).all())
        return known

    def add_decisions(self, rows: Sequence[Decision]) -> None:
        """See `Store.add_decisions`. The ids given are ignored."""
        if not rows:
            return
        new = [values(row) for row in rows]
        for row in new:
            del row["id"]
        with self._writing() as connection:
            connection.execute(insert(decisions), new)

    def decisions(self, subject: str | None = None, *, limit: int = 100) -> tuple[Decision, ...]:
        """See `Store.decisions`."""
        query = select(decisions).order_by(decisions.c.at.desc(), decisions.c.id.desc()).limit(limit)
        return self._select(query if subject is None else query.where(decisions.c.subject == subject), Decision)

    def prune(
        self,
        *,
        load_before: float,
        decisions_before: float,
        raw_before: float | None = None,
        minutes_before: float | None = None,
        runs_before: float | None = None,
    ) -> int:
        """See `Store.prune`; what stays is written down in docs/store.md. Works in slices, each its own transaction."""
        with self._reading() as connection:
            series = connection.execute(select(load_series.c.id, load_series.c.minutes_to, load_series.c.tens_to)).all()
        # In this order: an intent goes before its handover, a job before the last decision on it.
        rows = self._slices(intents.c.id, intents.c.at < decisions_before, intents.c.outcome.not_in(UNSETTLED), _idle())
        rows += self._slices(
            handovers.c.id,
            handovers.c.updated_at < decisions_before,
            handovers.c.state.not_in(OPEN_STATES),
            ~select(intents.c.id).where(intents.c.handover == handovers.c.id).exists(),
        )
        gone = (batch_jobs.c.ended.is_not(None), batch_jobs.c.last_seen < decisions_before)
        rows += self._slices(batch_jobs.c.ref, *gone)
        rows += self._slices(decisions.c.id, decisions.c.at < decisions_before, ~_last_word())
        if runs_before is not None:
            rows += self._slices(runs.c.ref, runs.c.ended < runs_before)
        for number, minutes_to, tens_to in series:
            # Whole rows of the next coarser roll-up go, so that what is left joins on without a gap or an overlap.
            raw = _done(raw_before, minutes_to, SPAN[MINUTE])
            old = load_before if raw is None else max(load_before, raw)
            rows += self._slices(load_samples.c.at, load_samples.c.series == number, load_samples.c.at < old)
            whole = _done(minutes_before, tens_to, SPAN[TEN_MINUTES])
            for step, until in ((MINUTE, whole), (MINUTE, load_before), (TEN_MINUTES, load_before)):
                if until is not None:
                    last = max(-(1 << 62), int(until) - SPAN[step])
                    mine = (load_packs.c.series == number, load_packs.c.step == step)
                    rows += self._slices(load_packs.c.start, *mine, load_packs.c.start <= last)
        return rows

    def _slices(self, key: Column[Any], *old: ColumnElement[bool]) -> int:
        """Delete the rows for which all of `old` holds, a slice at a time; return how many there were."""
        statement = delete(key.table).where(key.in_(select(key).where(*old).limit(_SLICE)), *old)
        total = 0
        while True:
            with self._writing() as connection:
                count: int = connection.execute(statement).rowcount
            total += count
            if count < _SLICE:
                return total


def _done(before: float | None, rolled_to: int | None, span: int) -> float | None:
    """Until when rows may go because they are rolled up and older than `before`; None: none may."""
    return None if before is None or rolled_to is None else min(before, rolled_to) // span * span


def _idle() -> ColumnElement[bool]:
    """The intent belongs to no open handover."""
    open_ones = select(handovers.c.id).where(handovers.c.state.in_(OPEN_STATES))
    return or_(intents.c.handover.is_(None), intents.c.handover.not_in(open_ones))


def _last_word() -> ColumnElement[bool]:
    """The newest decision on a subject, unless that is a job or a handover the store no longer holds."""
    other = decisions.alias()
    newest = (
        select(other.c.id)
        .where(other.c.subject == decisions.c.subject)
        .order_by(other.c.at.desc(), other.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    job = select(batch_jobs.c.ref).where(literal("job:", Text) + batch_jobs.c.ref == decisions.c.subject)
    handover = select(handovers.c.id).where(
        literal("handover:", Text) + cast(handovers.c.id, Text) == decisions.c.subject
    )
    return (decisions.c.id == newest) & case(
        (decisions.c.subject.like("job:%"), job.exists()),
        (decisions.c.subject.like("handover:%"), handover.exists()),
        else_=true(),
    )
