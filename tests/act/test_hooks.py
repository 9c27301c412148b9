"""Drain hooks: run once, in time, without a shell, and never in the way of a drain; lists of endpoints."""

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from tests.helpers.daemon_rig import SERVICE, DaemonRig
from tests.helpers.views import service

from colocd.act.hooks import Hooks, unsafe
from colocd.clock import SystemClock
from colocd.config import RoutingConfig
from colocd.core.service import Draining, ServiceSpec
from colocd.endpoints import EndpointFiles, endpoints_of, haproxy, nginx
from colocd.store.records import ReplicaRow

ROW = ReplicaRow(service="chat", slot=3, state="draining", job="7", node="n1")
CLOCK = SystemClock()


def program(folder: Path, text: str, name: str = "tell", mode: int = 0o755) -> Path:
    folder.mkdir(mode=0o755, exist_ok=True)
    folder.chmod(0o755)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def outcome(hooks: Hooks, spec: ServiceSpec) -> str | None:
    for _ in range(2000):
        done, wrong = hooks.tell(spec, ROW, "10.0.0.1")
        if done:
            return wrong
        CLOCK.sleep(0.005)
    raise AssertionError("the hook never ends")


def with_hook(**facts: object) -> ServiceSpec:
    return service(drain=Draining(**{"hook": "tell", "timeout": 5.0, **facts}))  # type: ignore[arg-type]


def test_a_program_is_told_who_drains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    program(tmp_path / "hooks", f'echo "$*" > {tmp_path}/said; env > {tmp_path}/env')
    assert outcome(Hooks(tmp_path / "hooks"), with_hook()) is None
    assert (tmp_path / "said").read_text() == "chat 3 10.0.0.1 8003\n"
    assert "SECRET" not in (tmp_path / "env").read_text()


def test_what_goes_wrong_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "hooks"
    assert "names no folder" in (outcome(Hooks(None), with_hook()) or "")
    assert "No such file" in (outcome(Hooks(folder), with_hook()) or "")
    program(folder, "exit 3")
    assert "exit 3" in (outcome(Hooks(folder), with_hook()) or "")
    program(folder, "sleep 60")
    assert "killed" in (outcome(Hooks(folder), with_hook(timeout=0.2)) or "")
    assert "drain call failed" in (outcome(Hooks(folder), service(drain=Draining(url="http://127.0.0.1:9/x"))) or "")


