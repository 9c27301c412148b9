import grp
import json
import logging
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.fake_backend import FakeBackend

from colocd.api.routes import MAX_BODY
from colocd.api.server import ApiServer
from colocd.api.sockets import LONGEST
from colocd.config import ApiConfig
from colocd.errors import BadConfig

CHANGES = [
    ("POST", "/v1/services"),
    ("DELETE", "/v1/services/chat"),
    ("POST", "/v1/pause"),
    ("POST", "/v1/services/chat/override"),
    ("POST", "/v1/resume"),
]


@contextmanager
def http(path: str) -> Iterator[httpx.Client]:
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=path), base_url="http://x", timeout=20, trust_env=False
    ) as client:
        yield client


def facts(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error", "hint", "exit_code"}
    return body


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_public_socket_changes_nothing(
    server: ApiServer, api_config: ApiConfig, backend: FakeBackend, method: str, path: str
) -> None:
    with http(api_config.socket) as client:
        answer = client.request(method, path, content=b"x" * 5_000)
    assert answer.status_code == 403
    assert facts(answer)["exit_code"] == 77
    assert backend.calls == []


def test_admin_socket_reads_too(server: ApiServer, api_config: ApiConfig) -> None:
    with http(api_config.admin_socket) as client:
        assert client.get("/v1/status").json()["mode"] == "act"
        assert client.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


def test_routers_read_endpoints_on_the_public_socket(server: ApiServer, api_config: ApiConfig) -> None:
    with http(api_config.socket) as client:
        answer = client.get("/v1/services/chat/endpoints")
        nobody = client.get("/v1/services/nobody/endpoints")
    (one,) = answer.json()["endpoints"]
    assert set(one) == {"slot", "address", "port", "node", "job", "target"}
    assert (answer.json()["service"], one["target"]) == ("chat", "10.0.0.1:8000")
    assert (nobody.status_code, facts(nobody)["exit_code"]) == (404, 66)


def test_modes_and_group(backend: FakeBackend, tmp_path: Path) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    config = ApiConfig(socket=str(tmp_path / "c"), admin_socket=str(tmp_path / "a"), group=group)
    server = ApiServer(backend, config)
    server.start()
    try:
        public, admin = os.stat(config.socket), os.stat(config.admin_socket)
        assert (stat.S_IMODE(public.st_mode), stat.S_IMODE(admin.st_mode)) == (0o666, 0o660)
        assert admin.st_gid == os.getgid()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("status", "method", "path"), [(404, "GET", "/v2/status"), (404, "GET", "/"), (405, "PUT", "/v1/status")]
)
def test_unknown_routes(server: ApiServer, api_config: ApiConfig, status: int, method: str, path: str) -> None:
    with http(api_config.socket) as client:
        answer = client.request(method, path)
    assert (answer.status_code, facts(answer)["exit_code"]) == (status, 64)


