"""The load's history: samples, rolled up to minutes by the hour and to ten minutes by the day, and read back as one."""

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, func, select, update

from colocd.store.base import Base
from colocd.store.packs import MINUTE, SPAN, TEN_MINUTES, LoadBucket, bucketed, coarser, pack, unpack
from colocd.store.records import LoadSample
from colocd.store.tables import load_packs, load_samples, load_series

LAG = 120.0
"""Seconds after its end when an hour is rolled up: readings that took their time are in by then."""
_HOUR, _DAY = SPAN[MINUTE], SPAN[TEN_MINUTES]


class Rollup(Base):
    """The part of `Store` that makes old load small, and reads it."""

    def roll_up(self, now: float, *, at_most: int = 100) -> int:
        """See `Store.roll_up`."""
        until = int((now - LAG) // _HOUR * _HOUR)
        done = 0
        with self._reading() as connection:
            columns = (load_series.c.id, load_series.c.minutes_to, load_series.c.tens_to)
            series = connection.execute(select(*columns).order_by(load_series.c.id)).all()
        for number, minutes_to, tens_to in series:
            if minutes_to is not None and minutes_to >= until and tens_to is not None and until - tens_to < _DAY:
                continue
            while done < at_most and self._roll_one(number, until):
                done += 1
            if done >= at_most:
                break
        return done

    def _roll_one(self, series: int, until: int) -> bool:
        """Roll the next hour or day of one series up, in one transaction; False: nothing is left to do for it."""
        with self._writing() as connection:
            # Read again inside: another process may have done it meanwhile.
            mine = load_series.c.id == series
            lock = select(load_series.c.minutes_to, load_series.c.tens_to).where(mine).with_for_update(key_share=True)
            minutes_to, tens_to = connection.execute(lock).one()
            if minutes_to is None or minutes_to < until:
                start = self._next_hour(connection, series, minutes_to)
                if start is None or start >= until:
                    # Nothing there: but what comes late for an hour that is over must not be rolled up over others.
                    connection.execute(update(load_series).where(mine).values(minutes_to=until))
                    return True
                buckets = bucketed(self._raw(connection, series, start, start + _HOUR), MINUTE)
                self._keep(connection, series, MINUTE, start, buckets)
                connection.execute(update(load_series).where(mine).values(minutes_to=start + _HOUR))
                return True
            return self._roll_day(connection, series, minutes_to, tens_to)

    def _roll_day(self, connection: Connection, series: int, minutes_to: int, tens_to: int | None) -> bool:
        mine = load_series.c.id == series
        first = self._first_pack(connection, series, tens_to)
        end = minutes_to // _DAY * _DAY
        if first is None or first // _DAY * _DAY >= end:
            if tens_to is not None and tens_to >= end:
                return False
            connection.execute(update(load_series).where(mine).values(tens_to=end))
            return True
        start = first // _DAY * _DAY
        buckets = coarser(self._packed(connection, series, MINUTE, start, start + _DAY), TEN_MINUTES)
        self._keep(connection, series, TEN_MINUTES, start, buckets)
        connection.execute(update(load_series).where(mine).values(tens_to=start + _DAY))
        return True

    def _next_hour(self, connection: Connection, series: int, since: int | None) -> int | None:
        query = select(func.min(load_samples.c.at)).where(load_samples.c.series == series)
        at = connection.scalar(query if since is None else query.where(load_samples.c.at >= float(since)))
        return None if at is None else int(at // _HOUR * _HOUR)

    def _first_pack(self, connection: Connection, series: int, since: int | None) -> int | None:
        query = select(func.min(load_packs.c.start)).where(load_packs.c.series == series, load_packs.c.step == MINUTE)
        start: int | None = connection.scalar(query if since is None else query.where(load_packs.c.start >= since))
        return start

    def _keep(self, connection: Connection, series: int, step: int, start: int, buckets: Sequence[LoadBucket]) -> None:
        row = {"series": series, "step": step, "start": start, "data": pack(buckets, start, step)}
        self._put(connection, load_packs, [row])

    def _raw(
        self, connection: Connection, series: int, since: float, until: float | None = None
    ) -> list[tuple[float, float | None]]:
        query = select(load_samples.c.at, load_samples.c.value).order_by(load_samples.c.at)
        query = query.where(load_samples.c.series == series, load_samples.c.at >= since)
        return [
            (at, v) for at, v in connection.execute(query if until is None else query.where(load_samples.c.at < until))
        ]

    def _packed(
        self, connection: Connection, series: int, step: int, since: float, until: float
    ) -> Iterator[LoadBucket]:
        """Buckets from rows of `step` that begin in [since, until)."""
        query = select(load_packs.c.start, load_packs.c.data).where(
            load_packs.c.series == series,
            load_packs.c.step == step,
            load_packs.c.start > int(since) - SPAN[step],
            load_packs.c.start < int(until),
        )
        for start, data in connection.execute(query.order_by(load_packs.c.start)):
            yield from (b for b in unpack(bytes(data), start, step) if since <= b.at < until)

    def history(self, service: str, since: float, step: int = 600) -> tuple[LoadBucket, ...]:
        """See `Store.history`."""
        with self._reading() as connection:
            found = self._known(connection, service)
            if found is None:
                return ()
            number, minutes_to, tens_to = found
            minutes_from = max(since, float(tens_to or 0)) if step == TEN_MINUTES else since
            raw_from = since if minutes_to is None else max(since, float(minutes_to))
            old: list[LoadBucket] = []
            if step == TEN_MINUTES and tens_to is not None:
                old = list(self._packed(connection, number, TEN_MINUTES, since, float(tens_to)))
            minutes: list[LoadBucket] = []
            if minutes_to is not None:
                minutes = list(self._packed(connection, number, MINUTE, minutes_from, float(minutes_to)))
            new = bucketed(self._raw(connection, number, raw_from), MINUTE)
        return (*old, *(coarser([*minutes, *new], step) if step != MINUTE else [*minutes, *new]))

    def load(self, service: str, since: float) -> tuple[LoadSample, ...]:
        """See `Store.load`."""
        with self._reading() as connection:
            found = self._known(connection, service)
            if found is None:
                return ()
            number, minutes_to, tens_to = found
            raw = self._raw(connection, number, since)
            older: list[tuple[float, float | None]] = []
            for step, done in ((MINUTE, minutes_to), (TEN_MINUTES, tens_to)):
                if done is not None:
                    end = min(float(done), *(t[0] // SPAN[step] * SPAN[step] for t in (older or raw)[:1]))
                    buckets = self._packed(connection, number, step, since - step / 2, end)
                    older = [(b.at + step / 2, b.mean) for b in buckets] + older
        return tuple(LoadSample(service=service, at=at, value=value) for at, value in [*older, *raw])

    def _known(self, connection: Connection, service: str) -> tuple[int, int | None, int | None] | None:
        columns = (load_series.c.id, load_series.c.minutes_to, load_series.c.tens_to)
        row = connection.execute(select(*columns).where(load_series.c.name == service)).one_or_none()
        return None if row is None else (row[0], row[1], row[2])