def test_a_call_is_told_who_drains(tmp_path: Path) -> None:
    """POST with the replica's place; its URL may name the replica; a refusal is told, and a program runs nevertheless."""
    with router() as (url, heard, codes):
        codes += [200, 204, 302, 500]
        there = service(drain=Draining(url=f"{url}/drain/{{slot}}?to={{address}}:{{port}}", timeout=5.0))
        assert outcome(Hooks(None), there) is None
        assert heard == [("/drain/3?to=10.0.0.1:8003", {"service": "chat", "slot": 3, "node": "n1"})]
        assert outcome(Hooks(None), there) is None, "204 is a success, too"
        assert "answered 302" in (outcome(Hooks(None), there) or ""), "redirects are not followed"
        program(tmp_path / "hooks", f"touch {tmp_path}/called")
        both = service(drain=Draining(url=f"{url}/x", hook="tell", timeout=5.0))
        assert outcome(Hooks(tmp_path / "hooks"), both) == "the drain call was answered 500"
        assert (tmp_path / "called").exists()


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_router_that_never_ends_its_answer_holds_nobody_up(head: bytes) -> None:
    """Headers that drip are cut off by the time; a body without an end does not matter."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            with contextlib.suppress(OSError):
                link, _ = server.accept()
                with link:
                    link.sendall(head)
                    while not stop.wait(0.02):
                        link.sendall(b"x: y\r\n")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.getsockname()[1]}/drain"
            wrong = outcome(Hooks(None), service(drain=Draining(url=url, timeout=0.3)))
        finally:
            stop.set()
            thread.join(5)
    assert wrong == (None if head.endswith(b"\r\n\r\n") else "the drain call was not answered within 0.3 s")


@contextmanager
def router() -> Iterator[tuple[str, list[tuple[str, object]], list[int]]]:
    """A router that takes POSTs: its URL, what it heard, and the codes it answers with, one after the other."""
    heard: list[tuple[str, object]] = []
    codes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(codes.pop(0))
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", heard, codes
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_only_files_that_nobody_else_can_change_are_run(tmp_path: Path) -> None:
    path = program(tmp_path / "hooks", "exit 0")
    assert unsafe(path) is None
    path.chmod(0o775)
    assert "may write" in (unsafe(path) or "")
    path.chmod(0o644)
    assert "not executable" in (unsafe(path) or "")
    path.chmod(0o755)
    path.parent.chmod(0o777)
    assert "may write" in (unsafe(path) or "")
    path.parent.chmod(0o755)
    link = path.with_name("link")
    link.symlink_to("/bin/true")
    assert unsafe(link) is not None
    if os.geteuid() == 0:
        os.chown(path, 65534, -1)
        assert "belongs to user 65534" in (unsafe(path) or "")


def test_lists_of_endpoints(tmp_path: Path) -> None:
    spec = service()
    rows = [
        ReplicaRow(service="chat", slot=n, state=state, job=str(n), node=node)
        for n, (state, node) in enumerate([("ready", "n1"), ("draining", "n1"), ("starting", "n2"), ("ready", "n6")])
    ]
    found = endpoints_of(spec, rows, {"n1": "10.0.0.1", "n2": "10.0.0.2", "n6": "fe80::6"})
    assert [e.target for e in found] == ["10.0.0.1:8000", "[fe80::6]:8003"]
    assert "server slot3 [fe80::6]:8003 check" in haproxy("chat", found)
    assert "server 10.0.0.1:8000;" in nginx("chat", found)
    assert "down;" in nginx("chat", ())
    files = EndpointFiles(tmp_path)
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "old.nginx.conf").write_text("of a service that is gone")
    assert files.write({"chat": found}) is None
    assert {p.name for p in tmp_path.iterdir()} == {
        "chat.file_sd.json", "chat.haproxy.cfg", "chat.nginx.conf", "mine.txt",
    }  # fmt: skip
    listed = json.loads((tmp_path / "chat.file_sd.json").read_text())
    for group in listed:  # what Prometheus takes: a list of targets, and labels that are texts
        assert set(group) == {"targets", "labels"}
        assert all(isinstance(t, str) and "/" not in t for t in group["targets"])
        assert all(re.fullmatch(r"[a-zA-Z_]\w*", k) and isinstance(v, str) for k, v in group["labels"].items())
    host, name = r"(\[[0-9a-f:]+\]|[\w.-]+):\d+", r"coloc-[\w.-]+"
    server = rf"    server slot\d+ {host} check\n"
    assert re.fullmatch(
        rf"backend {name}\n    balance leastconn\n({server})+", (tmp_path / "chat.haproxy.cfg").read_text()
    )
    block = rf"upstream {name} {{\n    least_conn;\n(    server {host}( down)?;\n)+}}\n"
    assert re.fullmatch(block, (tmp_path / "chat.nginx.conf").read_text())
    assert [group["labels"]["slot"] for group in listed] == ["0", "3"]
    before = (tmp_path / "chat.nginx.conf").stat().st_ino
    assert files.write({"chat": found}) is None
    assert (tmp_path / "chat.nginx.conf").stat().st_ino == before, "what has not changed is not touched"
    assert "cannot be written" in (EndpointFiles(tmp_path / "none").write({"chat": found}) or "")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DaemonRig]:
    rig = DaemonRig(tmp_path)
    yield rig
    rig.close()


def test_a_drain_tells_the_router_first(rig: DaemonRig, tmp_path: Path) -> None:
    program(tmp_path / "hooks", f'echo "$2" >> {tmp_path}/said')
    (tmp_path / "lists").mkdir()
    routing = RoutingConfig(endpoints=str(tmp_path / "lists"), hooks=str(tmp_path / "hooks"))
    rig.daemon.reconfigure(msgspec.structs.replace(rig.config, routing=routing))
    text = SERVICE.format(name="chat", port=rig.endpoint.port).replace("drain_grace = 5", "drain_grace = 500")
    text = text.replace("/metrics", "/metrics?slot={slot}") + '[drain]\nhook = "tell"\n'
    rig.endpoint.value = 2.0
    rig.daemon.answers.apply_service(text.replace("min_replicas = 1", "min_replicas = 2"), "chat.toml")
    rig.run(40)
    listed = rig.daemon.answers.endpoints("chat")["endpoints"]
    assert len(listed) == 2
    file = tmp_path / "lists" / "chat.file_sd.json"
    assert [group["targets"] for group in json.loads(file.read_text())] == [[e["target"]] for e in listed]
    rig.daemon.answers.apply_service(text, "chat.toml")
    rig.run(60)
    assert len(rig.daemon.answers.endpoints("chat")["endpoints"]) == 1
    assert len(json.loads(file.read_text())) == 1
    assert len(rig.jobs("coloc-chat")) == 2, "it still has requests, and its grace is long"
    rig.endpoint.value = 0.0
    for _ in range(20):
        CLOCK.sleep(0.02)
        rig.run(5)
    assert len(rig.jobs("coloc-chat")) == 1
    assert (tmp_path / "said").read_text().split() == ["1"]
    assert not rig.decisions("hook-failed")
