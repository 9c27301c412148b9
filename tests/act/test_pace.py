import itertools

import msgspec

from colocd.act.pace import Pace
from colocd.sim.clock import VirtualClock
from colocd.store.records import Handover, HandoverState

H = Handover(
    id=1,
    service="chat",
    slot=0,
    places={"n1": 1},
    level="NVLINK",
    created_at=0.0,
    updated_at=0.0,
    state=HandoverState.SIGNALLED,
)


def test_looks_get_rarer_and_a_change_is_followed_at_once() -> None:
    clock = VirtualClock(0.0)
    pace = Pace(clock, 0.2)
    looks = []
    while clock.monotonic() < 60:
        if pace.due(H):
            pace.looked(H, H)
            looks.append(clock.monotonic())
        clock.advance(0.1)
    gaps = [b - a for a, b in itertools.pairwise(looks)]
    assert len(looks) < 45
    assert max(gaps) < 2.2
    assert gaps == sorted(gaps) or gaps[0] < gaps[-1]
    after = msgspec.structs.replace(H, state=HandoverState.CHECKPOINTED)
    assert pace.due(after)
    pace.looked(H, after)
    clock.advance(0.21)
    assert pace.due(after)
    pace.keep(set())
    assert pace.due(H)
