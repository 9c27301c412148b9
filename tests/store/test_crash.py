"""kill -9 at any instruction: what a call returned for is there, and nothing is torn."""

import signal
import subprocess
import sys

import pytest

from colocd.store import open_store, schema
from colocd.store.records import Intent

WRITER = """
import sys
from itertools import count
from colocd.store import open_store
from colocd.store.records import BatchJob, Intent, Outcome
store = open_store(sys.argv[1])
for n in count():
    store.intend(Intent(key=f"k{n}", kind="k", subject="s", at=float(n), payload={"n": n}))
    sys.stdout.write(f"intended {n}\\n"); sys.stdout.flush()
    job = {"user": "u", "name": "n" * 3000, "first_seen": 0.0, "last_seen": 0.0, "evictions": n}
    store.put_jobs([BatchJob(ref=str(ref), **job) for ref in range(20)])
    sys.stdout.write(f"put {n}\\n"); sys.stdout.flush()
    store.settle(f"k{n}", Outcome.DONE, float(n))
    sys.stdout.write(f"settled {n}\\n"); sys.stdout.flush()
"""


@pytest.mark.parametrize("lines", [1, 2, 3, 40, 200])
def test_a_killed_writer_loses_nothing(url: str, lines: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(lines)]
    writer.send_signal(signal.SIGKILL)
    said += writer.stdout.readlines()
    assert writer.wait(10) == -signal.SIGKILL
    writer.stdout.close()
    # "intended 4" was said after intend() had returned; -1 is "never".
    done = {"intended": -1, "put": -1, "settled": -1}
    for line in said:
        word, number = line.split()
        done[word] = int(number)

    assert schema.check(url).up_to_date
    store = open_store(url)
    intents = store.intents()
    # At most one call was in flight: it is there whole, or not at all.
    assert len(intents) - 1 in (done["intended"], done["intended"] + 1)
    assert [(i.key, i.payload) for i in intents] == [(f"k{n}", {"n": n}) for n in range(len(intents))]
    open_ones = [i.key for i in intents if i.settled_at is None]
    assert open_ones in ([], [f"k{len(intents) - 1}"])
    assert len(intents) - len(open_ones) - 1 >= done["settled"]
    jobs = store.jobs()
    assert len(jobs) in (0, 20)
    if done["put"] >= 0:
        assert {job.evictions for job in jobs} <= {done["put"], done["put"] + 1}
        assert len({job.evictions for job in jobs}) == 1
    assert store.intend(Intent(key="after", kind="k", subject="s", at=1.0))
    store.close()
