"""Migrations: up from nothing and from every revision, down one step and up again, no drift, packaged."""

import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from colocd.errors import BadRequest, SchemaOutdated, StoreUnavailable
from colocd.store import open_store, schema
from colocd.store.engine import connect, parse
from colocd.store.records import Intent, LoadSample
from colocd.store.schema import SchemaState
from colocd.store.tables import metadata

REVISIONS = schema.revisions()
HEAD = REVISIONS[-1]
ROOT = Path(__file__).parents[2]


def _sql(url: str, statement: str) -> None:
    engine = connect(parse(url), wait=5)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def _tables(url: str) -> set[str]:
    engine = connect(parse(url), wait=5)
    with engine.begin() as connection:
        found = set(inspect(connection).get_table_names())
    engine.dispose()
    return found


def _drift(url: str) -> list[Any]:
    engine = connect(parse(url), wait=5)
    with engine.begin() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        found = list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))
    engine.dispose()
    return found


def test_up_from_nothing(empty_url: str) -> None:
    assert schema.check(empty_url) == SchemaState(None, HEAD)
    assert schema.upgrade(empty_url) == (None, HEAD)
    assert schema.check(empty_url) == SchemaState(HEAD, HEAD)
    assert schema.check(empty_url).up_to_date
    assert schema.upgrade(empty_url) == (HEAD, HEAD)
    assert _tables(empty_url) == set(metadata.tables) | {"alembic_version"}


@pytest.mark.parametrize("start", REVISIONS)
def test_up_from_every_revision_and_one_step_down_and_up(empty_url: str, start: str) -> None:
    schema.upgrade(empty_url)
    schema.downgrade(empty_url, start)
    assert schema.check(empty_url).current == start
    assert schema.upgrade(empty_url) == (start, HEAD)
    old, new = schema.downgrade(empty_url, "-1")
    assert (old, new) == (HEAD, REVISIONS[-2] if len(REVISIONS) > 1 else None)
    assert schema.upgrade(empty_url) == (new, HEAD)
    assert _drift(empty_url) == []


def test_down_to_nothing_leaves_nothing(empty_url: str) -> None:
    schema.upgrade(empty_url)
    assert schema.downgrade(empty_url, "base") == (HEAD, None)
    assert _tables(empty_url) == {"alembic_version"}
    assert schema.check(empty_url).current is None


def test_the_tables_are_what_the_migrations_make(url: str) -> None:
    assert _drift(url) == []


def test_drift_would_be_seen(url: str) -> None:
    _sql(url, "ALTER TABLE settings ADD COLUMN extra INTEGER")
    _sql(url, "DROP INDEX ix_intents_outcome")
    assert len(_drift(url)) == 2


def test_a_failed_migration_leaves_nothing(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(made: Any) -> None:
        made.attributes["connection"].execute(text("CREATE TABLE half (a INTEGER)"))
        made.attributes["connection"].execute(text("SELECT broken FROM nowhere"))

    schema.upgrade(empty_url)
    with pytest.raises(StoreUnavailable, match="nowhere"):
        schema._migrate(parse(empty_url), 5.0, half)
    assert "half" not in _tables(empty_url)


def test_two_upgrades_at_once_are_one(empty_url: str) -> None:
    results: list[object] = []

    def go() -> None:
        try:
            results.append(schema.upgrade(empty_url))
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(repr, results)) == sorted(map(repr, [(None, HEAD), (HEAD, HEAD), (HEAD, HEAD)]))


def test_a_store_without_schema_is_not_opened(empty_url: str) -> None:
    with pytest.raises(SchemaOutdated, match="no coloc schema") as caught:
        open_store(empty_url)
    assert "coloc db upgrade" in caught.value.hint
    assert schema.check(empty_url).current is None


def test_a_newer_schema_is_neither_opened_nor_upgraded(url: str) -> None:
    _sql(url, "UPDATE alembic_version SET version_num = '9999'")
    assert schema.check(url) == SchemaState("9999", HEAD, known=False)
    with pytest.raises(SchemaOutdated, match="newer release"):
        open_store(url)
    with pytest.raises(SchemaOutdated, match="9999"):
        schema.upgrade(url)
    with pytest.raises(SchemaOutdated, match="9999"):
        schema.downgrade(url, "base")


def test_no_way_to_an_unknown_revision(url: str) -> None:
    with pytest.raises(BadRequest, match="nonsense"):
        schema.downgrade(url, "nonsense")
    assert schema.check(url).up_to_date


def test_rows_survive_an_upgrade_that_has_nothing_to_do(url: str) -> None:
    store = open_store(url)
    store.intend(Intent(key="k", kind="k", subject="s", at=1.0))
    store.add_load([LoadSample(service="a", at=1.0, value=1.0)])
    schema.upgrade(url)
    assert store.intent("k") is not None
    assert len(store.load("a", 0.0)) == 1
    store.close()


def test_the_wheel_carries_the_migrations_and_they_work_there(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path / "dist"), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, f"the wheel cannot be built here (pip must be able to get hatchling): {made.stderr}"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for name in ("__init__.py", "env.py", "script.py.mako", *(f"versions/{p.name}" for p in _versions())):
        assert f"coloc_migrations/{name}" in names
    # A path with a percent sign and a space, away from the sources.
    site = (tmp_path / "site").rename(tmp_path / "100% site")
    script = (
        "import sys; from colocd.store import open_store, schema; url = sys.argv[1];"
        "print(schema.__file__); print(schema.upgrade(url)); open_store(url).close()"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, f"sqlite:///{tmp_path}/x.db"],
        env={"PYTHONPATH": str(site)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [str(site / "colocd/store/schema.py"), str((None, HEAD))]


def _versions() -> list[Path]:
    return sorted((ROOT / "migrations/coloc_migrations/versions").glob("0*.py"))
