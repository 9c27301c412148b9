"""PostgreSQL's bad days: stopped, restarted, connections cut, rows locked, another time zone."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from sqlalchemy import make_url
from tests.helpers.private_postgres import PrivatePostgres

from colocd.errors import StoreUnavailable
from colocd.store import open_store
from colocd.store.records import BatchJob, Intent
from colocd.store.sql import SqlStore

pytestmark = pytest.mark.service


def intent(key: str, at: float = 1.0) -> Intent:
    return Intent(key=key, kind="k", subject="s", at=at)


@pytest.fixture
def pg_url(new_postgres: Callable[[str], str], postgres_template: str) -> str:
    return new_postgres(postgres_template)


@pytest.fixture
def pg(pg_url: str) -> Iterator[SqlStore]:
    store = open_store(pg_url, wait=1)
    yield store
    assert store.open_connections() == 0
    store.close()


def other_client(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    parts = make_url(url)
    return psycopg.connect(host=str(parts.query["host"]), user=parts.username, dbname=parts.database)


def test_stopped_and_started_again(pg: SqlStore, pg_url: str, postgres: PrivatePostgres) -> None:
    assert pg.intend(intent("a")) is True
    postgres.stop()
    try:
        for call in (pg.services, lambda: pg.intend(intent("b")), lambda: open_store(pg_url)):
            with pytest.raises(StoreUnavailable, match="does not answer") as caught:
                call()
            assert "\n" not in str(caught.value)
    finally:
        postgres.start()
    assert pg.intend(intent("a")) is False  # on the next call, without a word
    assert pg.intend(intent("b")) is True


def cut_all(url: str) -> int:
    """Cut every other connection to the database; return how many there were."""
    query = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    with other_client(url) as other:
        return len(other.execute(query).fetchall())


def test_connections_that_were_cut_are_replaced(pg: SqlStore, pg_url: str) -> None:
    assert pg.intend(intent("a")) is True
    assert cut_all(pg_url) == 1
    assert pg.intend(intent("b")) is True


def test_cut_in_the_middle_nothing_is_half_written(pg: SqlStore, pg_url: str) -> None:
    def write_and_lose_the_connection() -> None:
        with pg._writing() as connection:
            connection.exec_driver_sql("INSERT INTO settings (key, value) VALUES ('a', 'b')")
            cut_all(pg_url)
            connection.exec_driver_sql("INSERT INTO settings (key, value) VALUES ('c', 'd')")

    with pytest.raises(StoreUnavailable):
        write_and_lose_the_connection()
    assert pg.setting("a") is None
    assert pg.setting("c") is None


def test_a_row_that_is_locked_by_another(pg: SqlStore, pg_url: str) -> None:
    rows = [BatchJob(ref=ref, user="u", name="n", first_seen=1.0, last_seen=1.0) for ref in "abc"]
    pg.put_jobs(rows[1:])
    quick = open_store(pg_url, wait=0.05)
    with other_client(pg_url) as other:
        other.execute("SELECT * FROM batch_jobs WHERE ref = 'c' FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="lock timeout"):
            quick.put_jobs(rows)
        assert [job.ref for job in quick.jobs()] == ["b", "c"]
    quick.put_jobs(rows)
    assert len(quick.jobs()) == 3
    quick.close()


def test_the_servers_time_zone_does_not_matter(pg_url: str) -> None:
    parts = make_url(pg_url)
    with other_client(pg_url) as other:
        other.execute(f"ALTER DATABASE {parts.database} SET timezone TO 'Europe/Berlin'".encode())
    store = open_store(pg_url)
    # 2025-10-26: two o'clock to three o'clock in Berlin comes twice.
    times = [1761436800.0 + 900 * n for n in range(12)]
    for at in times:
        store.intend(intent(str(at), at))
    assert [i.at for i in store.intents()] == times
    with other_client(pg_url) as other:
        kinds = other.execute("SELECT DISTINCT pg_typeof(at)::text FROM intents").fetchall()
    assert kinds == [("timestamp with time zone",)]
    store.close()


def test_text_is_ordered_by_code_point_whatever_the_servers_language(pg_url: str) -> None:
    query = """SELECT DISTINCT collation_name::text FROM information_schema.columns
        WHERE table_schema = 'public' AND data_type = 'text' AND table_name <> 'alembic_version'"""
    with other_client(pg_url) as other:
        assert other.execute(query).fetchall() == [("C",)]


def test_more_callers_than_connections(postgres: PrivatePostgres, pg_url: str) -> None:
    with other_client(pg_url) as other:
        other.execute(f"ALTER DATABASE {make_url(pg_url).database} CONNECTION LIMIT 1".encode())
        other.execute(b"CREATE ROLE guest LOGIN")
        other.commit()
        with pytest.raises(StoreUnavailable, match="too many connections"):
            open_store(pg_url.replace("coloc@", "guest@"))
