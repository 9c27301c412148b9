"""How often open handovers are looked at: at once after a change, then less and less often, to spare slurmctld."""

from colocd.clock import Clock
from colocd.store.records import Handover
from colocd.store.records import HandoverState as S

GROWTH = 1.3
PATIENT = {S.SIGNALLED: 2.0}
"""Longest pause between two looks, in seconds: a checkpoint takes its time. All other states: `EAGER`."""
EAGER = 0.5


class Pace:
    """Remembers when each handover is due. `first` is the pause after a look that changed nothing, in seconds."""

    def __init__(self, clock: Clock, first: float) -> None:
        self._clock = clock
        self.first = first
        self._next: dict[int, tuple[S, float, float]] = {}

    def due(self, h: Handover) -> bool:
        """Whether it is time to look at this handover again."""
        state, _, at = self._next.get(h.id, (None, 0.0, 0.0))
        return state is not h.state or self._clock.monotonic() >= at

    def looked(self, before: Handover, after: Handover) -> None:
        """Note a step; one that ended the handover forgets it."""
        _, pause, _ = self._next.get(before.id, (None, 0.0, 0.0))
        if before.state is not after.state or not pause:
            pause = self.first
        else:
            pause = min(max(self.first, PATIENT.get(after.state, EAGER)), pause * GROWTH)
        self._next[after.id] = (after.state, pause, self._clock.monotonic() + pause)

    def keep(self, open_ids: set[int]) -> None:
        """Forget all handovers but these."""
        self._next = {number: due for number, due in self._next.items() if number in open_ids}
