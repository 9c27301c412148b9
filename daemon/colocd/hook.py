"""The site's own command that is told of evictions: facts in its environment, no shell, a time limit, failures only logged."""

import logging
import subprocess
import threading
from collections.abc import Mapping
from queue import Full, Queue

from colocd.config import HookConfig

log = logging.getLogger("colocd.hook")
WAITING = 1000
"""Calls that may wait for one another; further ones are dropped, and that is logged."""
_LONGEST = 1000
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Hook:
    """Calls the command in a thread of its own, one call at a time, as colocd's own unprivileged user."""

    def __init__(self, config: HookConfig) -> None:
        self.config = config
        self._queue: Queue[dict[str, str]] = Queue(WAITING)
        self._thread: threading.Thread | None = None

    def evicted(self, facts: Mapping[str, object]) -> None:
        """Tell of one eviction; returns at once. `facts` become `COLOC_…` variables, None an empty one."""
        if not self.config.evicted:
            return
        try:
            self._queue.put_nowait({f"COLOC_{key.upper()}": clean(value) for key, value in facts.items()})
        except Full:
            log.warning("the eviction hook is too slow: a call was dropped")
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="hook", daemon=True)
            self._thread.start()

    def join(self) -> None:
        """Wait until all calls so far are over."""
        self._queue.join()

    def _work(self) -> None:
        while True:
            environment = self._queue.get()
            try:
                self._call(environment)
            except Exception:
                log.exception("the eviction hook")
            finally:
                self._queue.task_done()

    def _call(self, environment: Mapping[str, str]) -> None:
        config = self.config
        if not config.evicted:
            return
        try:
            done = subprocess.run(
                list(config.evicted),
                env={"PATH": _PATH, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=config.timeout,
                start_new_session=True,
                cwd="/",
                check=False,
            )
        except subprocess.TimeoutExpired:
            log.warning("the eviction hook was ended after %g s", config.timeout)
        except OSError as error:
            log.warning("the eviction hook cannot be started: %s", error.strerror)
        else:
            if done.returncode:
                said = clean(done.stderr.decode(errors="replace"))
                log.warning("the eviction hook ended with %d: %s", done.returncode, said or "it said nothing")


def clean(value: object) -> str:
    """A value on one line without control characters, at most 1000 of them: what users wrote stays data."""
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() else " " for c in text)[:_LONGEST].strip()