def test_unexpected_exception_is_logged_not_told(
    server: ApiServer, api_config: ApiConfig, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.fail = ValueError("the secret inside")
    with caplog.at_level(logging.ERROR), http(api_config.socket) as client:
        answer = client.get("/v1/status")
    assert answer.status_code == 500
    assert facts(answer)["exit_code"] == 70
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert [r.exc_info is not None and "secret" in str(r.exc_info[1]) for r in caplog.records] == [True]


def test_an_answer_that_is_no_json_is_an_error_too(
    server: ApiServer, api_config: ApiConfig, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "status", lambda: {"x": object()})
    with http(api_config.socket) as client:
        assert client.get("/v1/status").status_code == 500


@pytest.mark.parametrize("declared", [True, False])
def test_body_is_bounded(server: ApiServer, api_config: ApiConfig, backend: FakeBackend, declared: bool) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(MAX_BODY // 65536 + 1):
            yield b"#" * 65536

    with http(api_config.admin_socket) as client:
        answer = client.post("/v1/services", content=b"".join(parts()) if declared else parts())
        assert (answer.status_code, facts(answer)["exit_code"]) == (413, 64)
        assert backend.calls == []
        assert client.post("/v1/services", content=b"#" * MAX_BODY).status_code == 200


@pytest.mark.parametrize("body", [b"\xff\xfe", b"{", b"[1]", b'{"reason": 3}'])
def test_bad_pause_bodies(server: ApiServer, api_config: ApiConfig, backend: FakeBackend, body: bytes) -> None:
    with http(api_config.admin_socket) as client:
        assert client.post("/v1/pause", content=body).status_code == 400
    assert backend.calls == []


def test_service_file_must_be_utf8(server: ApiServer, api_config: ApiConfig) -> None:
    with http(api_config.admin_socket) as client:
        answer = client.post("/v1/services", content=b"name = '\xe4'")
    assert (answer.status_code, "byte 8" in facts(answer)["error"]) == (400, True)


def test_a_backend_that_blocks_blocks_nobody_else(
    server: ApiServer, api_config: ApiConfig, backend: FakeBackend
) -> None:
    backend.gate.clear()
    answers: list[int] = []

    def ask() -> None:
        with http(api_config.socket) as client:
            answers.append(client.get("/v1/queue").status_code)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert backend.waiting.wait(10)
    with http(api_config.admin_socket) as client:  # readers that hang do not keep an operator out
        assert client.post("/v1/pause").status_code == 200
    assert answers == []
    backend.gate.set()
    for thread in threads:
        thread.join(10)
    assert answers == [200] * 8


def test_stop_leaves_nothing(backend: FakeBackend, api_config: ApiConfig) -> None:
    before = set(threading.enumerate())
    server = ApiServer(backend, api_config)
    server.start()
    with http(api_config.socket) as client:
        assert client.get("/v1/status").status_code == 200
        assert set(threading.enumerate()) - before
        server.stop()
    assert set(threading.enumerate()) - before == set()
    assert not os.path.lexists(api_config.socket)
    assert not os.path.lexists(api_config.admin_socket)
    server.stop()


def test_stale_sockets_are_replaced(backend: FakeBackend, api_config: ApiConfig) -> None:
    for path in (api_config.socket, api_config.admin_socket):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
    server = ApiServer(backend, api_config)
    server.start()
    with http(api_config.socket) as client:
        assert client.get("/v1/status").status_code == 200
    server.stop()


def test_a_live_daemon_is_not_pushed_aside(server: ApiServer, backend: FakeBackend, api_config: ApiConfig) -> None:
    with pytest.raises(BadConfig, match="already listens"):
        ApiServer(backend, api_config).start()
    fresh = ApiConfig(socket=api_config.socket + "2", admin_socket=api_config.admin_socket)
    with pytest.raises(BadConfig, match="already listens"):
        ApiServer(backend, fresh).start()
    assert not os.path.lexists(fresh.socket)
    with http(api_config.admin_socket) as client:
        assert client.get("/v1/status").status_code == 200


def test_stop_does_not_remove_a_successors_socket(backend: FakeBackend, api_config: ApiConfig) -> None:
    server = ApiServer(backend, api_config)
    server.start()
    os.unlink(api_config.socket)
    Path(api_config.socket).write_text("somebody else's")
    server.stop()
    assert Path(api_config.socket).read_text() == "somebody else's"


def test_paths_that_cannot_be(backend: FakeBackend, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    fits = str(tmp_path / "f").ljust(LONGEST, "f")
    for path, text in (
        (fits + "f", "108 bytes"),
        (str(tmp_path / "none" / "s"), "does not exist"),
        (str(file), "not a socket"),
        (str(file / "s"), "cannot be created"),
    ):
        with pytest.raises(BadConfig, match=text):
            ApiServer(backend, ApiConfig(socket=path, admin_socket=str(tmp_path / "a"))).start()
    with pytest.raises(BadConfig, match="same path"):
        ApiServer(backend, ApiConfig(socket="/x", admin_socket="/x")).start()
    config = ApiConfig(socket=fits, admin_socket=str(tmp_path / "a"), group="no-such-group")
    with pytest.raises(BadConfig, match="no-such-group"):
        ApiServer(backend, config).start()
    assert file.read_text() == "x"
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_unknown_numbers_are_null(
    server: ApiServer, api_config: ApiConfig, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "status", lambda: {"load": float("nan")})
    with http(api_config.socket) as client:
        assert json.loads(client.get("/v1/status").text) == {"load": None}
