"""The life of placed replicas: ready check, end, drain."""

from collections.abc import Mapping

import msgspec

from colocd.act.hooks import Hooks
from colocd.act.placing import ALIVE
from colocd.act.tools import Tools
from colocd.core.seats import words
from colocd.core.service import ServiceSpec
from colocd.core.view import Job, JobState, ReplicaState
from colocd.learning import remember_start
from colocd.store.records import ReplicaRow


class Replicas:
    """Steps the replica rows once a cycle. Deadlines use the wall clock: a replica's start is minutes, not a grace."""

    def __init__(self, tools: Tools, hooks: Hooks) -> None:
        self.tools = tools
        self.hooks = hooks
        self.addresses: dict[str, str] = {}
        """NodeAddr by node name, as last read."""

    def step(
        self, jobs: Mapping[str, Job], ready: Mapping[tuple[str, int], bool | None], idle: set[tuple[str, int]]
    ) -> None:
        """`jobs`: Slurm's jobs by ref. `ready`: answers of the ready checks (None: no contact). `idle`: no request running."""
        for row in self.tools.store.replicas():
            job = jobs.get(row.job or "")
            if job is None or job.state not in ALIVE:
                self._gone(row, job)
            elif row.state == ReplicaState.STARTING.value:
                self._starting(row, ready.get((row.service, row.slot)))
            elif row.state == ReplicaState.DRAINING.value:
                self._draining(row, (row.service, row.slot) in idle)

    def _gone(self, row: ReplicaRow, job: Job | None) -> None:
        """The job ended. Unless it was drained that is a failure: the operator is told, and a pause comes before the next."""
        tools = self.tools
        if job is not None and job.state is JobState.COMPLETING:
            return
        tools.store.delete_replica(row.service, row.slot)
        if row.state == ReplicaState.DRAINING.value:
            tools.tell(
                f"service:{row.service}", "drained", f"replica {row.slot} has ended; {words(row.places)} are free"
            )
            return
        text = f"replica {row.slot} (job {row.job}) on {words(row.places)} ended by itself"
        tools.tell(f"service:{row.service}", "replica-lost", text)
        if row.state == ReplicaState.STARTING.value:
            self.tools.pause_service(row.service)

    def _starting(self, row: ReplicaRow, answer: bool | None) -> None:
        tools = self.tools
        spec = tools.spec(row.service)
        now = tools.clock.now()
        if answer or (spec is not None and spec.ready.url is None):
            tools.store.put_replica(
                msgspec.structs.replace(row, state=ReplicaState.READY.value, data={**row.data, "ready_at": now})
            )
            tools.tell(
                f"service:{row.service}",
                "ready",
                f"replica {row.slot} on {words(row.places)} is ready after {now - row.since:.1f} s",
            )
            handover = tools.store.handover(int(row.data.get("handover", 0)))
            if handover is not None:
                remember_start(tools.store, handover, now)
        elif spec is not None and now - row.since > spec.ready.timeout:
            text = f"replica {row.slot} (job {row.job}) was not ready within {spec.ready.timeout:.0f} s and is ended"
            tools.tell(f"service:{row.service}", "not-ready", text)
            self._cancel(row, "not-ready")
            self.tools.pause_service(row.service)

    def _draining(self, row: ReplicaRow, idle: bool) -> None:
        spec = self.tools.spec(row.service)
        grace = spec.drain_grace if spec is not None else 0.0
        since = self.tools.clock.now() - float(row.data.get("drain_since", 0.0))
        if since > grace:
            self._cancel(row, "drain")
            return
        told = "told_at" in row.data or spec is None
        if spec is not None and not told:
            told = self._tell_router(spec, row)
            if told and (spec.drain.url is not None or spec.drain.hook is not None):
                return  # What counts as idle must be read after the router was told.
        if idle and told and (spec is None or since >= spec.drain.settle):
            self._cancel(row, "drain")

    def _tell_router(self, spec: ServiceSpec, row: ReplicaRow) -> bool:
        """Run the drain hooks once; True when that is over, however it ended."""
        tools = self.tools
        done, wrong = self.hooks.tell(spec, row, self.addresses.get(row.node or "", ""))
        if done:
            tools.store.put_replica(
                msgspec.structs.replace(row, data={**row.data, "told_at": tools.clock.now(), "told": wrong})
            )
        if wrong is not None:
            tools.tell(f"service:{row.service}", "hook-failed", f"replica {row.slot} drains all the same: {wrong}")
        return done

    def _cancel(self, row: ReplicaRow, kind: str) -> None:
        tools = self.tools
        key = f"{kind}-{row.service}-{row.slot}-{row.job}@{tools.clock.now():.6f}"
        tools.ledger.do(key, kind, f"job:{row.job}", lambda: tools.slurm.cancel([row.job or ""]))
