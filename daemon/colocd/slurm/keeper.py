"""Keeps the process that calls pyslurm: whether it may be used, what its loss means, and when it is left alone."""

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from coloc_topology import releases
from colocd.clock import Clock
from colocd.config import SlurmConfig
from colocd.errors import ColocError, SlurmRefused, SlurmUnknown, SlurmUnreachable
from colocd.slurm.governor import Governor
from colocd.slurm.link import START, Answer, Link, Lost
from colocd.slurm.shell import MAYBE_SENT, NOT_SENT, failure

log = logging.getLogger(__name__)
T = TypeVar("T")
TRIES, REST = 3, 600.0
"""Lost this often within this many seconds, the process is left alone for as long."""


class Keeper:
    """Asks the process. Thread-safe; one call at a time.

    `slurm` gives Slurm's version. `strict`: where pyslurm does not match it, nothing is read at all.
    """

    def __init__(
        self, config: SlurmConfig, clock: Clock, slurm: Callable[[], str], governor: Governor, *, strict: bool
    ) -> None:
        self._clock = clock
        self._slurm = slurm
        self._governor = governor
        self._strict = strict
        self._timeout = config.timeout
        self.link = Link(config.pyslurm_python or sys.executable, _environment(config), clock)
        self._alone = threading.RLock()
        self._pyslurm: str | None = None
        self._why_not: str | None = None
        self._lost: deque[float] = deque(maxlen=TRIES)
        self._rests_until = 0.0
        self._last = ""

    def ask(self, request: dict[str, Any], kind: type[T]) -> T | None:
        """What it answers to a question; None: it is not used now. Raises `SlurmUnreachable` or `SlurmRefused`."""
        answer = self._call(request, changing=False)
        return None if answer is None else msgspec.json.decode(answer.ok, type=kind)

    def tell(self, request: dict[str, Any]) -> Answer | None:
        """Have it change something; None: it is not used now, and nothing was asked. Raises the port's three errors."""
        return self._call(request, changing=True)

    def _call(self, request: dict[str, Any], *, changing: bool) -> Answer | None:
        """What the process answers; None: it is not used now, and nothing was asked. Raises the port's errors."""
        with self._alone:
            if not self._usable():
                return None
            if not changing:
                self._governor.wait()
            begun = self._clock.monotonic()
            try:
                answer = self.link.call(request, self._timeout)
            except Lost as lost:
                self._after(lost, changing=changing)
                return None
            finally:
                self._governor.made(f"pyslurm {request['call']}", self._clock.monotonic() - begun)
        if answer.error:
            raise _error(answer, changing=changing)
        return answer

    def _after(self, lost: Lost, *, changing: bool) -> None:
        """Count it; raises what the caller must know, or returns: then the client commands may be used."""
        message = f"pyslurm's process {lost}"
        self._last = str(lost)
        if lost.late:
            raise (SlurmUnknown if changing else SlurmUnreachable)(message)
        log.warning("%s", message)
        now = self._clock.monotonic()
        self._lost.append(now)
        if len(self._lost) == TRIES and now - self._lost[0] < REST:
            self._rests_until = now + REST
            self._lost.clear()
        if changing and lost.sent:
            raise SlurmUnknown(message)

    def told(self) -> tuple[str, str | None]:
        """What is used now, in words, and a note for the operator where pyslurm was left alone."""
        if self._why_not is not None:
            return f"client commands ({self._why_not})", None
        if self._resting():
            note = f"pyslurm's process was lost {TRIES} times (it {self._last}): the client commands are used for 10 minutes"
            return "client commands", note
        return ("client commands", None) if self._pyslurm is None else (f"pyslurm {self._pyslurm}", None)

    def close(self) -> None:
        """End the process."""
        with self._alone:
            self.link.close()

    def _resting(self) -> bool:
        return self._clock.monotonic() < self._rests_until

    def _usable(self) -> bool:
        """Whether the process is to be used; starts it when it does not run, and looks what it has."""
        if self._why_not is not None and not self._strict:
            return False
        if self._resting():
            return False
        if self.link.pid is not None and self._pyslurm is not None:
            return True
        slurm = releases.number(self._slurm())
        if releases.doubt(slurm) is not None:
            return False
        self.link.close()
        try:
            answer = self.link.call({"call": "hello"}, max(START, self._timeout))
        except Lost as lost:
            self._after(lost, changing=False)
            return False
        if answer.error:
            self._why_not = answer.error[0][1][:200]
        else:
            version = str(msgspec.json.decode(answer.ok)["pyslurm"])
            self._pyslurm, self._why_not = version, None
            if built_for(version) != slurm:
                self._why_not = f"pyslurm {version} is not for Slurm {self._slurm()}"
        if self._why_not is not None:
            self.link.close()
            log.warning("pyslurm is not used: %s", self._why_not)
            if self._strict:
                hint = 'install the release of pyslurm that matches your Slurm, or set slurm.adapter = "auto"'
                raise SlurmUnreachable(self._why_not, hint=hint)
            return False
        log.info("Slurm is reached by pyslurm %s", self._pyslurm)
        return True


def built_for(version: str) -> releases.Number | None:
    """The release of Slurm that a pyslurm is for: its own number, or the one that tools/pyslurm_build.sh adds (`+slurm26.5`)."""
    own, _, added = version.partition("+slurm")
    return releases.number(added or own)


def _error(answer: Answer, *, changing: bool) -> ColocError:
    """The port's error for what Slurm said. Unknown beats unreachable once a job of several was done."""
    text = "; ".join(dict.fromkeys(text for _, text in answer.error))
    said = f"{text}\n{answer.printed}" if NOT_SENT.search(answer.printed) else text
    if changing and answer.done and (NOT_SENT.search(said) or MAYBE_SENT.search(said)):
        return SlurmUnknown(f"pyslurm: {text}; {answer.done} of the jobs were done before")
    error = failure("pyslurm", 1, said, changing=changing)
    return SlurmRefused(f"pyslurm: {text[:400]}") if isinstance(error, SlurmRefused) else error


def _environment(config: SlurmConfig) -> dict[str, str]:
    """Nothing of colocd's but what finds libraries; bit strings (waiting array tasks) are not to be cut."""
    conf = config.conf or os.environ.get("SLURM_CONF")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    fixed = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "SLURM_BITSTR_LEN": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **fixed, **({"SLURM_CONF": conf} if conf else {})}
