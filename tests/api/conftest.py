from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.fake_backend import FakeBackend

from colocd.api.server import ApiServer
from colocd.config import ApiConfig


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    fake = FakeBackend()
    yield fake
    fake.gate.set()


@pytest.fixture
def api_config(tmp_path: Path) -> ApiConfig:
    return ApiConfig(socket=str(tmp_path / "c.sock"), admin_socket=str(tmp_path / "a.sock"))


@pytest.fixture
def server(backend: FakeBackend, api_config: ApiConfig) -> Iterator[ApiServer]:
    running = ApiServer(backend, api_config)
    running.start()
    yield running
    backend.gate.set()
    running.stop()
