"""Measure the store: intend + settle per second, and bytes and seconds for a year of load samples.

    python bench/bench_store.py [--folder DIR] [--services 200] [--days 365] [--no-postgres]

Prints medians with the least and the most. `--folder`: where the databases go; what it lies on decides the numbers.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import event
from tests.helpers.private_postgres import PrivatePostgres

from colocd.clock import SystemClock
from colocd.store import open_store, schema
from colocd.store.records import Intent, LoadSample, Outcome
from colocd.store.sql import SqlStore

CLOCK = SystemClock()
START = 1_760_000_000.0
STEP = 600.0


def report(name: str, values: list[float], unit: str) -> None:
    print(
        f"{name:44} {statistics.median(values):12.1f} {unit}  ({min(values):.1f} to {max(values):.1f}, n={len(values)})"
    )


def intend_and_settle(store: SqlStore, name: str, rounds: int = 7, each: int = 200) -> None:
    rates = []
    for turn in range(rounds):
        began = CLOCK.monotonic()
        for n in range(each):
            store.intend(
                Intent(key=f"{name}.{turn}.{n}", kind="submit", subject="service:chat", at=START, payload={"n": n})
            )
            store.settle(f"{name}.{turn}.{n}", Outcome.DONE, START)
        rates.append(each / (CLOCK.monotonic() - began))
    report(f"{name}: intend + settle", rates, "pairs/s")


def year(store: SqlStore, name: str, services: int, days: int) -> int:
    """Write the samples as the daemon would (all services of one time in one call); return how many."""
    steps, seconds = int(days * 86400 / STEP), []
    for n in range(steps):
        at = START + n * STEP
        rows = [LoadSample(service=f"service-{s}", at=at, value=s * 1.37 + n % 144) for s in range(services)]
        began = CLOCK.monotonic()
        store.add_load(rows)
        seconds.append(CLOCK.monotonic() - began)
    report(f"{name}: add_load of {services} services", [1000 * s for s in seconds], "ms")
    reads = []
    for s in range(5):
        began = CLOCK.monotonic()
        found = len(store.load(f"service-{s}", START + (steps * STEP - 8 * 7 * 86400)))
        reads.append(1000 * (CLOCK.monotonic() - began))
    report(f"{name}: load of 8 weeks ({found} rows)", reads, "ms")
    return steps * services


@contextmanager
def normal_sync(store: SqlStore) -> Iterator[None]:
    """What `synchronous=NORMAL` would give: not what coloc uses."""

    def relax(connection: object, record: object, proxy: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")  # type: ignore[attr-defined]

    event.listen(store._engine, "checkout", relax)
    yield
    event.remove(store._engine, "checkout", relax)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--no-postgres", action="store_true")
    options = parser.parse_args()
    print(f"{os.cpu_count()} CPUs, {options.services} services, {options.days} days at {STEP:.0f} s")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "coloc.db"
        schema.upgrade(f"sqlite:///{path}")
        store = open_store(f"sqlite:///{path}")
        intend_and_settle(store, "sqlite")
        with normal_sync(store):
            intend_and_settle(store, "sqlite, synchronous=NORMAL")
        store.close()
        before = path.stat().st_size
        store = open_store(f"sqlite:///{path}")
        rows = year(store, "sqlite", options.services, options.days)
        store.close()
        grown = path.stat().st_size - before
        print(f"sqlite: {rows} samples, {grown / 1e6:.1f} MB, {grown / rows:.1f} bytes each")
    if options.no_postgres:
        return
    with PrivatePostgres(safe=True) as server:
        schema.upgrade(server.url())
        store = open_store(server.url())
        intend_and_settle(store, "postgresql")
        rows = year(store, "postgresql", options.services, options.days)
        with store._reading() as connection:
            size = connection.exec_driver_sql("SELECT pg_total_relation_size('load_samples')").scalar_one()
        print(f"postgresql: {rows} samples, {size / 1e6:.1f} MB, {size / rows:.1f} bytes each")
        store.close()


if __name__ == "__main__":
    main()
