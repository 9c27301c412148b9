"""What the demo shows while it runs: bars in a terminal, a plain line every few seconds elsewhere."""

import sys
from collections import deque

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

PLAIN_EVERY = 5.0
WIDTH = 64


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the day. `load` and `capacity` in requests; `batch_*` count jobs."""

    seconds: float
    face: str
    total: int
    ready: int
    starting: int
    batch: int
    load: float
    capacity: float
    batch_running: int
    batch_waiting: int
    batch_done: int

    @property
    def free(self) -> int:
        """GPUs nobody holds."""
        return max(0, self.total - self.ready - self.starting - self.batch)


class Display:
    """Use as a context; `event` and `show` may be called at any time inside of it."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._live = (
            Live(console=self.console, refresh_per_second=4, transient=True) if self.console.is_terminal else None
        )
        self._events: deque[str] = deque(maxlen=10)
        self._last_line = -PLAIN_EVERY

    def __enter__(self) -> "Display":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def event(self, text: str) -> None:
        """Something happened, in one sentence."""
        self._events.append(text)
        if self._live is None:
            self.console.print(text, markup=False)
            sys.stdout.flush()

    def show(self, now: Moment) -> None:
        """Draw the state."""
        if self._live is not None:
            self._live.update(Group(*self._bars(now), Text(), *(Text(line, style="dim") for line in self._events)))
        elif now.seconds - self._last_line >= PLAIN_EVERY:
            self._last_line = now.seconds
            self.console.print(line(now), markup=False)
            sys.stdout.flush()

    def _bars(self, now: Moment) -> list[Text | Table]:
        per = WIDTH / max(1, now.total)
        gpus = Text("GPUs ")
        for count, style in (
            (now.ready, "on blue"),
            (now.starting, "on cyan"),
            (now.batch, "on green"),
            (now.free, "on grey30"),
        ):
            gpus.append(" " * round(count * per), style=style)
        scale = WIDTH / max(now.capacity, now.load, 112.0)
        load = Text("load ")
        within = min(now.load, now.capacity)
        load.append(" " * round(within * scale), style="on blue")
        load.append(" " * round((now.load - within) * scale), style="on red")
        load.append("·" * round((now.capacity - within) * scale), style="blue")
        return [Text(f"{now.face}  ({max(0.0, now.seconds):.0f} s)", style="bold"), gpus, load, Text(line(now))]


def line(now: Moment) -> str:
    """The state in one line."""
    gpus = f"GPUs {now.ready:2d} serving {now.starting:2d} starting {now.batch:2d} batch {now.free:2d} free"
    jobs = f"jobs {now.batch_running} running {now.batch_waiting} waiting {now.batch_done} done"
    return f"{now.face} {gpus} | load {now.load:3.0f} of {now.capacity:3.0f} | {jobs}"


def table(console: Console, report: dict[str, object]) -> None:
    """Print the report."""
    rows = Table(title="one day with coloc", show_header=False)
    for key, value in report.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {'unknown' if v is None else v}" for name, v in value.items())
        rows.add_row(key.replace("_", " "), "unknown" if value is None else str(value))
    console.print(rows)
