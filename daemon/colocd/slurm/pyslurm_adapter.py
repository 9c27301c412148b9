"""`PyslurmSlurm`: the Slurm port with pyslurm's calls, made by a process of its own (`link.py`).

What pyslurm cannot say or tell is left to the client commands: GPU indices (of jobs that started, on nodes whose jobs changed),
requests that are not per node, single array tasks, options of sbatch, emptied fields, reservations to make and end. When the
process is lost while it reads, the commands read; a change is *unknown* then. Lost three times in ten minutes, it rests for ten.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from colocd.clock import Clock
from colocd.config import SlurmConfig
from colocd.core.comment import SIGNALS
from colocd.core.view import Node
from colocd.slurm import nodes, raw, rows
from colocd.slurm.cli import CliSlurm
from colocd.slurm.describe import changes, describe
from colocd.slurm.keeper import Keeper
from colocd.slurm.port import Cluster, JobUpdate, Partition, Reservation, Submission
from colocd.slurm.words import job_list

REQUEST_KEPT = 600.0
"""Requests that only squeue tells are asked for again after this many seconds: their owner may have changed them."""
MANY = 200
"""More jobs or nodes than this are asked for with all others instead of by name."""
SMALL = 1000
"""More jobs than this are read by squeue: it reads only what changed again, pyslurm makes an object of each job every time."""
_STEPS = {"batch": "batch", "steps": "children", "all": "all"}
_NO_GPUS = raw.Request(0, 0)


class PyslurmSlurm(CliSlurm):
    """See `SlurmPort`. Thread-safe; one call to the process at a time.

    `strict`: where pyslurm does not match Slurm nothing is read at all, instead of by the client commands.
    """

    def __init__(self, config: SlurmConfig, clock: Clock, *, strict: bool = False) -> None:
        super().__init__(config, clock)
        self.keeper = Keeper(config, clock, self._slurm_version, self._shell.governor, strict=strict)
        self._requests: dict[str, tuple[float, raw.Request]] = {}
        self._known: dict[raw.RawJob, tuple[raw.Request, tuple[rows.Row, ...]]] = {}
        self._many = 0
        self._used: dict[str, tuple[object, int | None]] = {}

    def close(self) -> None:
        """End the process."""
        self.keeper.close()

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self) -> Cluster:
        """See `SlurmPort.read`."""
        found = super().read()
        adapter, note = self.keeper.told()
        return msgspec.structs.replace(found, adapter=adapter, notes=(*found.notes, *([note] if note else [])))

    def _rows(self, *options: str) -> tuple[rows.Row, ...]:
        refs = options[1].split(",") if options else []
        if any("_" in ref for ref in refs) or (not refs and self._many > SMALL):
            table = super()._rows(*options)
            self._many = self._many if refs else len(table)
            return table
        call: dict[str, Any] = {"call": "jobs", "ids": [int(ref) for ref in refs]} if refs else {"call": "all_jobs"}
        found = self.keeper.ask(call, list[raw.RawJob])
        if found is None:
            return super()._rows(*options)
        requests = self._requests_of(found)
        known = {}
        for job in found:
            request = requests.get(str(job.id), _NO_GPUS)
            old = self._known.get(job)
            known[job] = old if old is not None and old[0] == request else (request, raw.rows_of(job, request))
        if not refs:
            self._known, self._many = known, len(found)
        return tuple(row for _, made in known.values() for row in made)

    def _requests_of(self, found: Sequence[raw.RawJob]) -> dict[str, raw.Request]:
        """GPUs that each job asks for, by plain id: pyslurm tells only those per node, squeue the others."""
        now = self._clock.monotonic()
        requests: dict[str, raw.Request] = {}
        ask: dict[str, str] = {}
        for job in found:
            key = str(job.id)
            if job.gpus:
                requests[key] = raw.Request(job.gpus * max(1, job.nodes or 1), job.gpus)
                continue
            at, request = self._requests.get(key, (-REQUEST_KEPT, _NO_GPUS))
            if now - at < REQUEST_KEPT:
                requests[key] = request
            else:
                ask[key] = raw.refs_of(job)[0] if raw.refs_of(job) else key
        if ask:
            told = super()._rows(*(("--jobs", ",".join(ask.values())) if len(ask) <= MANY else ()))
            jobs = {row.job.ref: row.job for row in told}
            for key, ref in ask.items():
                if ref in jobs:
                    requests[key] = raw.Request(jobs[ref].gpus_requested, jobs[ref].gpus_per_node)
                    self._requests[key] = (now, requests[key])
        if len(self._requests) > 2 * len(found) + MANY:
            alive = {str(job.id) for job in found}
            self._requests = {key: value for key, value in self._requests.items() if key in alive}
        return requests

    def _reservations(self) -> tuple[tuple[Reservation, bool], ...]:
        found = self.keeper.ask({"call": "reservations"}, list[raw.RawReservation])
        return super()._reservations() if found is None else raw.reservations_of(found)

    def _partitions(self) -> tuple[Partition, ...]:
        found = self.keeper.ask({"call": "partitions"}, list[raw.RawPartition])
        return super()._partitions() if found is None else raw.partitions_of(found)

    def _nodes(
        self, table: Sequence[rows.Row], reservations: Sequence[tuple[Reservation, bool]], *, strict: bool
    ) -> tuple[Node, ...]:
        found = self.keeper.ask({"call": "nodes"}, list[raw.RawNode])
        if found is None:
            return super()._nodes(table, reservations, strict=strict)
        here: dict[str, list[tuple[object, ...]]] = {node.name: [] for node in found}
        for row in table:
            for name in row.nodes:
                here.setdefault(name, []).append((row.job.ref, row.job.started, row.job.restarts, row.job.state))
        keys = {node.name: (node.cpus_used, node.state, tuple(sorted(map(str, here[node.name])))) for node in found}
        self._read_used(keys)
        fences, taken = nodes.covered(reservations)
        return tuple(raw.node_of(node, self._used[node.name][1], fences, taken) for node in found)

    def _read_used(self, keys: Mapping[str, object]) -> None:
        """What nodes say of their GPUs, asked again where jobs, their states or the used cores are others than last time."""
        changed = [name for name, key in keys.items() if name not in self._used or self._used[name][0] != key]
        told: dict[str, int | None] = {}
        kept = {name: known for name, known in self._used.items() if name in keys and known[0] == keys[name]}
        if changed:
            only = (",".join(changed),) if len(changed) <= MANY else ()
            text = self._shell.ask("scontrol", "-a", "-d", "-o", "show", "node", *only)
            told = {node.name: node.used for node in nodes.parse_nodes(text, ())}
        self._used = kept | {name: (keys[name], told.get(name)) for name in changed}

    # --- changing ------------------------------------------------------------------------------------------------

    def submit(self, job: Submission) -> str:
        """See `SlurmPort.submit`."""
        told = describe(job)
        if told is None:
            return super().submit(job)
        words, environment = told
        answer = self.keeper.tell({"call": "submit", "job": words, "environment": environment})
        return super().submit(job) if answer is None else str(msgspec.json.decode(answer.ok, type=int))

    def hold(self, refs: Sequence[str]) -> None:
        """See `SlurmPort.hold`."""
        if not self._each("hold", refs):
            super().hold(refs)

    def release(self, refs: Sequence[str]) -> None:
        """See `SlurmPort.release`."""
        if not self._each("release", refs):
            super().release(refs)

    def requeue(self, refs: Sequence[str], *, hold: bool) -> None:
        """See `SlurmPort.requeue`."""
        if not self._each("requeue", refs, hold=hold):
            super().requeue(refs, hold=hold)

    def cancel(self, refs: Sequence[str]) -> None:
        """See `SlurmPort.cancel`."""
        if not self._each("cancel", refs):
            super().cancel(refs)

    def signal(self, refs: Sequence[str], signal: str, to: str) -> None:
        """See `SlurmPort.signal`."""
        if signal not in SIGNALS or to not in _STEPS:
            super().signal(refs, signal, to)  # refuses it
        elif not self._each("signal", refs, name=f"SIG{signal}", steps=_STEPS[to]):
            super().signal(refs, signal, to)

    def update(self, ref: str, change: JobUpdate) -> None:
        """See `SlurmPort.update`."""
        job_list([ref])
        words = changes(change)
        if words == {}:
            return
        call = {"call": "update", "ref": int(ref), "changes": words} if words and "_" not in ref else None
        if call is None or self.keeper.tell(call) is None:
            super().update(ref, change)

    def _each(self, call: str, refs: Sequence[str], **more: object) -> bool:
        """Do it with these jobs; False: the client commands must."""
        job_list(refs)
        if not refs or any("_" in ref for ref in refs):
            return not refs
        return self.keeper.tell({"call": call, "ids": [int(ref) for ref in refs], **more}) is not None
