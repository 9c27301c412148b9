"""How much coloc asks of slurmctld: bounded in the long run, and less when it is slow."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colocd.sim.clock import VirtualClock
from colocd.slurm.governor import BURST, LONGEST_PAUSE, QUICK, Governor


def ask(governor: Governor, clock: VirtualClock, seconds: float = 0.0) -> float:
    """One reading; how long it had to wait."""
    before = clock.monotonic()
    governor.wait()
    waited = clock.monotonic() - before
    clock.advance(seconds)
    governor.made("squeue", seconds)
    return waited


def test_a_burst_goes_through_and_then_the_rate_holds() -> None:
    clock = VirtualClock(0.0)
    governor = Governor(clock, 60.0)
    assert [ask(governor, clock) for _ in range(BURST)] == [0.0] * BURST
    assert [ask(governor, clock) for _ in range(5)] == pytest.approx([1.0] * 5)
    clock.advance(3600)
    assert [ask(governor, clock) for _ in range(BURST)] == [0.0] * BURST
    assert ask(governor, clock) > 0


@given(
    st.floats(30, 6000),
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 8), st.booleans()), max_size=400),
)
def test_calls_are_bounded_over_any_time(per_minute: float, steps: list[tuple[float, float, bool]]) -> None:
    clock = VirtualClock(0.0)
    governor = Governor(clock, per_minute)
    readings = changes = 0
    for pause, seconds, changing in steps:
        clock.advance(pause)
        if changing:
            governor.made("scontrol", seconds)
            changes += 1
        else:
            ask(governor, clock, seconds)
            readings += 1
        assert readings <= BURST + clock.monotonic() * per_minute / 60 + 1
    used = governor.usage()
    assert used.get("squeue", (0, 0))[0] == readings
    assert used.get("scontrol", (0, 0))[0] == changes


@pytest.mark.parametrize(("took", "pause"), [(QUICK, 0.0), (2.0, 2.0), (60.0, LONGEST_PAUSE)])
def test_a_slow_answer_is_followed_by_a_pause(took: float, pause: float) -> None:
    clock = VirtualClock(0.0)
    governor = Governor(clock, 600.0)
    ask(governor, clock, took)
    assert ask(governor, clock) == pytest.approx(pause)


def test_changes_never_wait_but_count() -> None:
    clock = VirtualClock(0.0)
    governor = Governor(clock, 60.0)
    for _ in range(BURST + 10):
        governor.made("scontrol", 0.0)
    assert clock.monotonic() == 0.0
    assert ask(governor, clock) == pytest.approx(11.0)
