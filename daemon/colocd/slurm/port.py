"""The Slurm port: all that coloc asks of Slurm. Adapters: client commands (`cli.py`), the virtual cluster (`colocd.sim`).

Every call raises one of three errors: `SlurmRefused` (Slurm said no; nothing done), `SlurmUnreachable` (no contact; nothing
done), `SlurmUnknown` (time-out after the call was sent: ask before acting again). One contract suite holds all adapters.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from colocd.core.view import Job, Node


class Partition(msgspec.Struct, frozen=True, kw_only=True):
    """A partition: its tier, and whether it takes jobs."""

    name: str
    up: bool
    tier: int
    nodes: tuple[str, ...] = ()
    preempt: str | None = None
    exclusive: bool = False
    """A job gets whole nodes here (`OverSubscribe=EXCLUSIVE`)."""
    root_jobs: bool = True
    """False: jobs of root are refused here (`DisableRootJobs`)."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """How this Slurm is set up. `settings`: slurmctld's configuration as it names it; what a release does not know is missing."""

    settings: Mapping[str, str]
    federation: str | None = None
    """The federation the cluster belongs to; None: none."""
    user: str = ""
    """The user that coloc's calls are made as."""
    privileged: bool | None = True
    """Whether that user may change everybody's jobs and make reservations; None: could not be read."""
    shares: Mapping[str, float] | None = None
    """Weights of the users by Slurm's fair-share, 1 on average; None: without slurmdbd, or not told."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """A reservation that exists now. Times are Unix seconds; None: not told."""

    name: str
    nodes: tuple[str, ...]
    users: tuple[str, ...] = ()
    starts: float | None = None
    ends: float | None = None


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """One reading of the whole cluster. `version` like `22.05.8`; `adapter`: what read it, in words.

    `notes`: sentences for the operator about how Slurm was reached, where that is worth knowing.
    """

    version: str
    nodes: tuple[Node, ...]
    jobs: tuple[Job, ...]
    partitions: tuple[Partition, ...]
    reservations: tuple[Reservation, ...]
    adapter: str = "client commands"
    notes: tuple[str, ...] = ()


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A job to submit. `script` starts with `#!`. `gpu_type` None: untyped request. `time_limit` in seconds, rounded up.

    `environment` is given to the job on top of a minimal environment (never colocd's own). `user` None: colocd's own
    user. `nodes` pins the node list; `reservation` starts it inside one; `options` are further sbatch options, one word
    each.
    """

    name: str
    script: str
    partition: str
    user: str | None = None
    gpus: int = 0
    gpu_type: str | None = None
    cpus: int = 1
    nodes: tuple[str, ...] = ()
    reservation: str | None = None
    comment: str = ""
    time_limit: float | None = None
    held: bool = False
    requeue: bool = False
    environment: Mapping[str, str] = msgspec.field(default_factory=dict)
    options: tuple[str, ...] = ()
    workdir: str | None = None
    output: str | None = None


class JobUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What to change of a job; None leaves a thing as it is.

    `nodes` (): remove the required node list. `reservation` "": detach from its reservation. `start_now`: drop a begin
    time or requeue delay. `nice` is Slurm's: higher goes later.
    """

    nodes: tuple[str, ...] | None = None
    reservation: str | None = None
    comment: str | None = None
    nice: int | None = None
    requeue: bool | None = None
    start_now: bool = False


class SlurmPort(Protocol):
    """See the module. `refs` are ids as Slurm's commands take them; the calls act on all of them in one command."""

    def read(self) -> Cluster:
        """Read nodes, jobs (array tasks one by one), partitions, reservations. Ended jobs appear while Slurm remembers."""
        ...

    def usage(self) -> Mapping[str, tuple[int, float]]:
        """Calls made to Slurm so far by this process, and the seconds they took, by command. Asks nobody."""
        ...

    def site(self) -> Site:
        """Read how Slurm is set up; a few commands, so not for every cycle."""
        ...

    def jobs(self, refs: Sequence[str]) -> dict[str, Job]:
        """Read a few jobs, cheaply; those Slurm does not know any more are missing from the answer."""
        ...

    def node(self, name: str) -> Node:
        """Read one node, cheaply. Raises `SlurmRefused` when there is no such node."""
        ...

    def nodes(self, names: Sequence[str]) -> dict[str, Node]:
        """Read a few nodes, cheaply, in the order of `names`. Raises `SlurmRefused` when one of them does not exist."""
        ...

    def record(self, ref: str) -> str:
        """What `scontrol -o show job` prints of one job; empty: it has gone."""
        ...

    def topology(self) -> str:
        """What `scontrol show topology` prints: switches and blocks, in lines like topology.conf's; empty: a flat network."""
        ...

    def reservations(self) -> tuple[Reservation, ...]:
        """Read the reservations, cheaply."""
        ...

    def find(self, comment_token: str) -> tuple[Job, ...]:
        """Jobs, ended ones too, whose comment contains the token: how an unknown submission is looked for."""
        ...

    def submit(self, job: Submission) -> str:
        """Submit a job and return its ref."""
        ...

    def hold(self, refs: Sequence[str]) -> None:
        """Hold pending jobs (admin hold)."""
        ...

    def release(self, refs: Sequence[str]) -> None:
        """Release held jobs."""
        ...

    def update(self, ref: str, change: JobUpdate) -> None:
        """Change a job."""
        ...

    def signal(self, refs: Sequence[str], signal: str, to: str) -> None:
        """Send a signal (name without SIG) to `batch` (the batch shell), `steps` (all steps, not the shell) or `all`."""
        ...

    def requeue(self, refs: Sequence[str], *, hold: bool) -> None:
        """Requeue running jobs; with `hold`, requeue and hold them in one call."""
        ...

    def cancel(self, refs: Sequence[str]) -> None:
        """Cancel jobs. Jobs that have ended already are no error."""
        ...

    def reserve(self, name: str, nodes: Sequence[str], users: Sequence[str], minutes: int) -> None:
        """Create a reservation of these whole nodes that starts now; accepted on busy nodes, running jobs go on."""
        ...

    def unreserve(self, name: str) -> None:
        """Delete a reservation; one that does not exist is no error."""
        ...
