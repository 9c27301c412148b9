"""Resumable offline inference: every line of a JSONL file through an HTTP server, one line out for each, exactly once.

    infer.py INPUT OUTPUT --url http://127.0.0.1:8000/v1/chat/completions [--parallel 16] [--tries 5]

A line of INPUT is `{"custom_id": "…", "body": {…}}`, as for OpenAI's and vLLM's batches; one without an id gets `line-N`.
`body` is posted to the URL. A line of OUTPUT is `{"custom_id", "status", "response" or "error"}`, in the order of completion.
It may be killed at any moment and started again: what is in OUTPUT is not asked again, a half-written last line is cut off,
a second one that runs on the same OUTPUT is refused. TERM: no new requests, those under way are finished, then it ends.
Exit 0: every line has its answer; 85: not every one.
Python 3.8 or later, standard library only.
"""

import argparse
import fcntl
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Dict, Iterator, Set, Tuple

NOT_ALL = 85
stopping = threading.Event()
asked = False


def on_term(*_: object) -> None:
    """A flag only: setting an event in a handler may wait for a lock that its own thread holds."""
    global asked
    asked = True


class Output:
    """The output file: locked, whole lines only."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"infer: another process writes {path}")
        self.done: Set[str] = set()
        whole = 0
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.done.add(json.loads(line)["custom_id"])
                whole += len(line)
        os.ftruncate(self.fd, whole)

    def add(self, answer: Dict[str, Any]) -> None:
        """Append one line by one call, and have it on disk before it counts as done."""
        os.write(self.fd, json.dumps(answer, ensure_ascii=False).encode() + b"\n")
        os.fsync(self.fd)
        self.done.add(answer["custom_id"])


def requests(path: str) -> Iterator[Tuple[str, Any]]:
    """Id and body of each line."""
    seen: Set[str] = set()
    with open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
                name = str(line.get("custom_id") or f"line-{number}")
                body = line["body"]
            except (ValueError, KeyError, AttributeError) as error:
                sys.exit(f"infer: line {number} of {path} cannot be used: {error!r}")
            if name in seen:
                sys.exit(f"infer: line {number} of {path} has the id {name!r} of an earlier line")
            seen.add(name)
            yield name, body


def ask(url: str, name: str, body: Any, tries: int) -> Dict[str, Any]:
    """Post one body. Answers the server refuses (4xx) are errors for good; all else is tried again."""
    said = "not tried"
    for number in range(tries):
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=3600) as answer:
                return {"custom_id": name, "status": answer.status, "response": json.load(answer)}
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            if 400 <= error.code < 500 and error.code != 429:
                return {"custom_id": name, "status": error.code, "error": said}
        except (OSError, ValueError) as error:
            said = str(error)
        if stopping.wait(min(30.0, 0.5 * 2**number)):
            break
    raise ConnectionError(said)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description="resumable offline inference")
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--url", required=True)
    parser.add_argument("--parallel", type=int, default=16, help="requests under way at a time")
    parser.add_argument("--tries", type=int, default=8, help="of one request, with growing pauses")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, on_term)
    output = Output(args.output)
    todo = [(name, body) for name, body in requests(args.input) if name not in output.done]
    print(f"infer: {len(output.done)} lines are there, {len(todo)} to do", file=sys.stderr, flush=True)
    failed, lines = 0, iter(todo)
    with ThreadPoolExecutor(args.parallel) as pool:
        running: "Set[Future[Dict[str, Any]]]" = set()
        more = True
        while running or more:
            while more and not asked and len(running) < args.parallel:
                pair = next(lines, None)
                more = pair is not None
                if pair is not None:
                    running.add(pool.submit(ask, args.url, *pair, args.tries))
            if asked:
                more = False
                stopping.set()
            finished, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                try:
                    output.add(future.result())
                except ConnectionError as error:
                    failed += 1
                    print(f"infer: no answer: {error}", file=sys.stderr, flush=True)
            if not running and more:
                time.sleep(0.01)
    left = len(todo) - sum(name in output.done for name, _ in todo)
    print(f"infer: {left} left, {failed} without an answer", file=sys.stderr, flush=True)
    return NOT_ALL if left else 0


if __name__ == "__main__":
    sys.exit(main())
