"""Many at once: threads of one daemon, and processes beside it."""

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable

from colocd.store import open_store
from colocd.store.records import BatchJob, Intent, LoadSample
from colocd.store.sql import SqlStore

RACER = """
import sys
from colocd.store import open_store
from colocd.store.records import Intent
store = open_store(sys.argv[1], wait=30)
print("ready", flush=True)
sys.stdin.readline()
for n in range(40):
    if store.intend(Intent(key=f"k{n}", kind="k", subject=sys.argv[2], at=1.0)):
        print(f"k{n}")
store.close()
"""


def together(count: int, work: Callable[[int], None]) -> None:
    """Run `work(0..count-1)` in threads that start at the same moment; the first error is raised here."""
    errors: list[BaseException] = []
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            gate.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_of_many_threads_one_gets_each_key(url: str) -> None:
    store = open_store(url, wait=30)
    won: list[str] = []

    def race(number: int) -> None:
        mine = [Intent(key=f"k{n}", kind="k", subject=str(number), at=1.0) for n in range(12)]
        won.extend(intent.key for intent in mine if store.intend(intent))

    together(8, race)
    assert Counter(won) == Counter(f"k{n}" for n in range(12))
    assert len(store.intents()) == 12
    assert store.open_connections() == 0
    store.close()


def test_of_many_processes_one_gets_each_key(url: str) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, url, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(3)
    ]
    won: list[tuple[str, str]] = []
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for number, racer in enumerate(racers):
        told, _ = racer.communicate(timeout=60)
        assert racer.returncode == 0
        won += [(key, str(number)) for key in told.split()]
    assert Counter(key for key, _ in won) == Counter(f"k{n}" for n in range(40))
    store = open_store(url)
    assert {(i.key, i.subject) for i in store.intents()} == set(won)
    store.close()


def test_writers_of_the_same_rows_do_not_block_each_other_for_good(store: SqlStore) -> None:
    refs = [str(n) for n in range(20)]

    def write(number: int) -> None:
        for turn in range(5):
            rows = [
                BatchJob(ref=ref, user="u", name="n", first_seen=1.0, last_seen=1.0, evictions=number * 100 + turn)
                for ref in refs
            ]
            store.put_jobs(rows if number % 2 else rows[::-1])
            # Every row is from one writer's one turn: a transaction is seen whole or not at all.
            assert len({job.evictions for job in store.jobs()}) == 1

    together(4, write)


def test_samples_of_a_new_service_from_many_threads(store: SqlStore) -> None:
    names = ["a", "b", "c"]

    def write(number: int) -> None:
        store.add_load([LoadSample(service=n, at=float(number), value=1.0) for n in names[:: 1 if number % 2 else -1]])

    together(6, write)
    assert [[s.at for s in store.load(name, 0.0)] for name in names] == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]] * 3


def test_pruning_and_writing_at_once(store: SqlStore) -> None:
    def work(number: int) -> None:
        if number == 0:
            for _ in range(5):
                store.prune(load_before=50.0, decisions_before=50.0)
        else:
            for at in range(20):
                store.add_load([LoadSample(service=f"s{number}", at=40.0 + at, value=1.0)])
                store.intend(Intent(key=f"{number}.{at}", kind="k", subject="s", at=1.0))

    together(3, work)
    store.prune(load_before=50.0, decisions_before=50.0)
    assert len(store.intents(unsettled=True)) == 40
    assert [s.at for s in store.load("s1", 0.0)] == [50.0 + n for n in range(10)]
