"""The lists of endpoints in the programs that read them: HAProxy, nginx and Prometheus, each checked and running.

`make test-routers` installs them; `make test` checks the lists with parsers of its own (test_hooks.py).
"""

import http.server
import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from colocd.clock import SystemClock
from colocd.endpoints import Endpoint, EndpointFiles

pytestmark = pytest.mark.routers
PLACES = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
CLOCK = SystemClock()


def program(name: str) -> str:
    found = shutil.which(name, path=PLACES)
    assert found is not None, f"{name} is missing: `make test-routers` installs it"
    return found


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def replicas(count: int) -> Iterator[list[Endpoint]]:
    """Servers that answer with their slot."""
    servers, found = [], []
    for slot in range(count):

        class Handler(http.server.BaseHTTPRequestHandler):
            told = str(slot)

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(self.told)))
                self.end_headers()
                self.wfile.write(self.told.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        port = int(server.server_address[1])
        found.append(Endpoint(slot=slot, address="127.0.0.1", port=port, node=f"n{slot}", job=str(slot)))
    try:
        yield found
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@contextmanager
def running(*words: str) -> Iterator[None]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def answers(port: int, requests: int = 12) -> set[str]:
    """What `requests` requests are answered: slots, or the status of an error. Waits until the router listens."""
    got: set[str] = set()
    for _ in range(requests):
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                    got.add(answer.read().decode())
            except urllib.error.HTTPError as error:
                got.add(str(error.code))
                error.close()
            except OSError:
                CLOCK.sleep(0.05)
                continue
            break
        else:
            pytest.fail("the router does not listen")
    return got


def listed(folder: Path, endpoints: Sequence[Endpoint]) -> None:
    assert EndpointFiles(folder).write({"chat": endpoints, "chat-large.v2": endpoints[:1]}) is None


def v6(slot: int) -> Endpoint:
    return Endpoint(slot=slot, address="fe80::6", port=9, node="n9", job="9")


def test_haproxy(tmp_path: Path) -> None:
    """All replicas get requests; one that drains none more; without any replica clients are told 503."""
    haproxy, port, lists = program("haproxy"), free_port(), tmp_path / "lists"
    lists.mkdir()
    main = tmp_path / "main.cfg"
    main.write_text(
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
        f"frontend chat\n    bind 127.0.0.1:{port}\n    default_backend coloc-chat\n"
    )
    words = ("-f", str(main), "-f", str(lists))
    with replicas(2) as two:
        for endpoints, told in ((two, {"0", "1"}), (two[1:], {"1"}), ([], {"503"})):
            listed(lists, endpoints)
            run(haproxy, "-c", *words)
            with running(haproxy, "-db", *words):
                assert answers(port) == told
    listed(lists, [v6(3)])
    run(haproxy, "-c", *words)


def test_nginx(tmp_path: Path) -> None:
    nginx, port, lists = program("nginx"), free_port(), tmp_path / "lists"
    lists.mkdir()
    main = tmp_path / "nginx.conf"
    main.write_text(
        f"daemon off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log;\nevents {{}}\nhttp {{\n  access_log off;\n"
        + "".join(
            f"  {kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"  include {lists}/*.nginx.conf;\n"
        f"  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://coloc-chat; }} }}\n}}\n"
    )
    words = ("-p", str(tmp_path), "-c", str(main))
    with replicas(2) as two:
        for endpoints, told in ((two, {"0", "1"}), (two[1:], {"1"}), ([], {"502"})):
            listed(lists, endpoints)
            run(nginx, "-t", *words)
            with running(nginx, *words):
                assert answers(port) == told
    listed(lists, [v6(3)])
    run(nginx, "-t", *words)


def test_prometheus(tmp_path: Path) -> None:
    """What Prometheus itself makes of the list: the targets and their labels."""
    promtool, lists = program("promtool"), tmp_path / "lists"
    lists.mkdir()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "scrape_configs:\n  - job_name: services\n    file_sd_configs:\n"
        f"      - files: ['{lists}/chat.file_sd.json']\n        refresh_interval: 1s\n"
    )
    with replicas(2) as two:
        listed(lists, [*two, v6(3)])
    run(promtool, "check", "config", str(config))
    done = subprocess.run(
        [promtool, "check", "service-discovery", "--timeout=5s", str(config), "services"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = [target["labels"] for target in json.loads(done.stdout)]
    assert [(labels["__address__"], labels["service"], labels["slot"]) for labels in found] == [
        (two[0].target, "chat", "0"), (two[1].target, "chat", "1"), ("[fe80::6]:9", "chat", "3"),
    ]  # fmt: skip
    listed(lists, [])
    run(promtool, "check", "config", str(config))
