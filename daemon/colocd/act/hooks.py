"""Telling the service's router that a replica takes no new requests: an HTTP call, or a program from the site's hook folder.

Hooks run beside the cycle, each within its time limit, without a shell; whatever becomes of them, the drain goes on.
"""

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx

from colocd.core.service import ServiceSpec
from colocd.store.records import ReplicaRow
from colocd.telemetry.targets import fill_address

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
_TOLD = 300
"""Characters of a hook's last words that are kept."""


class Hooks:
    """Runs drain hooks. `folder`: where programs may lie; None: no program is run."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="coloc-hook")
        self._running: dict[tuple[str, int, str | None], Future[str | None]] = {}

    def tell(self, spec: ServiceSpec, row: ReplicaRow, address: str) -> tuple[bool, str | None]:
        """Start the hooks of a replica that drains, or look what became of them: (finished, what went wrong or None)."""
        if spec.drain.url is None and spec.drain.hook is None:
            return True, None
        key = (row.service, row.slot, row.job)
        if key not in self._running:
            self._running[key] = self._pool.submit(self._run, spec, row, address)
        future = self._running[key]
        if not future.done():
            return False, None
        del self._running[key]
        error = future.exception()
        return True, f"{type(error).__name__}: {error}" if error is not None else future.result()

    def _run(self, spec: ServiceSpec, row: ReplicaRow, address: str) -> str | None:
        wrong = [self._post(spec, row, address), self._call(spec, row, address)]
        return "; ".join(text for text in wrong if text is not None) or None

    def _post(self, spec: ServiceSpec, row: ReplicaRow, address: str) -> str | None:
        if spec.drain.url is None:
            return None
        url = fill_address(spec.drain.url, spec, row.slot, row.node or "", address)
        body = {"service": spec.name, "slot": row.slot, "node": row.node}
        try:
            code = asyncio.run(_answer(url, body, spec.drain.timeout))
        except TimeoutError:
            return f"the drain call was not answered within {spec.drain.timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return f"the drain call failed: {' '.join(str(error).split())[:_TOLD] or type(error).__name__}"
        return None if httpx.codes.is_success(code) else f"the drain call was answered {code}"

    def _call(self, spec: ServiceSpec, row: ReplicaRow, address: str) -> str | None:
        if spec.drain.hook is None:
            return None
        if self.folder is None:
            return f"hook {spec.drain.hook} is not run: routing.hooks names no folder"
        path = self.folder / spec.drain.hook
        refused = unsafe(path)
        if refused is not None:
            return f"hook {path} is not run: {refused}"
        words = [str(path), spec.name, str(row.slot), address, str(spec.port_base + row.slot)]
        try:
            process = subprocess.Popen(
                words,
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return f"hook {path} cannot be started: {error.strerror or error}"
        try:
            code = process.wait(spec.drain.timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"hook {path} did not end within {spec.drain.timeout:g} s and was killed"
        return None if code == 0 else f"hook {path} ended with exit {code}"


async def _answer(url: str, body: dict[str, object], timeout: float) -> int:
    """The status that a POST is answered with, within `timeout` seconds in all, however it drips; the body is not read."""
    async with (
        asyncio.timeout(timeout),
        httpx.AsyncClient(timeout=None, trust_env=False, follow_redirects=False) as client,
        client.stream("POST", url, json=body) as answer,
    ):
        return answer.status_code


def unsafe(path: Path) -> str | None:
    """Why a program must not be run with colocd's rights: only root's (or colocd's own) files, which nobody else can change."""
    try:
        for part in (path, path.parent):
            found = part.lstat()
            if found.st_uid not in (0, os.geteuid()):
                return f"{part} belongs to user {found.st_uid}, not to root"
            if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return f"others than its owner may write {part}"
        if not stat.S_ISREG(path.lstat().st_mode):
            return "it is not a regular file"
        return None if os.access(path, os.X_OK) else "it is not executable"
    except OSError as error:
        return error.strerror or str(error)
