"""Services, replicas, batch jobs and settings: what is true now."""

from collections.abc import Sequence

from sqlalchemy import delete, select

from colocd.store.base import Base, values
from colocd.store.records import BatchJob, Learned, ReplicaRow, Run, ServiceRow
from colocd.store.tables import batch_jobs, learned, replicas, runs, services, settings


class Facts(Base):
    """The part of `Store` that replaces rows."""

    def put_service(self, row: ServiceRow) -> None:
        """See `Store.put_service`."""
        with self._writing() as connection:
            self._put(connection, services, [values(row)])

    def services(self) -> tuple[ServiceRow, ...]:
        """See `Store.services`."""
        return self._select(select(services).order_by(services.c.name), ServiceRow)

    def delete_service(self, name: str) -> None:
        """See `Store.delete_service`."""
        with self._writing() as connection:
            connection.execute(delete(services).where(services.c.name == name))
            connection.execute(delete(learned).where(learned.c.service == name))

    def put_replica(self, row: ReplicaRow) -> None:
        """See `Store.put_replica`."""
        with self._writing() as connection:
            self._put(connection, replicas, [values(row)])

    def replicas(self) -> tuple[ReplicaRow, ...]:
        """See `Store.replicas`."""
        return self._select(select(replicas).order_by(replicas.c.service, replicas.c.slot), ReplicaRow)

    def delete_replica(self, service: str, slot: int) -> None:
        """See `Store.delete_replica`."""
        with self._writing() as connection:
            connection.execute(delete(replicas).where(replicas.c.service == service, replicas.c.slot == slot))

    def put_jobs(self, rows: Sequence[BatchJob]) -> None:
        """See `Store.put_jobs`."""
        if rows:
            with self._writing() as connection:
                self._put(connection, batch_jobs, [values(row) for row in rows])

    def jobs(self, *, unended: bool = True) -> tuple[BatchJob, ...]:
        """See `Store.jobs`."""
        query = select(batch_jobs).order_by(batch_jobs.c.ref)
        return self._select(query.where(batch_jobs.c.ended.is_(None)) if unended else query, BatchJob)

    def put_learned(self, row: Learned) -> None:
        """See `Store.put_learned`."""
        with self._writing() as connection:
            self._put(connection, learned, [values(row)])

    def learned(self, topic: str) -> dict[str, Learned]:
        """See `Store.learned`."""
        rows = self._select(select(learned).where(learned.c.topic == topic).order_by(learned.c.service), Learned)
        return {row.service: row for row in rows}

    def put_runs(self, rows: Sequence[Run]) -> None:
        """See `Store.put_runs`."""
        if rows:
            with self._writing() as connection:
                self._put(connection, runs, [values(row) for row in rows])

    def runs(self, since: float, *, limit: int = 1_000_000) -> tuple[Run, ...]:
        """See `Store.runs`."""
        some = runs.c.ended.is_(None) | (runs.c.ended >= since)
        order = (runs.c.ended.is_not(None), runs.c.ended.desc(), runs.c.ref, runs.c.started)
        return self._select(select(runs).where(some).order_by(*order).limit(limit), Run)

    def put_setting(self, key: str, value: str | None) -> None:
        """See `Store.put_setting`."""
        with self._writing() as connection:
            if value is None:
                connection.execute(delete(settings).where(settings.c.key == key))
            else:
                self._put(connection, settings, [{"key": key, "value": value}])

    def setting(self, key: str) -> str | None:
        """See `Store.setting`."""
        with self._reading() as connection:
            found: str | None = connection.scalar(select(settings.c.value).where(settings.c.key == key))
        return found
