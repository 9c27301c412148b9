"""A colocd that is killed -9 at a chosen instruction: before or after the n-th changing call to Slurm or write to the store.

    doomed.py CONFIG slurm|store before|after NUMBER COUNT_FILE [STATE]

It runs the real Daemon with the real adapter and the real store. Points are counted from the first one on (not before the
first handover exists), and COUNT_FILE gets a line a point, flushed before the blow. NUMBER 0: nothing happens; the process
ends with 0 once no handover is open. `STATE NAME` in place of a number: killed as soon as a handover has been saved in it.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colocd.app import Daemon
from colocd.clock import SystemClock
from colocd.config import load_config
from colocd.slurm.cli import CliSlurm
from colocd.store import open_store
from colocd.store.sql import SqlStore

CALLS = ("submit", "hold", "release", "update", "signal", "requeue", "cancel", "reserve", "unreserve")
OPENING = ("add_handover", "add_pair")
WRITES = (
    *("intend", "settle", "add_handover", "add_pair", "save_handover", "put_jobs", "put_replica", "add_decisions"),
    *("put_service", "delete_replica"),
)


class Doom:
    """Counts points and strikes at one of them."""

    def __init__(self, strike: int, note: Path) -> None:
        self.strike, self.seen, self.armed = strike, 0, False
        self.note = note.open("w", buffering=1)

    def point(self, name: str) -> None:
        if not self.armed:
            return
        self.seen += 1
        self.note.write(f"{self.seen} {name}\n")
        if self.seen == self.strike:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, name: str, real: Callable[..., Any], after: bool) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name in OPENING:
                self.armed = True
            if not after:
                self.point(name)
            answer = real(*args, **kwargs)
            if after:
                self.point(name)
            return answer

        return call


def main() -> None:
    path, kind, when, number, note = sys.argv[1:6]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    clock = SystemClock()
    config = load_config(Path(path), os.environ)
    store: SqlStore = open_store(config.database.url)
    slurm = CliSlurm(config.slurm, clock)
    doom = Doom(int(number), Path(note))
    if kind == "slurm":
        for name in CALLS:
            setattr(slurm, name, doom.wrap(name, getattr(slurm, name), when == "after"))
        for name in OPENING:
            setattr(store, name, doom.wrap(name, getattr(store, name), True))
        doom.strike += number != "0"  # the first note is the handover itself, not a call to Slurm
    else:
        for name in WRITES:
            setattr(store, name, doom.wrap(name, getattr(store, name), when == "after"))
    daemon = Daemon(config, slurm, store, clock)
    until = clock.monotonic() + 90
    while clock.monotonic() < until:
        daemon.cycle()
        while daemon.step_handovers():
            clock.sleep(0.1)
        if doom.armed:
            sys.exit(0)
        clock.sleep(0.2)
    sys.exit("the handover did not end")


if __name__ == "__main__":
    main()
