"""`CliSlurm`: the Slurm port over the client commands. How each part is read: docs/slurm-adapter.md."""

import os
import re
import secrets
from collections.abc import Mapping, Sequence

import msgspec

from coloc_topology import releases
from colocd.clock import Clock
from colocd.config import SlurmConfig
from colocd.core.comment import SIGNALS
from colocd.core.view import Held, Job, JobState, Node
from colocd.errors import SlurmRefused, SlurmUnknown
from colocd.slurm import details, nodes, rows, setup, submission
from colocd.slurm.port import Cluster, JobUpdate, Partition, Reservation, Site, Submission
from colocd.slurm.shell import Shell
from colocd.slurm.words import REF, job_list, plain_name

SINGLY = 4
"""Up to this many running jobs, one `scontrol show job` each is cheaper than one for all."""
MOST_SINGLY = 32
"""At most this many ambiguous records are read again alone in one call; the others' GPUs stay unknown."""
ALL_COSTS = 200
"""Reading one job's record costs about as much as this many of the records that come with those of all jobs."""
VERSION_KEPT = 600.0
_MISSING = re.compile(r"Invalid job id|Invalid job array id")
_UNREAD: tuple[rows.Start | None, details.Masks] = (("", 0.0, 0, ()), {})
_TARGETS = {"batch": ("--batch",), "steps": (), "all": ("--full",)}


