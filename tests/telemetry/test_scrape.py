"""The scraper against a real server that misbehaves in every way a server can."""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from colocd.clock import SystemClock
from colocd.telemetry.scrape import POOL, Failure, Scraper, Target
from colocd.telemetry.serving import ServingSample

GOOD = b"llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\n"
PATIENCE = 20.0
"""Seconds after which a test fails because the scraper was not cut off by its own time-out."""


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(head).encode() + body


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, behave: Callable[[socket.socket, threading.Event], None]) -> None:
        self.stop = threading.Event()
        self.behave = behave
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/metrics"


class Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        with suppress(OSError):
            self.request.recv(65536)
            self.server.behave(self.request, self.server.stop)


@contextmanager
def serving(behave: Callable[[socket.socket, threading.Event], None] | bytes) -> Iterator[str]:
    def send(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(behave) if isinstance(behave, bytes) else behave(connection, stop)

    with Server(send) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.url
        finally:
            server.stop.set()
            server.shutdown()
            thread.join()


def hang(connection: socket.socket, stop: threading.Event) -> None:
    stop.wait(PATIENCE)


def drip_body(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not stop.wait(0.02):
        connection.sendall(b"#")


def drip_head(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while not stop.wait(0.02):
        connection.sendall(b"x")


def endless_body(connection: socket.socket, stop: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not stop.is_set():
        connection.sendall(b"x 1\n" * 4096)


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def read(url: str, **options: float) -> ServingSample | Failure:
    scraper = Scraper(
        SystemClock(), timeout=options.get("timeout", PATIENCE), max_bytes=int(options.get("max_bytes", 1 << 16))
    )
    return scraper.read([Target("key", url, "llamacpp")])["key"]


def test_a_good_answer_has_its_time() -> None:
    clock = SystemClock()
    before = clock.now(), clock.monotonic()
    with serving(answer(GOOD)) as url:
        sample = read(url)
    assert isinstance(sample, ServingSample)
    assert (sample.running, sample.waiting) == (2.0, 1.0)
    assert sample.at is not None
    assert sample.tick is not None
    assert (before[0] <= sample.at <= clock.now(), before[1] <= sample.tick <= clock.monotonic()) == (True, True)


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (answer(b"", "302 Found", "Location: http://192.0.2.1/"), "answers 302"),
        (answer(b"", "302 Found", "Location: http://[bad"), "answers 302"),
        (answer(b"no", "404 Not Found"), "answers 404"),
        (answer(GOOD, "500 Oops"), "answers 500"),
        (answer(b"", "204 No Content"), "answers 204"),
        (answer(GOOD, "200 OK", "Content-Encoding: gzip"), "compressed"),
        (answer(GOOD)[:-5], "no proper HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nllama", "no proper HTTP answer"),
        (b"", "no proper HTTP answer"),
        (b"SSH-2.0-OpenSSH\r\n", "no proper HTTP answer"),
        (b"\x00\xff" * 100, "no proper HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "no proper HTTP answer"),
        (answer(b"x" * 70_000), "more than 65536 bytes"),
        (endless_body, "more than 65536 bytes"),
    ],
)
def test_bad_answers(behave: Callable[[socket.socket, threading.Event], None] | bytes, reason: str) -> None:
    with serving(behave) as url:
        failure = read(url)
    assert isinstance(failure, Failure)
    assert reason in failure.reason
    assert "\n" not in failure.reason


@pytest.mark.parametrize("body", [b"<html>", b"\xff\xfe\n", b"[]\n", GOOD[:-1]])
def test_answers_that_are_not_metrics(body: bytes) -> None:
    with serving(answer(body)) as url:
        sample = read(url)
    assert isinstance(sample, ServingSample)
    assert sample.running is None
    assert sample.reasons["running"]


@pytest.mark.parametrize("kind", ["application/openmetrics-text; version=1.0.0", "text/html", "application/json", "x"])
def test_the_text_counts_and_not_what_it_is_called(kind: str) -> None:
    with serving(answer(GOOD, "200 OK", f"Content-Type: {kind}")) as url:
        sample = read(url)
    assert isinstance(sample, ServingSample)
    assert sample.running == 2.0


@pytest.mark.parametrize("behave", [hang, drip_head, drip_body])
def test_slow_answers_are_cut_off(behave: Callable[[socket.socket, threading.Event], None]) -> None:
    with serving(behave) as url:
        failure = read(url, timeout=0.3)
    assert isinstance(failure, Failure)
    assert failure.reason == "no whole answer within 0.3 s"


def test_endless_answers_are_cut_off_by_time_too() -> None:
    with serving(endless_body) as url:
        failure = read(url, timeout=0.3, max_bytes=1 << 40)
    assert isinstance(failure, Failure)


def test_each_of_many_gets_its_own_answer() -> None:
    """More than one client's worth of endpoints, and some of them wrong."""
    with serving(answer(GOOD)) as good, serving(answer(b"", "404 Not Found")) as bad:
        urls = [(good, bad, "ftp://x/")[n % 3] for n in range(3 * POOL)]
        found = Scraper(SystemClock(), timeout=20.0).read([Target(n, url, "llamacpp") for n, url in enumerate(urls)])
    for n in range(3 * POOL):
        part = found[n]
        if n % 3 == 0:
            assert isinstance(part, ServingSample), n
        else:
            assert isinstance(part, Failure), n
            assert part.reason.startswith(("answers 404", "the URL is unusable")[n % 3 - 1])


def test_many_hanging_servers_do_not_starve_a_good_one() -> None:
    with serving(hang) as bad, serving(answer(GOOD)) as good:
        targets = [Target(number, bad, "llamacpp") for number in range(60)] + [Target("good", good, "llamacpp")]
        found = Scraper(SystemClock(), timeout=1.5, workers=2).read(targets)
    assert isinstance(found["good"], ServingSample)
    assert sum(isinstance(part, Failure) for part in found.values()) == 60


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://x/", "the URL is unusable"),
        ("x", "the URL is unusable"),
        ("", "the URL is unusable"),
        ("http://[::1", "the URL is unusable"),
        ("http://x\0/", "the URL is unusable"),
        ("http://x:99999/", ""),
        ("http://" + "a" * 300 + "/", "no connection"),
        ("http://a..b/", "no connection"),
    ],
)
def test_urls_that_lead_nowhere(url: str, reason: str) -> None:
    failure = read(url)
    assert isinstance(failure, Failure)
    assert reason in failure.reason


def test_tls_to_a_plain_server_is_a_failure() -> None:
    with serving(answer(GOOD)) as url:
        failure = read(url.replace("http:", "https:"))
    assert isinstance(failure, Failure)


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, closed_port())
    with serving(answer(GOOD)) as url:
        assert isinstance(read(url), ServingSample)


