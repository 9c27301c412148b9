"""SQLite's bad days: locked, gone, replaced, not writable, full."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from colocd.errors import StoreUnavailable
from colocd.store import engine, open_store, schema
from colocd.store.records import BatchJob, Intent
from colocd.store.sql import SqlStore


def intent(key: str) -> Intent:
    return Intent(key=key, kind="k", subject="s", at=1.0)


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def quick(sqlite_url: str) -> Iterator[SqlStore]:
    """A store that does not wait long."""
    store = open_store(sqlite_url, wait=0.05)
    yield store
    assert store.open_connections() == 0
    store.close()


def test_locked(quick: SqlStore, path: Path) -> None:
    quick.intend(intent("before"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            quick.intend(intent("k"))
        with pytest.raises(StoreUnavailable, match="locked"):
            quick.put_jobs([BatchJob(ref=r, user="u", name="n", first_seen=1.0, last_seen=1.0) for r in "abc"])
        assert [i.key for i in quick.intents()] == ["before"]  # a reader does not wait
        other.execute("ROLLBACK")
    assert quick.jobs() == ()
    assert quick.intend(intent("k")) is True


def test_a_lock_that_goes_in_time_is_waited_for(sqlite_url: str, path: Path) -> None:
    store = open_store(sqlite_url, wait=30)
    results: list[bool] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = threading.Thread(target=lambda: results.append(store.intend(intent("k"))))
        waiting.start()
        waiting.join(0.1)
        assert results == []
        other.execute("COMMIT")
        waiting.join()
    assert results == [True]
    store.close()


def test_an_upgrade_waits_for_whoever_just_made_the_file(tmp_path: Path) -> None:
    url, results = f"sqlite:///{tmp_path}/new.db", list[object]()

    def upgrade() -> None:
        try:
            results.append(schema.upgrade(url, wait=30))
        except StoreUnavailable as error:
            results.append(error)

    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")  # the file is not in WAL mode yet
        waiting = threading.Thread(target=upgrade)
        waiting.start()
        waiting.join(0.2)
        assert results == []
        other.execute("COMMIT")
        waiting.join()
    assert results == [(None, schema.revisions()[-1])]


class BusyAtFirst(sqlite3.Connection):
    """Answers "locked" at once, as SQLite was seen to do when several processes switched one new file to WAL."""

    refusals = 2

    def execute(self, *words: Any) -> sqlite3.Cursor:
        if self.refusals:
            self.refusals -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(*words)


def test_the_switch_to_wal_is_tried_again_until_the_time_is_up(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "new.db", factory=BusyAtFirst)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            engine._use_wal(connection, wait=0)
        engine._use_wal(connection, wait=30)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_removed_and_put_back(quick: SqlStore, path: Path, tmp_path: Path) -> None:
    assert quick.intend(intent("a")) is True
    path.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="unable to open"):
            quick.intend(intent("b"))
        with pytest.raises(StoreUnavailable, match="unable to open"):
            quick.services()
    assert not path.exists()  # no new empty database in its place
    (tmp_path / "away").rename(path)
    assert quick.intend(intent("a")) is False
    assert quick.intend(intent("b")) is True


def test_replaced_by_a_backup(quick: SqlStore, path: Path, sqlite_template: Path) -> None:
    assert quick.intend(intent("a")) is True
    copy = path.with_name("copy")
    shutil.copy(sqlite_template, copy)
    for side in ("-wal", "-shm"):
        Path(f"{path}{side}").unlink(missing_ok=True)
    copy.replace(path)
    assert quick.intents() == ()
    assert quick.intend(intent("b")) is True
    with closing(sqlite3.connect(path)) as other:
        assert [row[0] for row in other.execute("SELECT key FROM intents")] == ["b"]


TRIER = """
import sys
from colocd.errors import StoreUnavailable
from colocd.store import open_store, schema
from colocd.store.records import Intent
url = sys.argv[1]
store = open_store(url, check=False)
for call in (
    lambda: store.intend(Intent(key="k", kind="k", subject="s", at=1.0)),
    lambda: schema.upgrade(url),
    lambda: schema.upgrade(url.replace("coloc.db", "new.db")),
):
    try:
        call()
    except StoreUnavailable as error:
        print(error)
"""


def test_not_writable(sqlite_url: str, path: Path) -> None:
    before = path.read_bytes()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    # Rights mean nothing to root unless it gives up the power to override them.
    powerless = ["setpriv", "--bounding-set=-dac_override", "--"] if os.geteuid() == 0 else []
    command = [*powerless, sys.executable, "-c", TRIER, sqlite_url]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        path.parent.chmod(0o755)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert len(lines) == 3
    assert all("readonly" in line or "unable to open" in line for line in lines[:2])
    assert lines[2].endswith("cannot be created: Permission denied")
    assert path.read_bytes() == before


FILLER = """
import resource, sys
from pathlib import Path
from colocd.errors import StoreUnavailable
from colocd.store import open_store
from colocd.store.records import Decision, Intent
store = open_store(sys.argv[1])
store.intend(Intent(key="first", kind="k", subject="s", at=1.0))
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))  # from here on no file grows beyond this
written = 0
try:
    while written < 1000:
        store.add_decisions([Decision(at=1.0, subject="s", kind="k", text="x" * 2000) for _ in range(10)])
        written += 1
except StoreUnavailable as error:
    print(error)
assert len(store.decisions(limit=100000)) == written * 10, "torn"
try:
    store.intend(Intent(key="full", kind="k", subject="s", at=1.0))
    full = True
except StoreUnavailable:
    full = False
assert (store.intent("full") is not None) == full
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # somebody made room
assert store.intend(Intent(key="room", kind="k", subject="s", at=1.0))
assert store.intent("first") is not None
store.close()
print(written)
"""


def test_full(sqlite_url: str, path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", FILLER, sqlite_url], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    error, written = ran.stdout.splitlines()
    assert "disk" in error
    assert 0 < int(written) < 1000
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_no_connection_left(sqlite_url: str) -> None:
    store = open_store(sqlite_url, wait=0.05)
    with ExitStack() as taken:
        for _ in range(15):  # SQLAlchemy's pool: five kept and ten more
            taken.enter_context(store._reading())
        assert store.open_connections() == 15
        with pytest.raises(StoreUnavailable, match="does not answer"):
            store.services()
    assert store.open_connections() == 0
    assert store.services() == ()
    store.close()
