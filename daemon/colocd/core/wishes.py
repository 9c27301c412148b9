"""Jobs of other people that ask for a place: the planner sees each as a service of one replica.

So they take part in the same choice of GPUs and victims, with the same explanations; only the acting side tells them apart.
"""

from collections.abc import Collection, Iterable

from colocd.core.comment import request_problem
from colocd.core.dependencies import begin_of
from colocd.core.policy import Policy
from colocd.core.service import Capacity, Load, ServiceSpec
from colocd.core.view import Held, Job, JobState, Replica, ReplicaState, ServiceView

PREFIX = "job:"
"""A wish's service name is this and the job's ref; no service file may use the colon."""


def is_wish(service: str) -> bool:
    """Whether a service name stands for somebody's job."""
    return service.startswith(PREFIX)


def subject(service: str) -> str:
    """What decisions about a service are recorded under: a wish's are its job's."""
    return service if is_wish(service) else f"service:{service}"


def spec_of(job: Job) -> ServiceSpec:
    """The job as a service of one replica that is wanted now and read nowhere."""
    assert job.request is not None
    return ServiceSpec(
        name=f"{PREFIX}{job.ref}",
        user=job.user,
        partition=job.partition,
        script="#!/bin/false\n",
        gpus_per_replica=per_node(job),
        capacity=Capacity(per_replica=1.0),
        load=Load(url="http://none/"),
        link_level=job.request.level,
        mode=job.request.mode,
        cpus_per_replica=-(-job.cpus_requested // max(1, job.nodes_requested)),
        nodes=job.nodes_requested,
        closeness=job.request.near,
    )


def per_node(job: Job) -> int:
    """GPUs the job asks for on each of its nodes."""
    return job.gpus_per_node if job.gpus_per_node is not None else job.gpus_requested


def refusal(job: Job, policy: Policy) -> str | None:
    """Why a job that asks for a place is left to Slurm; None: it is placed, or asks for none.

    Held by an administrator: coloc's or not, see `served`.
    """
    if job.request is None:
        problem = request_problem(job.comment)
        return (
            None if problem is None else f"its request for a place cannot be read, so Slurm alone places it: {problem}"
        )
    if job.checkpoint is not None:
        return "it asks for a place, but it is a batch job in coloc's care (`coloc sbatch`): such jobs have none"
    if job.unplaced is not None:
        return job.unplaced
    if job.partition not in policy.online_partitions:
        return f"it asks for a place, but partition {job.partition} is not in policy.online_partitions"
    if job.nodes_requested > 1 and job.gpus_per_node is None:
        return "it asks for a place on several nodes and does not say how many GPUs on each: give --gpus-per-node"
    if not 1 <= per_node(job) <= 16:
        return f"it asks for a place for {per_node(job)} GPUs, and coloc places 1 to 16"
    if job.required_nodes:
        return "it asks for a place and names its nodes itself"
    return None


def served(
    jobs: Iterable[Job], policy: Policy, open_names: Collection[str], kept: Collection[str], at: float
) -> tuple[ServiceView, ...]:
    """One-replica services for the jobs that wait for a place, and for those whose handover is open.

    A job that waits for a dependency or a begin time takes no GPUs yet. An administrator's hold is respected, unless coloc
    placed it (`kept`: refs) after a try that failed.
    """
    found = []
    for job in jobs:
        if job.request is None or job.checkpoint is not None:
            continue
        name = f"{PREFIX}{job.ref}"
        if name in open_names:
            placing = Replica(service=name, slot=0, state=ReplicaState.PLACING)
            found.append(ServiceView(spec=spec_of(job), replicas=(placing,)))
        elif (
            job.state is JobState.PENDING
            and (job.held is not Held.ADMIN or job.ref in kept)
            and job.reason not in ("Dependency", "DependencyNeverSatisfied", "BeginTime")
            and job.dependency is None
            and begin_of(job, at) is None
            and refusal(job, policy) is None
        ):
            found.append(ServiceView(spec=spec_of(job)))
    return tuple(found)
