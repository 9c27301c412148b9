"""Submissions and changes as pyslurm takes them; None where pyslurm cannot say it, and the client commands must."""

import math
import os
from collections.abc import Mapping
from typing import Any

from colocd.errors import SlurmRefused
from colocd.slurm import submission
from colocd.slurm.port import JobUpdate, Submission
from colocd.slurm.words import plain_name


def describe(job: Submission) -> tuple[dict[str, Any], dict[str, str]] | None:
    """The job's description and environment. Raises `SlurmRefused` as for sbatch; None: it has options of sbatch's own."""
    if job.options:
        return None
    submission.arguments(job, 0)  # the same is refused
    who = submission.account(job.user)
    workdir = job.workdir or (who.pw_dir if who else "/")
    words: dict[str, Any] = {
        "name": job.name,
        "script": submission.script(job).decode(),
        "partitions": job.partition,
        "nodes": max(1, len(job.nodes)),
        "ntasks": max(1, len(job.nodes)),
        "ntasks_per_node": 1,
        "cpus_per_task": job.cpus,
        "working_directory": workdir,
        "standard_output": job.output or "/dev/null",
        "standard_in": "/dev/null",
        "is_requeueable": job.requeue,
    }
    if job.gpus:
        words["gres_per_node"] = {f"gpu:{job.gpu_type}" if job.gpu_type else "gpu": job.gpus}
    if job.nodes:
        words["required_nodes"] = list(job.nodes)
    if job.reservation:
        words["reservations"] = [job.reservation]
    if job.comment:
        words["comment"] = job.comment
    if job.time_limit is not None:
        words["time_limit"] = max(1, math.ceil(job.time_limit / 60))
    if job.held:
        words["priority"] = 0
    if who is not None and who.pw_uid != os.getuid():
        words |= {"user_id": who.pw_uid, "group_id": who.pw_gid}
    _whole(words)
    # what sbatch adds of its own
    environment = {"SLURM_SUBMIT_DIR": workdir, "SLURM_UMASK": "0022", "SLURM_PRIO_PROCESS": "0"}
    for entry in submission.environment(job).split(b"\0"):
        name, found, value = entry.decode().partition("=")
        if found:
            environment[name] = value
    return words, environment


def changes(change: JobUpdate) -> dict[str, Any] | None:
    """The fields to change; None: pyslurm cannot empty a field, and the commands see to what nice does to a hold."""
    if change.nodes == () or change.reservation == "" or change.comment == "" or change.nice is not None:
        return None
    words: dict[str, Any] = {}
    if change.nodes is not None:
        words["required_nodes"] = [plain_name(node, "node") for node in change.nodes]
    if change.reservation is not None:
        words["reservations"] = [plain_name(change.reservation, "reservation")]
    if change.comment is not None:
        words["comment"] = change.comment
    if change.requeue is not None:
        words["is_requeueable"] = change.requeue
    if change.start_now:
        words["begin_time"] = "now"
    _whole(words)
    return words


def _whole(words: Mapping[str, Any]) -> None:
    """A NUL byte would end a text for Slurm, and what follows it would be lost without a word."""
    if any(isinstance(value, str) and "\0" in value for value in words.values()):
        raise SlurmRefused("a text for Slurm holds a NUL byte")
