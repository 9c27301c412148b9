"""The process that calls pyslurm (`helper/__main__.py`): started when it is needed, given a time for each answer, ended when it
does not keep it. Frames: four bytes of length, then JSON."""

import contextlib
import os
import select
import struct
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from colocd.clock import Clock

HELPER = Path(__file__).with_name("helper") / "__main__.py"
START = 15.0
"""Seconds for the start: pyslurm loads Slurm's libraries and reads slurm.conf."""
LARGEST = 1 << 29
"""Bytes of an answer; more is none."""
_PRINTED = 65536


class Answer(msgspec.Struct):
    """What the helper says: a value, or errors as (number, text) with how many jobs were done all the same."""

    ok: msgspec.Raw = msgspec.Raw(b"null")
    error: tuple[tuple[int, str], ...] = ()
    done: int = 0
    printed: str = ""
    """What Slurm's libraries wrote to standard error meanwhile."""


class Lost(Exception):
    """The helper was lost: `sent` when the request had gone out, `late` when it took too long (and was ended for that)."""

    def __init__(self, words: str, *, sent: bool, late: bool = False) -> None:
        super().__init__(words)
        self.sent, self.late = sent, late


class Link:
    """One helper. Not thread-safe. Use after `close` starts a new one."""

    def __init__(self, python: str, environment: Mapping[str, str], clock: Clock) -> None:
        self._argv: Sequence[str] = (python, str(HELPER))
        self._environment = dict(environment)
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._errors = -1
        self._seen = 0

    @property
    def pid(self) -> int | None:
        """The helper's process; None: there is none now."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def call(self, request: Mapping[str, Any], seconds: float) -> Answer:
        """Ask; starts the helper when there is none. Raises `Lost`."""
        data = msgspec.json.encode(request)
        sent = False
        try:
            process = self._started()
            end = self._clock.monotonic() + seconds
            assert process.stdin is not None
            assert process.stdout is not None
            sent = True  # from the first byte on nobody knows
            self._write(process.stdin.fileno(), struct.pack(">I", len(data)) + data, end)
            size = struct.unpack(">I", self._read(process.stdout.fileno(), 4, end))[0]
            if size > LARGEST:
                raise Lost("said something that is no answer", sent=sent)
            answer = msgspec.json.decode(self._read(process.stdout.fileno(), size, end), type=Answer)
        except msgspec.DecodeError:
            self.close()
            raise Lost("said something that is no answer", sent=sent) from None
        except TimeoutError:  # an OSError, so it comes first
            self.close()
            raise Lost(f"did not answer in {seconds:g} s and was ended", sent=sent, late=True) from None
        except (OSError, EOFError):
            raise self._lost(sent) from None
        except Lost:
            self.close()
            raise
        answer.printed = self._printed()
        return answer

    def close(self) -> None:
        """End the helper, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        os.close(self._errors)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is not None:
            return self._process
        self._errors = os.memfd_create("coloc-pyslurm")
        self._seen = 0
        errors = os.open(f"/proc/self/fd/{self._errors}", os.O_WRONLY | os.O_APPEND)
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
                cwd="/",
                bufsize=0,
            )
        except OSError as error:
            os.close(self._errors)
            raise Lost(f"cannot be started: {error.strerror}", sent=False) from None
        finally:
            os.close(errors)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        os.set_blocking(self._process.stdout.fileno(), False)
        return self._process

    def _lost(self, sent: bool) -> Lost:
        """The helper has ended by itself: how, and its last words."""
        process = self._process
        code = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(1.0)
        words = self._printed().strip().splitlines()[-1:] if process is not None else []
        self.close()
        how = "ended" if code is None else f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return Lost(": ".join([how, *words])[:300], sent=sent)

    def _wait(self, handle: int, event: int, end: float) -> None:
        left = end - self._clock.monotonic()
        poll = select.poll()
        poll.register(handle, event)
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError

    def _write(self, handle: int, data: bytes, end: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(handle, select.POLLOUT, end)
            with contextlib.suppress(BlockingIOError):
                view = view[os.write(handle, view) :]

    def _read(self, handle: int, size: int, end: float) -> bytes:
        parts: list[bytes] = []
        while size:
            self._wait(handle, select.POLLIN, end)
            try:
                part = os.read(handle, min(size, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _printed(self) -> str:
        """What the helper has printed since the last look; the file starts anew before it grows large."""
        size = os.fstat(self._errors).st_size
        text = os.pread(self._errors, min(size - self._seen, _PRINTED), self._seen) if size > self._seen else b""
        self._seen = size
        if size > _PRINTED:
            os.ftruncate(self._errors, 0)
            self._seen = 0
        return text.decode("utf-8", "replace")
