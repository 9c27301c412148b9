"""Nodes, partitions and reservations from `scontrol -o show`. Only operators can write into these texts."""

import re
from collections.abc import Sequence

from colocd.core.view import Node
from colocd.slurm import values
from colocd.slurm.port import Partition, Reservation

FENCE = "coloc-"
_BASES = frozenset({"IDLE", "MIXED", "ALLOCATED"})
_HARMLESS = frozenset({"COMPLETING", "RESERVED", "PLANNED", "CLOUD", "DYNAMIC_NORM", "DYNAMIC_FUTURE"})
# Slurm starts nothing on a node with one of these flags.
_BAD = frozenset(
    {"DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "MAINT", "MAINTENANCE", "NOT_RESPONDING", "NO_RESPOND"}
    | {
        "POWER",
        "POWER_DOWN",
        "POWERING_DOWN",
        "POWERED_DOWN",
        "POWER_UP",
        "POWERING_UP",
        "POWER_DRAIN",
        "INVAL",
        "INVALID_REG",
    }
    | {"REBOOT", "REBOOT_ISSUED", "REBOOT_REQUESTED", "FUTURE", "UNKNOWN", "ERROR", "BLOCKED", "PERFCTRS", "NET"}
)


def _get(line: str, key: str) -> str:
    """The first value of a key; free text of operators (Reason, Comment) comes last in Slurm's records."""
    found = re.search(rf"(?:^|\s){re.escape(key)}=(\S*)", line)
    return found[1] if found else ""


def is_up(state: str, *, strict: bool = False) -> bool:
    """Whether Slurm would start jobs on a node in this state (`MIXED+PLANNED`, `IDLE*`, `DOWN+NOT_RESPONDING`).

    `strict`: not with a flag that coloc does not know.
    """
    base, *flags = re.split(r"\+", re.sub(r"[*~#!%$@^\-]", "", state))
    bad = set(flags) - _HARMLESS if strict else _BAD & set(flags)
    return base in _BASES and not bad and not re.search(r"[*~#!%$@^]", state)


def parse_nodes(
    text: str, reservations: Sequence[tuple[Reservation, bool]], *, strict: bool = False
) -> tuple[Node, ...]:
    """The nodes of `scontrol -d -o show node`; `reservations` with whether they are active now; `strict`: see `is_up`."""
    fences, taken = covered(reservations)
    lines = [line for line in text.splitlines() if line.startswith("NodeName=")]
    return tuple(_node(line, fences, taken, strict) for line in lines)


def covered(reservations: Sequence[tuple[Reservation, bool]]) -> tuple[dict[str, str], set[str]]:
    """Nodes under coloc's fences, with the fence, and nodes under other reservations, of those that are active now."""
    fences: dict[str, str] = {}
    taken: set[str] = set()
    for reservation, active in reservations:
        if not active:
            continue
        if reservation.name.startswith(FENCE):
            fences.update(dict.fromkeys(reservation.nodes, reservation.name))
        else:
            taken.update(reservation.nodes)
    return fences, taken


def _node(line: str, fences: dict[str, str], taken: set[str], strict: bool) -> Node:
    name, state = _get(line, "NodeName"), _get(line, "State")
    types = values.types_of(_get(line, "Gres"))
    used = values.mask(_get(line, "GresUsed")) if types else 0
    return Node(
        name=name,
        address=values.word(_get(line, "NodeAddr")) or name,
        up=is_up(state, strict=strict),
        gpus=len(types),
        used=None if used is None or used >> len(types) else used,
        types=types,
        state=state,
        partitions=tuple(part for part in _get(line, "Partitions").split(",") if part),
        cpus=values.number(_get(line, "CPUEfctv")) or values.number(_get(line, "CPUTot")),
        cpus_used=values.number(_get(line, "CPUAlloc")),
        fence=fences.get(name),
        reserved=name in taken,
    )


def parse_partitions(text: str) -> tuple[Partition, ...]:
    """The partitions of `scontrol -a -o show partition`; `preempt` is None where preemption is off."""
    lines = [line for line in text.splitlines() if line.startswith("PartitionName=")]
    return tuple(
        Partition(
            name=_get(line, "PartitionName"),
            up=_get(line, "State") == "UP",
            tier=values.number(_get(line, "PriorityTier")) or 0,
            nodes=values.names(_get(line, "Nodes")),
            exclusive=_get(line, "OverSubscribe") == "EXCLUSIVE",
            root_jobs=_get(line, "DisableRootJobs") != "YES",
            preempt=None if _get(line, "PreemptMode") in ("", "OFF") else _get(line, "PreemptMode"),
        )
        for line in lines
    )


def parse_reservations(text: str) -> tuple[tuple[Reservation, bool], ...]:
    """The reservations of `scontrol -a -o show reservation`, each with whether it is active now."""
    lines = [line for line in text.splitlines() if line.startswith("ReservationName=")]
    return tuple((_reservation(line), _get(line, "State") == "ACTIVE") for line in lines)


def _reservation(line: str) -> Reservation:
    users = values.word(_get(line, "Users"))
    return Reservation(
        name=_get(line, "ReservationName"),
        nodes=values.names(_get(line, "Nodes")),
        users=tuple(users.split(",")) if users else (),
        starts=values.moment(_get(line, "StartTime")),
        ends=values.moment(_get(line, "EndTime")),
    )
