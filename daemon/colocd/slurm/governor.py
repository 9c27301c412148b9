"""How much coloc asks of slurmctld: a bound on calls a minute, and pauses when it is slow. Slurm's `rl_enable` spares root."""

import threading
from collections.abc import Mapping

from colocd.clock import Clock

BURST = 120
"""Calls that may come at once: a few handovers step several times a second until their GPUs are free."""
LONGEST_PAUSE = 5.0
QUICK = 0.25
"""Seconds; a call that took no longer is followed by no pause."""


class Governor:
    """Says when the next call may be made, and counts them. Thread-safe.

    A token bucket of `per_minute` calls with room for `BURST`. After a call that took `s` seconds (over `QUICK`) the next
    reading waits another `s`, at most `LONGEST_PAUSE`: coloc keeps a slow slurmctld busy for half of the time at most.
    Calls that change something never wait: a late release or requeue would cost more than it spares.
    """

    def __init__(self, clock: Clock, per_minute: float) -> None:
        self._clock = clock
        self._rate = per_minute / 60.0
        self._tokens = float(BURST)
        self._at = clock.monotonic()
        self._not_before = self._at
        self._lock = threading.Lock()
        self._used: dict[str, tuple[int, float]] = {}

    def wait(self) -> None:
        """Return when a reading call may be made."""
        pause = self._pause()
        while pause > 0:
            self._clock.sleep(pause)
            pause = self._pause()

    def made(self, name: str, seconds: float) -> None:
        """Note a call of this command that took this long."""
        with self._lock:
            self._refill()
            self._tokens -= 1.0
            if seconds > QUICK:
                self._not_before = self._at + min(seconds, LONGEST_PAUSE)
            calls, total = self._used.get(name, (0, 0.0))
            self._used[name] = (calls + 1, total + seconds)

    def usage(self) -> Mapping[str, tuple[int, float]]:
        """Calls made so far, and the seconds they took, by command."""
        with self._lock:
            return dict(self._used)

    def _pause(self) -> float:
        with self._lock:
            self._refill()
            short = max(0.0, 1.0 - self._tokens) / self._rate
            return max(short, self._not_before - self._at)

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(float(BURST), self._tokens + (now - self._at) * self._rate)
        self._at = now
