import socket
import threading
from pathlib import Path

import pytest
from tests.api.fake_backend import FakeBackend

from coloc_cli.client import Client
from colocd import errors
from colocd.api.server import ApiServer
from colocd.config import ApiConfig
from colocd.errors import BadFile, BadRequest, ColocError, DaemonUnreachable, NotAllowed, NotFound


def test_every_read(server: ApiServer, api_config: ApiConfig, backend: FakeBackend) -> None:
    with Client(api_config) as client:
        assert client.status() == backend.status()
        assert client.view() == backend.view()
        assert client.plan() == backend.plan()
        assert client.queue() == backend.queue()
        assert client.services() == backend.services()
        assert client.metrics() == backend.metrics()
        assert len(client.history(3)) == 3


@pytest.mark.parametrize("subject", ["117", "118_3", "service:chat", "handover:7"])
def test_explain_keeps_the_subject(server: ApiServer, api_config: ApiConfig, subject: str) -> None:
    with Client(api_config) as client:
        assert client.explain(subject)["subject"] == subject


@pytest.mark.parametrize("subject", ["a/b c", "ü?x=1#y", "%2f", "job:1;2"])
def test_strange_subjects_arrive_unchanged(
    server: ApiServer, api_config: ApiConfig, backend: FakeBackend, subject: str
) -> None:
    with Client(api_config) as client, pytest.raises(NotFound):
        client.explain(subject)
    assert backend.calls == [("explain", subject)]


def test_every_change(server: ApiServer, api_config: ApiConfig, backend: FakeBackend) -> None:
    with Client(api_config) as client:
        assert client.apply_service('name = "chät"\n', "a b.toml") == {"name": "chat", "changed": True}
        assert client.remove_service("chat")["removed"] is True
        assert client.pause('"quoted" & strange') == {"paused": '"quoted" & strange'}
        assert client.status()["paused"] == '"quoted" & strange'
        assert client.resume() == {"paused": None}
        assert client.override("a b", "launch") == {"name": "a b", "override": "launch"}
        assert client.report("2026-01", "o'hara")[0]["user"] == "o'hara"
    assert ("apply_service", 'name = "chät"\n', "a b.toml") in backend.calls


def test_errors_keep_class_sentence_hint_and_code(server: ApiServer, api_config: ApiConfig) -> None:
    with Client(api_config) as client:
        with pytest.raises(BadFile, match="line 3") as caught:
            client.apply_service("broken", "x.toml")
        assert caught.value.exit_code == BadFile.exit_code
        assert caught.value.hint == BadFile.hint
        with pytest.raises(NotFound):
            client.remove_service("nobody")


@pytest.mark.parametrize("kind", ColocError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_error_class_survives(
    server: ApiServer, api_config: ApiConfig, backend: FakeBackend, kind: type[ColocError]
) -> None:
    backend.fail = kind("it went wrong", "do this")
    with Client(api_config) as client, pytest.raises(kind, match="it went wrong") as caught:
        client.status()
    assert (caught.value.exit_code, caught.value.hint) == (kind.exit_code, "do this")


def test_bad_limit_is_a_bad_request(server: ApiServer, api_config: ApiConfig) -> None:
    with Client(api_config) as client:
        for limit in (0, -1, 10_001, 10**30):
            with pytest.raises(BadRequest, match="limit"):
                client.history(limit)


def test_no_daemon(tmp_path: Path) -> None:
    with Client(ApiConfig(socket=str(tmp_path / "s"), admin_socket=str(tmp_path / "t"))) as client:
        with pytest.raises(DaemonUnreachable, match="no socket"):
            client.status()
        with pytest.raises(DaemonUnreachable):
            client.resume()


def test_dead_daemon(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with Client(ApiConfig(socket=str(path))) as client, pytest.raises(DaemonUnreachable, match="nobody listens"):
        client.status()


def test_no_permission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(self: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)  # root is never refused by a real file mode
    with Client(ApiConfig(admin_socket=str(tmp_path / "a"))) as client, pytest.raises(NotAllowed):
        client.pause("")


@pytest.mark.parametrize("answer", [b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nwhat", b""])
def test_somebody_else_on_the_socket(tmp_path: Path, answer: bytes) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            listener.accept()[0].close()  # the client's knock
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(ApiConfig(socket=path)) as client, pytest.raises(DaemonUnreachable):
            client.status()
        thread.join()


def test_a_path_too_long_for_a_socket() -> None:
    with Client(ApiConfig(socket="/tmp/" + "x" * 200)) as client, pytest.raises(DaemonUnreachable, match="too long"):
        client.status()


def test_codes_lead_to_one_class() -> None:
    codes = [kind.exit_code for kind in ColocError.__subclasses__()]
    assert len(codes) == len(set(codes)) > 5
    assert errors.ColocError.exit_code not in codes
