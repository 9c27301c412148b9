"""What the demo shows: bars in a terminal, plain lines elsewhere."""

import io

import msgspec
from demo.display import Display, Moment, table
from rich.console import Console

NOW = Moment(
    seconds=10.0,
    face="02:05",
    total=32,
    ready=8,
    starting=4,
    batch=15,
    load=40.0,
    capacity=32.0,
    batch_running=7,
    batch_waiting=3,
    batch_done=2,
)


def test_plain_lines_are_few_and_complete() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=200, force_terminal=False)) as display:
        for k in range(12):
            display.show(msgspec.structs.replace(NOW, seconds=float(k)))
        display.event("handover 3: [weird] text")
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert "GPUs  8 serving  4 starting 15 batch  5 free | load  40 of  32" in lines[0]
    assert lines[-1] == "handover 3: [weird] text"


def test_bars_in_a_terminal() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=120, force_terminal=True)) as display:
        display.event("handover 3: released")
        display.show(NOW)
    assert "handover 3: released" in out.getvalue()
    assert "\x1b[" in out.getvalue()


def test_unknown_is_said_and_not_zero() -> None:
    out = io.StringIO()
    table(Console(file=out, width=120), {"utilisation": None, "own_overhead_s": {"median": 0.1, "max": None}})
    assert "unknown" in out.getvalue()
    assert "median 0.1, max unknown" in out.getvalue()