class CliSlurm:
    """See `SlurmPort`. Thread-safe; one command runs at a time. A batch call that Slurm refuses for some of its jobs
    is carried out for the others and raises `SlurmRefused`.
    """

    def __init__(self, config: SlurmConfig, clock: Clock) -> None:
        self._shell = Shell(config, clock)
        self._clock = clock
        self._version: tuple[str, float] | None = None
        self._table = rows.Table()
        self._held: dict[str, tuple[rows.Start, details.Masks]] = {}

    # --- reading -------------------------------------------------------------------------------------------------

    def read(self) -> Cluster:
        """See `SlurmPort.read`."""
        version = self._slurm_version()
        doubt = releases.doubt(releases.number(version))
        reservations = self._reservations()
        partitions = self._partitions()
        for _ in range(2):  # a job that starts between the commands makes them disagree; a second look settles it
            table = self._rows()
            masks = self._masks(table)
            found = self._nodes(table, reservations, strict=doubt is not None)
            used = {node.name: node.used for node in found}
            wrong = details.doubtful({row.job.ref: (row.nodes, masks[row.job.ref]) for row in table if row.nodes}, used)
            if not wrong:
                break
            for ref in wrong:
                self._held.pop(ref, None)
        masks.update(dict.fromkeys(wrong))
        self._remember(table, masks)
        return Cluster(
            version=version,
            nodes=found,
            jobs=tuple(_with(row, masks) for row in table),
            partitions=partitions,
            reservations=tuple(reservation for reservation, _ in reservations),
            notes=() if doubt is None else (doubt,),
        )

    def usage(self) -> Mapping[str, tuple[int, float]]:
        """See `SlurmPort.usage`."""
        return self._shell.governor.usage()

    def site(self) -> Site:
        """See `SlurmPort.site`."""
        return setup.read_site(self._shell)

    def jobs(self, refs: Sequence[str]) -> dict[str, Job]:
        """See `SlurmPort.jobs`."""
        if not refs:
            return {}
        table = self._rows("--jobs", job_list(refs))
        masks = self._masks(table)
        return {row.job.ref: _with(row, masks) for row in table}

    def node(self, name: str) -> Node:
        """See `SlurmPort.node`."""
        return self.nodes([name])[name]

    def nodes(self, names: Sequence[str]) -> dict[str, Node]:
        """See `SlurmPort.nodes`."""
        listed = ",".join(plain_name(name, "node") for name in names)
        text = self._shell.ask("scontrol", "-a", "-d", "-o", "show", "node", listed) if names else ""
        strict = releases.doubt(releases.number(self._slurm_version())) is not None
        found = {node.name: node for node in nodes.parse_nodes(text, self._reservations(), strict=strict)}
        if set(names) - found.keys():
            raise SlurmRefused(f"Slurm does not show all of the nodes {listed}")
        return {name: found[name] for name in names}

    def topology(self) -> str:
        """See `SlurmPort.topology`. Slurm says of a flat network that there is no topology information."""
        text = self._shell.ask("scontrol", "show", "topology")
        return "\n".join(line for line in text.splitlines() if "=" in line)

    def reservations(self) -> tuple[Reservation, ...]:
        """See `SlurmPort.reservations`."""
        return tuple(reservation for reservation, _ in self._reservations())

    def find(self, comment_token: str) -> tuple[Job, ...]:
        """See `SlurmPort.find`."""
        table = tuple(row for row in self._rows() if comment_token in row.job.comment)
        masks = self._masks(table)
        return tuple(_with(row, masks) for row in table)

    def _rows(self, *options: str) -> tuple[rows.Row, ...]:
        nonce = secrets.token_urlsafe(6).replace("-", "~")  # 48 bits; squeue reads no minus sign here
        base = ("squeue", "--noheader", "--all", "--array", "--noconvert", "--states=all")
        try:
            text = self._shell.ask(*base, *options, "-O", rows.form(nonce))
        except SlurmRefused as error:
            if options and _MISSING.search(str(error)):
                return ()
            raise
        return self._table.parse(text, nonce, whole=not options)

    def _masks(self, table: Sequence[rows.Row]) -> dict[str, details.Masks | None]:
        """GPUs of each of these jobs, as far as its own record tells them without doubt, or as read since it started."""
        result: dict[str, details.Masks | None] = {row.job.ref: {} for row in table}
        holding: list[rows.Row] = []
        for row in table:
            if row.job.state not in rows.HOLDING:
                continue
            start, read = self._held.get(row.job.ref, _UNREAD)
            if start == rows.start_of(row):
                result[row.job.ref] = read
            else:
                holding.append(row)
        alone = holding
        if len(holding) > max(SINGLY, min(MOST_SINGLY, len(table) // ALL_COSTS)):
            text = self._shell.ask("scontrol", "-a", "-d", "-o", "show", "job")
            found = details.records(text, {row.id for row in holding})
            for row in holding:
                records = found.get(row.id, [])
                result[row.job.ref] = _masks_in(records[0], row) if len(records) == 1 else None
            alone = [row for row in holding if result[row.job.ref] is None][:MOST_SINGLY]
        for row in alone:
            result[row.job.ref] = _masks_in(self.record(row.job.ref), row)
        return result

    def _remember(self, table: Sequence[rows.Row], masks: Mapping[str, details.Masks | None]) -> None:
        """Keep the GPUs of the jobs that run: Slurm changes them only with the job's start or its nodes."""
        self._held = {
            row.job.ref: (start, mine)
            for row in table
            if (start := rows.start_of(row)) is not None and (mine := masks[row.job.ref]) is not None
        }

    def record(self, ref: str) -> str:
        """See `SlurmPort.record`."""
        try:
            return self._shell.ask("scontrol", "-a", "-d", "-o", "show", "job", ref)
        except SlurmRefused:
            return ""

    def _reservations(self) -> tuple[tuple[Reservation, bool], ...]:
        return nodes.parse_reservations(self._shell.ask("scontrol", "-a", "-o", "show", "reservation"))

    def _partitions(self) -> tuple[Partition, ...]:
        return nodes.parse_partitions(self._shell.ask("scontrol", "-a", "-o", "show", "partition"))

    def _nodes(
        self, table: Sequence[rows.Row], reservations: Sequence[tuple[Reservation, bool]], *, strict: bool
    ) -> tuple[Node, ...]:
        text = self._shell.ask("scontrol", "-a", "-d", "-o", "show", "node")
        return nodes.parse_nodes(text, reservations, strict=strict)

    def _slurm_version(self) -> str:
        now = self._clock.monotonic()
        if self._version is None or now - self._version[1] > VERSION_KEPT:
            found = re.search(r"\d+(?:\.\d+)+", self._shell.ask("scontrol", "--version"))
            self._version = (found[0] if found else "", now)
        return self._version[0]

    # --- changing ------------------------------------------------------------------------------------------------

    def submit(self, job: Submission) -> str:
        """See `SlurmPort.submit`."""
        script, environment = submission.script(job), submission.environment(job)
        handle = os.memfd_create("coloc-environment")
        try:
            with open(handle, "wb", closefd=False) as file:
                file.write(environment)
            os.lseek(handle, 0, os.SEEK_SET)
            said = self._shell.tell(*submission.arguments(job, handle), script=script, files=(handle,))
        finally:
            os.close(handle)
        ref = said.strip().partition(";")[0]
        if not REF.fullmatch(ref):
            raise SlurmUnknown(f"sbatch answered {said.strip()[:100]!r} and no job id")
        return ref

    def hold(self, refs: Sequence[str]) -> None:
        """See `SlurmPort.hold`."""
        self._scontrol("hold", refs)

    def release(self, refs: Sequence[str]) -> None:
        """See `SlurmPort.release`."""
        self._scontrol("release", refs)

    def requeue(self, refs: Sequence[str], *, hold: bool) -> None:
        """See `SlurmPort.requeue`."""
        self._scontrol("requeuehold" if hold else "requeue", refs)

    def cancel(self, refs: Sequence[str]) -> None:
        """See `SlurmPort.cancel`."""
        if refs:
            self._shell.tell("scancel", *job_list(refs).split(","))

    def signal(self, refs: Sequence[str], signal: str, to: str) -> None:
        """See `SlurmPort.signal`. Jobs that do not run get none, and that is no error."""
        if signal not in SIGNALS or to not in _TARGETS:
            raise SlurmRefused(
                f"there is no signal {signal!r} to {to!r}", hint=f"signals: {', '.join(sorted(SIGNALS))}"
            )
        if refs:
            # Without --state, scancel tries again for 95 s when a job does not run yet.
            options = ("--state=RUNNING", *_TARGETS[to], f"--signal={signal}")
            self._shell.tell("scancel", *options, *job_list(refs).split(","))

    def update(self, ref: str, change: JobUpdate) -> None:
        """See `SlurmPort.update`."""
        words = []
        if change.nodes is not None:
            words.append("ReqNodeList=" + ",".join(plain_name(node, "node") for node in change.nodes))
        if change.reservation is not None:
            words.append(
                "ReservationName=" + (plain_name(change.reservation, "reservation") if change.reservation else "")
            )
        if change.comment is not None:
            words.append(f"Comment={change.comment}")
        if change.requeue is not None:
            words.append(f"Requeue={int(change.requeue)}")
        if change.start_now:
            words.append("StartTime=now")
        if words:
            self._update(ref, *words)
        if change.nice is not None:
            self._renice(ref, change.nice)

    def _renice(self, ref: str, nice: int) -> None:
        """Set the nice value. With priority/basic that releases a held job: it gets a begin time until it is held again."""
        job = self.jobs([ref]).get(ref)
        if job is None or job.held is Held.NO:
            self._update(ref, f"Nice={nice}")
            return
        self._update(ref, "StartTime=now+1hour", f"Nice={nice}")
        self._scontrol("hold" if job.held is Held.ADMIN else "uhold", [ref])
        self._update(ref, "StartTime=now")

    def reserve(self, name: str, nodes: Sequence[str], users: Sequence[str], minutes: int) -> None:
        """See `SlurmPort.reserve`."""
        words = [f"ReservationName={plain_name(name, 'reservation')}", f"Duration={max(1, minutes)}", "StartTime=now"]
        words += ["Nodes=" + ",".join(plain_name(node, "node") for node in nodes), "Flags=ignore_jobs"]
        words.append("Users=" + ",".join(plain_name(user, "user") for user in users))
        self._shell.tell("scontrol", "create", "reservation", *words)

    def unreserve(self, name: str) -> None:
        """See `SlurmPort.unreserve`."""
        try:
            self._shell.tell("scontrol", "delete", f"ReservationName={plain_name(name, 'reservation')}")
        except SlurmRefused as error:
            if "Requested reservation is invalid" not in str(error):
                raise

    def _scontrol(self, verb: str, refs: Sequence[str]) -> None:
        if refs:
            self._shell.tell("scontrol", verb, job_list(refs))

    def _update(self, ref: str, *words: str) -> None:
        self._shell.tell("scontrol", "update", f"JobId={job_list([ref])}", *words)


def _masks_in(record: str, row: rows.Row) -> details.Masks | None:
    """The job's GPUs from its record. Slurm 22.05 blanks them when a job completes, before its processes have gone."""
    leaving = row.job.state is JobState.COMPLETING
    found = details.masks(record, row.nodes, leaving=leaving)
    return None if leaving and not found and row.job.gpus_requested else found


def _with(row: rows.Row, masks: dict[str, details.Masks | None]) -> Job:
    mine = masks[row.job.ref]
    return row.job if mine == row.job.gpus else msgspec.structs.replace(row.job, gpus=mine)
