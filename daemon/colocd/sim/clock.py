"""A clock that moves only when it is told to; waiting and sleeping move it."""

from threading import Event


class VirtualClock:
    """Implements `colocd.clock.Clock`. `start` is the first wall time in Unix seconds; monotonic time starts at 0."""

    def __init__(self, start: float) -> None:
        self._wall = float(start)
        self._elapsed = 0.0

    def now(self) -> float:
        """See `Clock.now`."""
        return self._wall + self._elapsed

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self._elapsed

    def wait(self, event: Event, seconds: float) -> bool:
        """Advance by `seconds`, or not at all when `event` is set already."""
        if not event.is_set():
            self.advance(max(0.0, seconds))
        return event.is_set()

    def sleep(self, seconds: float) -> None:
        """Advance by `seconds`."""
        self.advance(max(0.0, seconds))

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, on both clocks. Raises `ValueError` when negative: time does not run backwards."""
        if seconds < 0:
            raise ValueError(f"cannot advance by {seconds} s")
        self._elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or (negative) back; monotonic time stays."""
        self._wall += seconds
