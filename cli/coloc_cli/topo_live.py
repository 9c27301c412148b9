"""Nodes of the daemon's view: who sits on which GPU."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from coloc_cli import topo_picture
from coloc_topology.shape import Shape, bits, idx
from colocd.core.readings import NodeReadings
from colocd.core.view import Node, View


class Seat(NamedTuple):
    """A job on some GPUs of a node. `replica` is `service/slot` of a replica, None: a batch or a foreign job."""

    ref: str
    user: str
    name: str
    replica: str | None
    gpus: int

    @property
    def title(self) -> str:
        """One phrase for people."""
        return f"{self.replica} (job {self.ref})" if self.replica else f"job {self.ref} {self.user} {self.name}"


class NodeUse(NamedTuple):
    """A node and its jobs. `unknown`: GPUs in use by nobody that is known; all of them when Slurm's answer was unreadable."""

    node: Node
    shape: Shape | None
    seats: tuple[Seat, ...]
    unknown: int
    readings: NodeReadings | None = None


def uses(view: View, names: Iterable[str] | None = None) -> list[NodeUse]:
    """The nodes (None: all that have GPUs) with their seats, in the view's order; jobs by their lowest GPU."""
    replicas = {
        replica.job: f"{replica.service}/{replica.slot}"
        for service in view.services
        for replica in service.replicas
        if replica.job is not None
    }
    seats: dict[str, list[Seat]] = {}
    for job in view.jobs:
        for name, gpus in (job.gpus or {}).items():
            if gpus > 0:
                seats.setdefault(name, []).append(Seat(job.ref, job.user, job.name, replicas.get(job.ref), gpus))
    wanted = None if names is None else set(names)
    found = []
    for node in view.nodes:
        if (node.gpus > 0) if wanted is None else (node.name in wanted):
            here = sorted(seats.get(node.name, []), key=lambda seat: seat.gpus & -seat.gpus)
            taken = 0
            for seat in here:
                taken |= seat.gpus
            every = (1 << node.gpus) - 1
            used = every if node.used is None else node.used
            shape = view.shapes.get(node.shape) if node.shape is not None else None
            found.append(NodeUse(node, shape, tuple(here), used & ~taken & every, view.gpus.get(node.name)))
    return found


def lines(use: NodeUse, above: str | None = None) -> list[str]:
    """The picture of one node; `above`: what it shares with other nodes, in words."""
    node, shape = use.node, use.shape
    free = "not in use by Slurm" if not node.up else f"{node.free.bit_count()} free"
    head = f"{node.name}  {node.shape or 'topology unknown'}, {node.gpus} GPUs, {free}"
    if node.state:
        head += f", {node.state.lower()}"
    if node.fence is not None:
        head += f", fenced by {node.fence}"
    letters, names = topo_picture.letters({seat.title: seat.gpus for seat in use.seats}, node.gpus, use.unknown)
    drawn = shape
    if drawn is None or drawn.gpus != node.gpus:
        found = [head, f"  GPUs           {''.join(letters) or '-'}"]
    else:
        found = [head, *topo_picture.picture(drawn, letters)]
    if above is not None:
        found.append(f"  in             {above}")
    for bad in node.unfit:
        found.append(f"  !  GPU {bad.gpu} has failed and is not given out: {bad.why}")
    if use.readings is not None:
        told = [f"{gpu}:{'?' if sm is None else f'{sm}%'}" for gpu, sm in enumerate(use.readings.sm)]
        found.append(f"  busy           {' '.join(told)}")
    for seat in use.seats:
        found.append(f"  {names[seat.title]}  {seat.title}: GPU {idx(seat.gpus)}")
    if use.unknown:
        found.append(f"  ?  GPU {idx(use.unknown)}: taken, by whom is not known")
    if drawn is not None and drawn.gpus == node.gpus and node.free:
        found.append(f"  free {idx(node.free)}{topo_picture.best_free(drawn, node.free)}")
    return found


def row(use: NodeUse) -> tuple[object, ...]:
    """One line of the table of all nodes: name, shape, GPUs, free ones, picture of the use, largest free NVLink island."""
    node = use.node
    best: object = None
    if use.shape is not None and use.shape.gpus == node.gpus:
        from coloc_topology.fit import fit_table
        from coloc_topology.shape import Level

        try:
            table = fit_table(use.shape)
        except ValueError:
            return (node.name, node.shape, node.gpus, node.free.bit_count(), None, marks(use))
        best = next(
            (k for k in range(node.free.bit_count(), 0, -1) if table.best_at(node.free, k, Level.NVLINK) is not None), 0
        )
    return (node.name, node.shape, node.gpus, node.free.bit_count() if node.up else "down", best, marks(use))


def marks(use: NodeUse) -> str:
    """One letter a GPU: S serving, b batch, ? unknown, ! failed, x down, `.` free."""
    return "".join(_mark(use, gpu) for gpu in range(use.node.gpus))


def _mark(use: NodeUse, gpu: int) -> str:
    if use.node.failed >> gpu & 1:
        return "!"
    if use.unknown >> gpu & 1:
        return "?"
    for seat in use.seats:
        if seat.gpus >> gpu & 1:
            return "S" if seat.replica else "b"
    return "." if use.node.up else "x"


def document(use: NodeUse) -> dict[str, Any]:
    """The node for programs."""
    node, shape = use.node, use.shape
    return {
        "node": node.name,
        "shape": node.shape,
        "gpus": node.gpus,
        "up": node.up,
        "nvlink_domain": node.nvlink_domain,
        "leaf": node.leaf,
        "block": node.block,
        "free": list(bits(node.free)),
        "unknown": list(bits(use.unknown)),
        "failed": {str(bad.gpu): bad.why for bad in node.unfit},
        "busy": None if use.readings is None else list(use.readings.sm),
        "jobs": [
            {"ref": s.ref, "user": s.user, "name": s.name, "replica": s.replica, "gpus": list(bits(s.gpus))}
            for s in use.seats
        ],
        "islands": None if shape is None or shape.gpus > 16 else islands(shape),
    }


def islands(shape: Shape) -> dict[str, list[list[int]]]:
    """Islands by level, as lists of GPUs; a level with the same islands as the one above it is left out."""
    return {level.name: [list(bits(part)) for part in parts] for level, parts in topo_picture.islands(shape)}
