"""Each test gets a fresh database, on SQLite and on a private PostgreSQL. Without PostgreSQL these tests fail, loudly."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.helpers.private_postgres import PrivatePostgres

from colocd.store import open_store, schema
from colocd.store.sql import SqlStore

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.service)]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PrivatePostgres]:
    with PrivatePostgres() as server:
        yield server


@pytest.fixture(scope="session")
def new_postgres(postgres: PrivatePostgres) -> Callable[[str], str]:
    """Makes a database from a template and returns its URL."""

    def make(template: str) -> str:
        name = f"t{next(_numbers)}"
        with psycopg.connect(host=str(postgres.folder), user="coloc", dbname="postgres", autocommit=True) as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
        return postgres.url(name)

    return make


@pytest.fixture(scope="session")
def postgres_template(new_postgres: Callable[[str], str]) -> str:
    url = new_postgres("template0")
    schema.upgrade(url)
    return url.split("/")[3].split("?")[0]


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "coloc.db"
    schema.upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without a schema."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/empty.db"
    return str(request.getfixturevalue("new_postgres")("template0"))


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """URL of a SQLite database at head."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'coloc.db')}"


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    """URL of a database at head."""
    if kind == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    template = request.getfixturevalue("postgres_template")
    return str(request.getfixturevalue("new_postgres")(template))


@pytest.fixture
def store(url: str) -> Iterator[SqlStore]:
    opened = open_store(url)
    yield opened
    assert opened.open_connections() == 0  # leaks fail here, not in production
    opened.close()