def test_nothing_to_read() -> None:
    assert Scraper(SystemClock()).read([]) == {}
    assert Scraper(SystemClock()).ready({}) == {}


def test_ready_checks() -> None:
    with (
        serving(answer(b"")) as fine,
        serving(answer(b"", "204 No Content")) as empty,
        serving(answer(b"", "503 Loading")) as loading,
        serving(answer(b"", "302 Found", "Location: /")) as moved,
        serving(hang) as silent,
        serving(drip_body) as dripping,
    ):
        urls = {
            "fine": fine,
            "empty": empty,
            "loading": loading,
            "moved": moved,
            "silent": silent,
            "dripping": dripping,
            "closed": closed_port(),
            "nonsense": "nonsense",
        }
        scraper = Scraper(SystemClock(), timeout=1.5)
        found = scraper.check(urls)
        again = scraper.ready({key: url for key, url in urls.items() if key != "silent"})
    expected = {
        "fine": True,
        "empty": True,
        "loading": False,
        "moved": False,
        "silent": False,
        "dripping": True,
        "closed": False,
        "nonsense": None,
    }
    assert {**again, "silent": False} == expected
    assert {key: part.ok for key, part in found.items()} == expected
    assert {key for key, part in found.items() if part.reason is None} == {"fine", "empty", "dripping"}
    assert found["loading"].reason == "answers 503"
