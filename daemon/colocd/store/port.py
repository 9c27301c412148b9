"""What the daemon asks of its store. One contract suite holds SQLite and PostgreSQL."""

from collections.abc import Callable, Sequence
from typing import Protocol

from colocd.store.packs import LoadBucket
from colocd.store.records import (
    BatchJob,
    Decision,
    Handover,
    Intent,
    Learned,
    LoadSample,
    Outcome,
    ReplicaRow,
    Run,
    ServiceRow,
)


class Store(Protocol):
    """All calls are their own committed transaction and raise `StoreUnavailable` when the database does not answer."""

    def put_service(self, row: ServiceRow) -> None:
        """Insert or replace a service."""
        ...

    def services(self) -> tuple[ServiceRow, ...]:
        """All services, removed ones with replicas included, by name."""
        ...

    def delete_service(self, name: str) -> None:
        """Forget a service; its history stays."""
        ...

    def put_replica(self, row: ReplicaRow) -> None:
        """Insert or replace the replica (service, slot)."""
        ...

    def replicas(self) -> tuple[ReplicaRow, ...]:
        """All replicas, by service and slot."""
        ...

    def delete_replica(self, service: str, slot: int) -> None:
        """Forget a replica; no error if it is not there."""
        ...

    def add_load(self, samples: Sequence[LoadSample]) -> None:
        """Append load samples; one that exists for (service, at) is replaced."""
        ...

    def load(self, service: str, since: float) -> tuple[LoadSample, ...]:
        """Samples of a service from `since` on, oldest first, as fine as they are still kept.

        Before the raw samples come means of minutes, and before those means of ten minutes, each at the middle of its time.
        """
        ...

    def history(self, service: str, since: float, step: int = 600) -> tuple[LoadBucket, ...]:
        """Buckets of `step` seconds (60 or 600) that begin at `since` or later, oldest first, up to the newest sample.

        A bucket in which nobody looked is left out; one in which nothing could be read has `known` 0 and no mean. Buckets of a
        minute go back as far as minutes are kept. The last bucket may still grow.
        """
        ...

    def roll_up(self, now: float, *, at_most: int = 100) -> int:
        """Roll finished hours and days up, at most this many; how many it did (fewer than `at_most`: nothing is left to do).

        Each is a transaction of its own and done once: a crash in between loses nothing and counts nothing twice.
        """
        ...

    def put_learned(self, row: Learned) -> None:
        """Insert or replace what is learned of (service, topic)."""
        ...

    def learned(self, topic: str) -> dict[str, Learned]:
        """What is learned on a topic, by service."""
        ...

    def put_jobs(self, rows: Sequence[BatchJob]) -> None:
        """Insert or replace batch jobs in one transaction."""
        ...

    def jobs(self, *, unended: bool = True) -> tuple[BatchJob, ...]:
        """Batch jobs, by ref; only those not ended unless `unended` is False."""
        ...

    def put_runs(self, rows: Sequence[Run]) -> None:
        """Insert or replace runs in one transaction."""
        ...

    def runs(self, since: float, *, limit: int = 1_000_000) -> tuple[Run, ...]:
        """Runs that go on, then those that ended at `since` or later, newest end first; `limit` counts all."""
        ...

    def intend(self, intent: Intent) -> bool:
        """Write an intent; False when its key exists already (then nothing is written)."""
        ...

    def settle(self, key: str, outcome: Outcome, at: float, detail: str | None = None) -> None:
        """Write an intent's outcome."""
        ...

    def intent(self, key: str) -> Intent | None:
        """One intent; None when there is none."""
        ...

    def intents(self, *, unsettled: bool = False, handover: int | None = None) -> tuple[Intent, ...]:
        """Intents, oldest first; `unsettled`: only OPEN and UNKNOWN ones; `handover`: only this one's."""
        ...

    def add_handover(self, handover: Handover) -> Handover:
        """Insert a handover and return it with its id."""
        ...

    def add_pair(self, lead: Handover, follower: Callable[[Handover], Handover]) -> tuple[Handover, Handover]:
        """Insert both or none, and return them with their ids. `follower` makes the second from the first as it is stored."""
        ...

    def save_handover(self, handover: Handover) -> None:
        """Write a handover's new state."""
        ...

    def handover(self, number: int) -> Handover | None:
        """One handover; None when there is none."""
        ...

    def handovers(self, *, only_open: bool = False, limit: int = 1000) -> tuple[Handover, ...]:
        """Handovers, newest first; `only_open`: those not in a final state, oldest first."""
        ...

    def add_decisions(self, rows: Sequence[Decision]) -> None:
        """Append decisions."""
        ...

    def decisions(self, subject: str | None = None, *, limit: int = 100) -> tuple[Decision, ...]:
        """Newest decisions first, of one subject or of all."""
        ...

    def put_setting(self, key: str, value: str | None) -> None:
        """Write a setting that outlives the daemon (`paused`); None removes it."""
        ...

    def setting(self, key: str) -> str | None:
        """Read a setting; None: not set."""
        ...

    def prune(
        self,
        *,
        load_before: float,
        decisions_before: float,
        raw_before: float | None = None,
        minutes_before: float | None = None,
        runs_before: float | None = None,
    ) -> int:
        """Delete what is older (open handovers and unsettled intents stay); returns the number of rows.

        `raw_before`, `minutes_before`: samples, and minutes, that are rolled up go when they are older; None: only with
        `load_before`, which takes everything. `runs_before`: runs of batch jobs that ended before; None: all stay.
        """
        ...

    def close(self) -> None:
        """Give all connections back."""
        ...
