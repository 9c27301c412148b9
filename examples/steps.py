"""A program that saves on TERM and ends: the handler sets a flag, the loop saves after its step."""

import os
import signal
import time
from pathlib import Path

stop = False


def on_term(*_: object) -> None:
    """Saving in here could meet a half-done step."""
    global stop
    stop = True


signal.signal(signal.SIGTERM, on_term)
saved = Path("checkpoint")
step = int(saved.read_text()) if saved.exists() else 0
with open("journal", "a", buffering=1) as journal:
    while step < int(os.environ.get("STEPS", "600")) and not stop:
        time.sleep(0.1)  # one step of work
        step += 1
        journal.write(f"{os.environ.get('SLURM_RESTART_COUNT', 0)} {step}\n")
fresh = Path("checkpoint.new")
fresh.write_text(str(step))
fresh.replace(saved)
if not stop:
    Path("finished").write_text(str(step))
