"""How a running job speaks to coloc: through its own Slurm comment, with Slurm's client commands and nothing else."""

import os
import re
import subprocess
from collections.abc import Mapping
from typing import Any

import msgspec

from colocd.clock import Clock
from colocd.core.comment import parse_comment, with_checkpoint
from colocd.errors import BadRequest, NotAllowed, NotFound, SlurmRefused, SlurmUnreachable

PAUSE = 0.5
"""Seconds between tries while slurmctld is away."""
TIMEOUT = 10.0
"""Seconds for one call: the commands themselves try for about 18 s when nobody answers."""
PATIENCE = 30.0
"""Seconds in all; a job in its grace has no time for more."""
_WIDTH = 2000
"""Slurm allows comments of 1024 bytes."""
ABSENT = re.compile(
    r"unable to contact|connection refused|timed out|communication connection failure|socket timed out|zero bytes"
    r"|unable to establish|connect failure|backup controller|temporarily unable|resource temporarily"
    r"|munge|authentication error|unexpected message received",  # the last: scontrol update without slurmctld
    re.IGNORECASE,
)
"""What the commands say when slurmctld or munge is away."""
_GONE = re.compile(r"invalid job id", re.IGNORECASE)
_FOREIGN = re.compile(r"invalid user id|access/permission denied", re.IGNORECASE)
_REF = re.compile(r"[0-9]+(_[0-9]+)?\Z")


def job_ref(environ: Mapping[str, str]) -> str:
    """The job's reference as Slurm's commands take it; raises `BadRequest` outside a job.

    A task of an array is `17_3`: its plain number may be the number of the whole array, and then every task's comment
    would be changed.
    """
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    ref = f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID", "")
    if not ref:
        raise BadRequest(
            "this is not a Slurm job: SLURM_JOB_ID is not set", "call `coloc checkpointed` in a batch script"
        )
    if not _REF.match(ref):
        raise BadRequest(f"SLURM_JOB_ID is {ref!r}, which is no job id", "call `coloc checkpointed` in a batch script")
    return ref


def record_checkpoint(environ: Mapping[str, str], clock: Clock, *, give_up: bool = False) -> dict[str, Any]:
    """Write saved (and with `give_up` yielded) = now into the job's mark; the user's own comment stays.

    Returns `{job, managed, saved, yielded}`; `managed` False: the job carries no mark, nothing was written. Raises
    `BadRequest` outside a job, `NotFound`, `SlurmRefused`, and `SlurmUnreachable` after 30 s without an answer.
    """
    ref = job_ref(environ)
    moment = float(int(clock.now()))
    comment = read_comment(ref, environ, clock)
    facts = parse_comment(comment)
    if facts is None:
        return {"job": ref, "managed": False, "saved": None, "yielded": None}
    facts = msgspec.structs.replace(facts, saved=moment, yielded=moment if give_up else facts.yielded)
    command = ["scontrol", "update", f"jobid={ref}", f"comment={with_checkpoint(comment, facts)}"]
    _slurm(command, ref, environ, clock)
    return {"job": ref, "managed": True, "saved": facts.saved, "yielded": facts.yielded}


def record_unpark(ref: str, environ: Mapping[str, str], clock: Clock) -> None:
    """Write into the job's mark that it may be tried again.

    Errors as `record_checkpoint`; `NotFound` without a mark, `NotAllowed` for somebody else's job.
    """
    if not _REF.match(ref):
        raise BadRequest(f"{ref!r:.60} is no job id", "job ids look like 17, or 17_3 for an array task")
    try:
        comment = read_comment(ref, environ, clock)
    except NotFound as error:
        raise NotFound(str(error), "`coloc queue` lists the jobs that wait") from None
    facts = parse_comment(comment)
    if facts is None:
        raise NotFound(f"job {ref} was not submitted through coloc", "`coloc queue` lists coloc's jobs")
    facts = msgspec.structs.replace(facts, unparked=float(int(clock.now()) + 1))
    _slurm(["scontrol", "update", f"jobid={ref}", f"comment={with_checkpoint(comment, facts)}"], ref, environ, clock)


def read_comment(ref: str, environ: Mapping[str, str], clock: Clock) -> str:
    """The job's comment, empty when it has none. Errors as `record_checkpoint`."""
    end = f"<{os.urandom(8).hex()}>"  # squeue pads to the width; only our own suffix surely ends the comment
    text = _slurm(["squeue", "-h", "-j", ref, "-O", f"Comment:{_WIDTH}{end}"], ref, environ, clock)
    head, found, _ = text.partition(end)
    if not found:
        raise NotFound(f"Slurm does not know job {ref} (any more)", "call `coloc checkpointed` while the job runs")
    comment = head.rstrip(" ")
    return "" if comment == "(null)" else comment


def _slurm(command: list[str], ref: str, environ: Mapping[str, str], clock: Clock) -> str:
    """Run a client command, again after a pause while slurmctld is away; both commands may safely be repeated."""
    said = ""
    end = clock.monotonic() + PATIENCE
    while True:
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="surrogateescape",
                timeout=TIMEOUT,
                env=dict(environ),
                check=False,
            )
        except FileNotFoundError:
            raise SlurmUnreachable(f"{command[0]} is not on PATH", "add Slurm's commands to PATH in the job") from None
        except subprocess.TimeoutExpired:
            said = f"no answer within {TIMEOUT:g} seconds"
        else:
            if done.returncode == 0:
                return done.stdout
            said = " ".join((done.stderr or done.stdout).split())
            if _GONE.search(said):
                raise NotFound(
                    f"Slurm does not know job {ref} (any more)", "call `coloc checkpointed` while the job runs"
                )
            if _FOREIGN.search(said):
                raise NotAllowed(f"job {ref} is not yours, says Slurm", "its owner and operators may do this")
            if not ABSENT.search(said):
                raise SlurmRefused(f"{command[0]} failed: {said or f'exit code {done.returncode}'}")
        if clock.monotonic() + PAUSE >= end:
            raise SlurmUnreachable(f"slurmctld does not answer: {said}")
        clock.sleep(PAUSE)
