"""Jobs from `squeue -O`: everything but the GPU indices. What users wrote cannot pass for something else here.

Job names and comments may hold any text, line ends included. So the fields are not cut by width but separated by a random
word that is new with each call; widths are 0 (nothing is padded or cut off).
"""

import msgspec

from colocd.core.comment import parse_comment, parse_request
from colocd.core.view import Held, Job, JobState
from colocd.errors import SlurmUnreachable
from colocd.slurm import values

FIELDS = (
    *("PriorityLong", "JobID", "JobArrayID", "State", "Reason", "UserName", "UserID", "Partition", "RestartCnt"),
    *("SubmitTime", "StartTime", "EndTime", "TimeLimit", "NumNodes", "NumCPUs", "NumTasks", "sockets", "NodeList"),
    *(
        "ReqNodes",
        "Reservation",
        "Dependency",
        "EligibleTime",
        "tres-per-job",
        "tres-per-node",
        "tres-per-socket",
        "tres-per-task",
        "QOS",
        "Comment",
        "Name",
    ),
)
STATES = {
    "PENDING": JobState.PENDING,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "SPECIAL_EXIT": JobState.PENDING,
    "RESV_DEL_HOLD": JobState.PENDING,
    "CONFIGURING": JobState.CONFIGURING,
    "RUNNING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "RESIZING": JobState.RUNNING,
    "EXPEDITING": JobState.PENDING,
    "STAGE_OUT": JobState.COMPLETING,
    "COMPLETING": JobState.COMPLETING,
    "SUSPENDED": JobState.SUSPENDED,
    "STOPPED": JobState.SUSPENDED,
    "COMPLETED": JobState.DONE,
    **dict.fromkeys(("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"), JobState.FAILED),
    **dict.fromkeys(("DEADLINE", "BOOT_FAIL", "LAUNCH_FAILED", "RECONFIG_FAIL", "REVOKED"), JobState.FAILED),
}
HOLDING = frozenset({JobState.CONFIGURING, JobState.RUNNING, JobState.SUSPENDED, JobState.COMPLETING, JobState.OTHER})
"""States in which a job may hold GPUs."""


_UNIT = "\x1f"


class Row(msgspec.Struct, frozen=True):
    """A job, without its GPU indices, with its plain job id (array tasks that wait share one) and where it runs."""

    id: str
    nodes: tuple[str, ...]
    job: Job


Start = tuple[str, float, int, tuple[str, ...]]
"""What names one start of a job: its plain id, when it started, its restarts, its nodes."""


def start_of(row: Row) -> Start | None:
    """What names this start of a job that runs; None: it does not run, or its start is not known."""
    job = row.job
    if job.state is not JobState.RUNNING or job.started is None:
        return None
    return (row.id, job.started, job.restarts, row.nodes)


def form(nonce: str) -> str:
    """The `-O` argument: the fields with `<nonce` behind each, and `>nonce` behind the last.

    No user knows the word in time, so no text of theirs can make up either; and none of them begins like the other.
    """
    *most, last = FIELDS
    return ",".join(f"{field}:0<{nonce}" for field in most) + f",{last}:0>{nonce}"


class Table:
    """Reads squeue's answers, and reads again only the rows that have changed since the last one.

    A large site has tens of thousands of waiting jobs of which a few change between two readings. A row is known by its
    text without the separators; of the priority, which Slurm raises all the time, only whether it is 0 is part of it.
    """

    def __init__(self) -> None:
        self._known: dict[str, Row] = {}

    def parse(self, text: str, nonce: str, *, whole: bool) -> tuple[Row, ...]:
        """The rows of an answer to `form(nonce)`; raises `SlurmUnreachable` when it cannot be read.

        `whole`: these are all jobs there are, so what is not among them may be forgotten.
        """
        sep = f"<{nonce}"
        *bodies, rest = text.split(f">{nonce}\n")
        if rest.strip():
            raise _unreadable()
        known, kept, result = self._known, {}, []
        for body in bodies:
            priority, _, others = body.partition(sep)
            # A text that holds the character which stands for the separator here is read anew each time.
            key = None if _UNIT in body else f"{priority == '0'}{_UNIT}{others.replace(sep, _UNIT)}"
            row = known.get(key) if key is not None else None
            if row is None:
                fields = body.split(sep)
                if len(fields) != len(FIELDS):
                    raise _unreadable()
                row = _row(dict(zip(FIELDS, fields, strict=True)))
            if key is not None:
                kept[key] = row
            result.append(row)
        if whole:
            self._known = kept
        return tuple(result)


def _unreadable() -> SlurmUnreachable:
    return SlurmUnreachable("squeue's answer cannot be read", hint="check that `squeue -O JobID:0` works on this host")


def _row(field: dict[str, str]) -> Row:
    ref = field["JobArrayID"].strip()
    head, _, tail = ref.partition("_")
    if not (head.isdigit() and (tail.isdigit() or ref == head)):  # a part of a heterogeneous job: 17+1
        ref = field["JobID"].strip()
    state = STATES.get(field["State"].strip(), JobState.OTHER)
    waits = state is JobState.PENDING
    time_limit = values.limit(field["TimeLimit"])
    ended = state in (JobState.DONE, JobState.FAILED)
    comment = "" if field["Comment"] == "(null)" else field["Comment"]
    count = max(1, values.number(field["NumNodes"].partition("-")[0]) or 1)
    total, per_node = _gpus(field, count)
    held = _held(field) if waits else Held.NO
    job = Job(
        ref=ref,
        user=field["UserName"].strip(),
        uid=values.number(field["UserID"]),
        name=field["Name"],
        partition=field["Partition"].strip(),
        state=state,
        reason=values.word(field["Reason"]),
        gpus_requested=total,
        gpus_per_node=per_node,
        nodes_requested=count,
        cpus_requested=values.number(field["NumCPUs"]) or 1,
        submitted=values.moment(field["SubmitTime"]),
        started=None if waits else values.moment(field["StartTime"]),
        ends=values.moment(field["EndTime"]) if ended or (not waits and time_limit is not None) else None,
        time_limit=time_limit,
        restarts=values.number(field["RestartCnt"]) or 0,
        held=held,
        required_nodes=values.names(field["ReqNodes"]),
        reservation=values.word(field["Reservation"]),
        comment=comment,
        checkpoint=parse_comment(comment),
        request=parse_request(comment),
        qos=values.word(field["QOS"]),
        dependency=values.dependency(field["Dependency"]) if waits else None,
        begins=None if held is Held.NO else values.moment(field["EligibleTime"]),
    )
    return Row(field["JobID"].strip(), values.names(field["NodeList"]) if state in HOLDING else (), job)


def _held(field: dict[str, str]) -> Held:
    """Held is what has priority 0; the reason is only written by the next scheduling pass, and may be an old one."""
    if values.number(field["PriorityLong"]) != 0:
        return Held.NO
    return Held.USER if field["Reason"].strip() == "JobHeldUser" else Held.ADMIN


def _gpus(field: dict[str, str], nodes: int) -> tuple[int, int | None]:
    """GPUs asked for in all, and on each node (None: Slurm decides)."""
    if per_node := values.gpus_in(field["tres-per-node"]):
        return values.gpus_in(field["tres-per-job"]) or per_node * nodes, per_node
    total = (
        values.gpus_in(field["tres-per-job"])
        or values.gpus_in(field["tres-per-task"]) * (values.number(field["NumTasks"]) or 1)
        or values.gpus_in(field["tres-per-socket"]) * (values.number(field["sockets"]) or 1) * nodes
    )
    return total, total if nodes == 1 else None
