"""Measure the store: intend + settle per second, and bytes and times of a year of load history.

    python bench/bench_store.py [--folder DIR] [--services 200] [--days 365] [--minutes 28] [--no-postgres]

Prints medians with the least and the most. `--folder`: where the databases go; what it lies on decides the numbers.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sqlalchemy import event, select, update
from tests.helpers.private_postgres import PrivatePostgres

from colocd.clock import SystemClock
from colocd.store import open_store, schema
from colocd.store.packs import SPAN, LoadBucket, pack
from colocd.store.records import Intent, LoadSample, Outcome
from colocd.store.sql import SqlStore
from colocd.store.tables import load_packs, load_series

CLOCK = SystemClock()
START = 1_760_000_000.0


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


def loads(generator: np.random.Generator, samples: int, begin: float, every: float) -> np.ndarray:
    """A day's tide with bursts: what an ordinary service's load looks like."""
    times = begin + np.arange(samples) * every
    tide = 60 + 50 * np.sin(2 * np.pi * times / 86400)
    return np.maximum(0.0, tide * generator.lognormal(0, 0.15, samples))


def year(store: SqlStore, name: str, services: int, days: int, minutes: int) -> None:
    """What stands in the store after `days` with the default retention: packed days and hours as a roll-up writes them, and

    three hours of raw samples at 10 s. Reports the milliseconds of some calls.
    """
    generator = np.random.default_rng(1)
    first = int(START // 86400 * 86400)
    end = first + days * 86400
    raw = [np.round(loads(generator, 1080, end, 10.0), 3).tolist() for _ in range(services)]
    seconds = []
    for n in range(1080):
        rows = [LoadSample(service=f"service-{s}", at=end + n * 10.0, value=raw[s][n]) for s in range(services)]
        began = CLOCK.monotonic()
        store.add_load(rows)
        seconds.append(CLOCK.monotonic() - began)
    report(f"{name}: add_load of {services} services", [1000 * s for s in seconds], "ms")
    with store._reading() as connection:
        numbers = dict(connection.execute(select(load_series.c.name, load_series.c.id)).all())
    for s in range(services):
        series = numbers[f"service-{s}"]
        rows = []
        for step, from_day in ((600, 0), (60, days - minutes)):
            for start in range(first + from_day * 86400, end, SPAN[step]):
                size = SPAN[step] // step
                values = loads(generator, size * 6, start, step / 6).reshape(size, 6)
                made = zip(values.mean(1).tolist(), values.max(1).tolist(), strict=True)
                buckets = [LoadBucket(start + i * step, m, p, step // 10, step // 10) for i, (m, p) in enumerate(made)]
                rows.append({"series": series, "step": step, "start": start, "data": pack(buckets, start, step)})
        with store._writing() as connection:
            store._put(connection, load_packs, rows)
            connection.execute(
                update(load_series).where(load_series.c.id == series).values(minutes_to=end, tens_to=end)
            )
    times: dict[str, list[float]] = {"history of 8 weeks": [], "history of a year": [], "roll up one hour": []}
    for s in range(20):
        for what, since in (("history of 8 weeks", end - 56 * 86400.0), ("history of a year", float(first))):
            began = CLOCK.monotonic()
            store.history(f"service-{s}", since)
            times[what].append(1000 * (CLOCK.monotonic() - began))
    for _ in range(50):
        began = CLOCK.monotonic()
        store.roll_up(end + 2 * 3600.0, at_most=1)
        times["roll up one hour"].append(1000 * (CLOCK.monotonic() - began))
    for what, found in times.items():
        report(f"{name}: {what}, one series", found, "ms")


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
    parser.add_argument("--minutes", type=int, default=28, help="days kept by the minute")
    parser.add_argument("--no-postgres", action="store_true")
    options = parser.parse_args()
    print(
        f"{os.cpu_count()} CPUs, {options.services} services, {options.days} days, {options.minutes} of them by the minute"
    )
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
        year(store, "sqlite", options.services, options.days, options.minutes)
        store.close()
        grown = path.stat().st_size - before
        print(f"sqlite: {grown / 1e6:.1f} MB for {options.services} series")
    if options.no_postgres:
        return
    with PrivatePostgres(safe=True) as server:
        schema.upgrade(server.url())
        store = open_store(server.url())
        intend_and_settle(store, "postgresql")
        year(store, "postgresql", options.services, options.days, options.minutes)
        sizes = "SELECT pg_total_relation_size('load_samples'), pg_total_relation_size('load_packs')"
        with store._reading() as connection:
            raw, packs = connection.exec_driver_sql(sizes).one()
        print(
            f"postgresql: {(raw + packs) / 1e6:.1f} MB for {options.services} series, {raw / 1e6:.1f} of it raw samples"
        )
        store.close()


if __name__ == "__main__":
    main()
