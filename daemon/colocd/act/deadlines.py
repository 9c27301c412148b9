"""Deadlines that outlive a restart and do not care for jumps of the wall clock."""

from colocd.clock import Clock


class Deadlines:
    """Periods that began at a stored wall time, measured on the monotonic clock from when this process first saw them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[tuple[int, str], float] = {}

    def left(self, key: tuple[int, str], since: float, seconds: float) -> float:
        """Seconds left of the period `key` that began at wall time `since`; never more than the whole period."""
        now = self._clock.monotonic()
        if key not in self._due:
            gone = min(max(0.0, self._clock.now() - since), seconds)
            self._due[key] = now + seconds - gone
        return self._due[key] - now

    def forget(self, owner: int) -> None:
        """Drop all periods of an owner (the first part of the key)."""
        self._due = {key: due for key, due in self._due.items() if key[0] != owner}
