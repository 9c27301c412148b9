"""Placing batch jobs: on which nodes a job that may start is put."""

from collections.abc import Mapping
from typing import NamedTuple

from colocd.core.view import Job, JobFacts, Node


class Room(NamedTuple):
    """What is left for batch jobs: GPUs and CPUs per node; CPUs None: not known."""

    gpus: dict[str, int]
    cpus: dict[str, int | None]


def per_node(job: Job) -> int:
    """GPUs the job takes on each of its nodes."""
    if job.gpus_per_node is not None:
        return job.gpus_per_node
    return -(-job.gpus_requested // max(1, job.nodes_requested))


def hosts_for(job: Job, facts: JobFacts, nodes: Mapping[str, Node], room: Room) -> tuple[str, ...] | None:
    """Nodes for the job, fullest first so that whole nodes stay whole; None: it does not fit now."""
    asked = () if facts.pinned else job.required_nodes
    need, cpus = per_node(job), -(-job.cpus_requested // max(1, job.nodes_requested))
    fits = [
        name
        for name, node in nodes.items()
        if room.gpus[name] >= need
        and (not asked or name in asked)
        and job.partition in node.partitions
        and (room.cpus[name] is None or (room.cpus[name] or 0) >= cpus)
    ]
    fits.sort(key=lambda name: (room.gpus[name], name))
    return tuple(fits[: job.nodes_requested]) if len(fits) >= job.nodes_requested else None


def take(job: Job, hosts: tuple[str, ...], room: Room) -> None:
    """Strike what the job takes on these nodes from the room."""
    cpus = -(-job.cpus_requested // max(1, job.nodes_requested))
    for name in hosts:
        room.gpus[name] -= per_node(job)
        left = room.cpus[name]
        room.cpus[name] = None if left is None else left - cpus
