"""What is known of each GPU beside Slurm: how busy it is, and whether it has failed. Pure."""

from collections.abc import Iterable

import msgspec

FATAL_XIDS = {
    48: "double-bit memory error",
    62: "its micro-controller halted",
    64: "a bad row could not be recorded",
    74: "NVLink error",
    79: "fell off the bus",
    95: "memory error that was not contained",
    119: "its system processor does not answer",
    120: "its system processor failed",
    140: "memory errors that were not recovered",
    143: "could not be initialised",
}
"""XIDs after which a GPU needs a reset or a repair (NVIDIA's XID catalogue); the others are an application's own doing."""


class FailedGpu(msgspec.Struct, frozen=True):
    """A GPU of a node, by Slurm's index, that must not be given out, and why."""

    gpu: int
    why: str


class NodeReadings(msgspec.Struct, frozen=True, kw_only=True):
    """Readings of one node at `at`, by Slurm's GPU index. None: not told.

    `sm`: percent of the time in which a kernel ran. `used`: memory, MiB. `power`: watts.
    """

    at: float
    sm: tuple[int | None, ...]
    used: tuple[int | None, ...]
    power: tuple[float | None, ...]


def failure(*, lost: str | None, xids: Iterable[int], ecc: int | None, remap: int | None) -> str | None:
    """Why a GPU must not be given out; None: nothing speaks against it. `remap` as in the agent's `GpuSample`.

    A row that waits for a reset to be remapped is no failure: the bad memory is out of use already.
    """
    if lost is not None:
        return lost
    fatal = next((xid for xid in xids if xid in FATAL_XIDS), None)
    if fatal is not None:
        return f"XID {fatal}: {FATAL_XIDS[fatal]}"
    if remap is not None and remap & 2:
        return "a bad memory row could not be remapped"
    if ecc:
        return f"{ecc} uncorrectable memory errors since the driver was started"
    return None


class Reading(msgspec.Struct, frozen=True):
    """A measured value and when it was measured."""

    value: float
    at: float
