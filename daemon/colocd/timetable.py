"""The timetable: cycles, handover steps, roll-ups and pruning, one at a time, by APScheduler.

One worker thread does all of it, so a cycle and a handover step never meet. systemd's watchdog is fed by finished cycles
only: a cycle that hangs gets colocd restarted.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from colocd.app import Daemon
from colocd.errors import StoreUnavailable
from colocd.notify import Notifier

log = logging.getLogger(__name__)


WAKE_EVERY = 2.0
"""Seconds between two looks at the wake file: the shortest time from one cycle to the next that it can bring about."""


class WakeFile:
    """A file that Slurm touches; one that is not there is not touched."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._time()

    def touched(self) -> bool:
        """Whether the file was touched since the last call."""
        now = self._time()
        changed, self._seen = now != self._seen, now
        return changed and now is not None

    def _time(self) -> int | None:
        try:
            return self._path.stat().st_mtime_ns
        except OSError:
            return None


class Timetable:
    """Runs a daemon's duties from `start` to `stop`."""

    def __init__(self, daemon: Daemon, notifier: Notifier) -> None:
        self._daemon = daemon
        self._notifier = notifier
        self._ready = False
        self._wake: WakeFile | None = None
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def start(self) -> None:
        """Begin with a cycle at once."""
        times = self._daemon.config.cycle
        add = self._scheduler.add_job
        add(self._cycle, "interval", seconds=times.period, id="cycle")
        add(self._handovers, "interval", seconds=times.handover_period, id="handovers", next_run_time=None)
        add(self._daemon.roll_up, "interval", minutes=1, id="roll-up")
        add(self._daemon.prune, "interval", hours=1, id="prune")
        if times.wake_file is not None:
            self._wake = WakeFile(Path(times.wake_file))
            add(self._look, "interval", seconds=WAKE_EVERY, id="wake")
        add(self._cycle, id="first")
        self._scheduler.start()

    def stop(self) -> None:
        """Let the running duty finish, then stop."""
        self._scheduler.shutdown(wait=True)

    def between_cycles(self, change: Callable[[], None]) -> None:
        """Do something in the worker thread, when no duty runs; waits for it."""
        done: Future[None] = Future()

        def duty() -> None:
            try:
                change()
                done.set_result(None)
            except Exception as error:
                done.set_exception(error)

        self._scheduler.add_job(duty)
        done.result()

    def _cycle(self) -> None:
        try:
            sentence = self._daemon.cycle()
        except Exception:
            # A defect: not fed to the watchdog, so systemd restarts a daemon that only fails.
            log.exception("the cycle failed unexpectedly")
            return
        words = [f"STATUS={sentence}", "WATCHDOG=1"]
        if not self._ready:
            self._ready = True
            words.insert(0, "READY=1")
        self._notifier.tell(*words)
        if self._daemon.handovers_open:
            self._scheduler.resume_job("handovers")

    def _look(self) -> None:
        """A cycle at once when a job has ended since the last one, but no more often than `WAKE_EVERY` after the last."""
        if self._wake is not None and self._wake.touched():
            self._cycle()

    def _handovers(self) -> None:
        try:
            if self._daemon.step_handovers() == 0:
                self._scheduler.pause_job("handovers")
        except StoreUnavailable as error:
            # The next cycle meets the same, says so once, and has the handovers go on.
            log.debug("the handovers wait: %s", error)
            self._scheduler.pause_job("handovers")
        except Exception:
            log.exception("a handover step failed; the next cycle tries again")
            self._scheduler.pause_job("handovers")
