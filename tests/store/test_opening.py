"""Opening: which URLs are taken, how the others are refused, what a SQLite file is made like."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers.private_postgres import PrivatePostgres

from colocd.errors import BadConfig, ColocError, SchemaOutdated, StoreUnavailable
from colocd.store import open_store, schema
from colocd.store.engine import WRITING, parse
from colocd.store.records import Intent
from colocd.store.sql import SqlStore

SECRET = "s3cr%40t/:pw"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "cannot be read"),
        ("coloc.db", "cannot be read"),
        (f"postgresql://u:{SECRET}@h:port/db", "cannot be read"),
        ("sqlite://", "absolute path"),
        ("sqlite:///:memory:", "absolute path"),
        ("sqlite:///coloc.db", "absolute path"),
        ("sqlite:////x/coloc.db?timeout=3", "no options"),
        (f"mysql://u:{SECRET}@h/db", "'mysql' is not supported"),
        (f"postgresql+psycopg2://u:{SECRET}@h/db", r"'postgresql\+psycopg2' is not supported"),
        ("oracle://h/db", "'oracle' is not supported"),
    ],
)
@pytest.mark.parametrize("call", [open_store, schema.check, schema.upgrade])
def test_urls_that_are_refused(url: str, words: str, call: object) -> None:
    assert callable(call)
    with pytest.raises(BadConfig, match=words) as caught:
        call(url)
    _one_sentence(caught.value)
    assert "sqlite:////" in caught.value.hint


def test_plain_postgresql_means_psycopg() -> None:
    assert parse("postgresql://u@h/db").url.drivername == "postgresql+psycopg"


def test_a_label_has_no_password() -> None:
    target = parse("postgresql://u:hush@h/db?password=hush2")
    assert target.label == "postgresql+psycopg://u:***@h/db"


def test_postgres_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="does not answer") as caught:
        open_store(f"postgresql+psycopg://u:hush@/db?host={tmp_path}")
    _one_sentence(caught.value)


def test_a_password_is_hidden_even_in_the_servers_words(postgres: PrivatePostgres) -> None:
    # The server names the user and the database it was asked for: here both are the password.
    with pytest.raises(StoreUnavailable, match=r"\*\*\*") as caught:
        open_store(postgres.url("hush").replace("coloc@", "hush:hush@"))
    assert str(caught.value).count("hush") == 2  # user and database in our own label


def test_missing_folder(tmp_path: Path) -> None:
    for call in (open_store, schema.check, schema.upgrade):
        with pytest.raises(StoreUnavailable, match=r"folder of .* does not exist") as caught:
            call(f"sqlite:///{tmp_path}/no/coloc.db")
        assert "create" in caught.value.hint
    assert not (tmp_path / "no").exists()


def test_a_look_does_not_make_a_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/coloc.db"
    with pytest.raises(SchemaOutdated):
        open_store(url)
    store = open_store(url, check=False)
    with pytest.raises(StoreUnavailable):
        store.services()
    store.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_the_file_and_its_companions_are_private(tmp_path: Path, umask: int) -> None:
    url, before = f"sqlite:///{tmp_path}/coloc.db", os.umask(umask)
    try:
        schema.upgrade(url)
        store = open_store(url)
        store.intend(Intent(key="k", kind="k", subject="s", at=1.0))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes == {"coloc.db": 0o640, "coloc.db-wal": 0o640, "coloc.db-shm": 0o640}
    assert [path.name for path in tmp_path.iterdir()] == ["coloc.db"]


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "%41.db", "a#b.db", "ü.db", "a&b=c.db"])
def test_awkward_file_names(tmp_path: Path, name: str) -> None:
    url = f"sqlite:///{tmp_path}/{name}"
    schema.upgrade(url)
    open_store(url).close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "coloc.db"
    path.write_bytes(b"no database at all " * 100)
    for call in (open_store, schema.upgrade):
        with pytest.raises(StoreUnavailable, match="not a database"):
            call(f"sqlite:///{path}")
    assert path.read_bytes() == b"no database at all " * 100


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "coloc.db").mkdir()
    with pytest.raises(StoreUnavailable, match="unable to open"):
        open_store(f"sqlite:///{tmp_path}/coloc.db")


def test_what_every_sqlite_connection_is_set_to(sqlite_url: str) -> None:
    store = open_store(sqlite_url, wait=2.5)
    with store._reading() as connection:
        asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked]
    store.close()
    assert found == ["wal", 2, 1, 2500]
    assert WRITING in store._writer.get_execution_options()


def test_a_connection_that_is_kept_counts_as_open(store: SqlStore) -> None:
    with store._reading():
        assert store.open_connections() == 1
        with store._reading():
            assert store.open_connections() == 2
    assert store.open_connections() == 0


def test_importing_the_store_does_not_load_sqlalchemy() -> None:
    script = "import sys, colocd.store, colocd.store.port; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "coloc.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE settings (mine TEXT)")
    other.close()
    with pytest.raises(StoreUnavailable, match="already exists"):
        schema.upgrade(f"sqlite:///{path}")
    with sqlite3.connect(path) as other:
        assert [row[0] for row in other.execute("SELECT name FROM sqlite_master")] == ["settings"]
    other.close()


def _one_sentence(error: ColocError) -> None:
    shown = f"{error} {error.hint}"
    assert "\n" not in shown
    assert "hush" not in shown
    assert "s3cr" not in shown
    assert "hush" not in str(error.__cause__)
    assert error.__context__ is error.__cause__ or error.__suppress_context__
