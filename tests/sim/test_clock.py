from threading import Event

import pytest

from colocd.clock import Clock
from colocd.sim.clock import VirtualClock


def test_it_moves_only_when_told() -> None:
    clock: Clock = VirtualClock(1000.0)
    assert (clock.now(), clock.monotonic()) == (1000.0, 0.0)
    clock.sleep(2.5)
    assert (clock.now(), clock.monotonic()) == (1002.5, 2.5)
    assert clock.wait(Event(), 1.0) is False
    assert clock.monotonic() == 3.5
    clock.sleep(-5.0)
    assert clock.monotonic() == 3.5


def test_no_waiting_for_what_has_happened() -> None:
    clock, event = VirtualClock(0.0), Event()
    event.set()
    assert clock.wait(event, 60.0) is True
    assert clock.monotonic() == 0.0


def test_jumps_move_the_wall_alone() -> None:
    clock = VirtualClock(1000.0)
    clock.jump(-300.0)
    assert (clock.now(), clock.monotonic()) == (700.0, 0.0)
    with pytest.raises(ValueError, match="-1"):
        clock.advance(-1.0)
