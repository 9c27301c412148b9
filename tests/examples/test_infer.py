"""The resumable inference runner against a stand-in server: kill -9, TERM, torn lines, errors; no line twice, none missing."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

INFER = Path(__file__).parents[2] / "examples" / "infer.py"


class Server:
    """Answers `{"n": …}` with twice the number; `busy` codes come first."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.codes: list[int] = []
        self.pause = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body["n"])
                time.sleep(outer.pause)  # noqa: TID251 -- a slow model
                code = outer.codes.pop(0) if outer.codes else 200
                text = json.dumps({"twice": 2 * body["n"]}).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients are killed
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def server() -> Iterator[Server]:
    it = Server()
    yield it
    it.http.shutdown()
    it.http.server_close()
    it.thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [{"custom_id": f"id ü {n}", "body": {"n": n}} for n in range(60)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    return tmp_path


def start(folder: Path, server: Server, *words: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, str(INFER), "in.jsonl", "out.jsonl", "--url", server.url, "--parallel", "4", *words]
    return subprocess.Popen(argv, cwd=folder, text=True, stderr=subprocess.PIPE)


def end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    err = process.communicate(timeout=60)[1]
    assert "Traceback" not in err, err
    return process.returncode, err


def answers(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def whole(folder: Path) -> None:
    found = sorted((a["custom_id"], a["response"]["twice"]) for a in answers(folder))
    assert found == sorted((f"id ü {n}", 2 * n) for n in range(60))


def until_lines(folder: Path, count: int) -> None:
    path, last = folder / "out.jsonl", time.monotonic() + 30  # noqa: TID251 -- waits for another process
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < last  # noqa: TID251 -- as above
        time.sleep(0.01)  # noqa: TID251 -- as above


def test_killed_again_and_again(folder: Path, server: Server) -> None:
    server.pause = 0.02
    for count in (5, 17, 30, 50):
        process = start(folder, server)
        until_lines(folder, count)
        process.kill()
        process.communicate()
    with (folder / "out.jsonl").open("ab") as file:
        file.write(b'{"custom_id": "id \xc3')  # what a full disk leaves
    assert end(start(folder, server))[0] == 0
    whole(folder)
    assert len(server.asked) < 60 + 5 * 4 + 1  # only what was under way is asked again
    assert end(start(folder, server)) == (0, "infer: 60 lines are there, 0 to do\ninfer: 0 left, 0 without an answer\n")


def test_asked_to_stop(folder: Path, server: Server) -> None:
    server.pause = 0.1
    process = start(folder, server)
    until_lines(folder, 8)
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 85
    assert len(answers(folder)) == len(server.asked)  # what was under way is not thrown away
    server.pause = 0.0
    assert end(start(folder, server))[0] == 0
    whole(folder)


def test_a_busy_server_and_a_refusal(folder: Path, server: Server) -> None:
    server.codes = [503, 429, 500, 400]
    assert end(start(folder, server))[0] == 0
    refused = [a for a in answers(folder) if "error" in a]
    assert [a["status"] for a in refused] == [400]
    assert len(answers(folder)) == len({a["custom_id"] for a in answers(folder)}) == 60


def test_no_server(folder: Path, server: Server) -> None:
    code, err = end(start(folder, server, "--tries", "1", "--url", "http://127.0.0.1:9/"))
    assert code == 85
    assert "60 left" in err
    assert end(start(folder, server))[0] == 0
    whole(folder)


def test_a_second_one_is_refused(folder: Path, server: Server) -> None:
    server.pause = 0.2
    first = start(folder, server)
    until_lines(folder, 1)
    code, err = end(start(folder, server))
    assert (code, "another process" in err) == (1, True)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()


@pytest.mark.parametrize("line", ["{", "[]", '{"custom_id": "id ü 1", "body": {}}', '{"custom_id": "x"}'])
def test_input_that_cannot_be_used(folder: Path, server: Server, line: str) -> None:
    with (folder / "in.jsonl").open("a") as file:
        file.write(line + "\n")
    code, err = end(start(folder, server))
    assert (code, "line 62" in err) == (1, True)
    assert server.asked == []
