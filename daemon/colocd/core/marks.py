"""What jobs say about themselves in their Slurm comments."""

import msgspec

from colocd.core.service import Closeness, LinkLevel, Mode


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a batch job says about itself in its Slurm comment. Durations are seconds.

    `signal` None: the job cannot be asked to checkpoint. `to`: `batch` (batch shell), `steps` (all steps), `all`.
    `saved` and `yielded` are Unix seconds as the job wrote them: last complete checkpoint, and "saved, take my GPUs".
    """

    signal: str | None = None
    to: str = "batch"
    interval: float | None = None
    """It saves by itself this often; None: not told."""
    cost: float | None = None
    """How long one save takes; None: not told."""
    restart: float | None = None
    """How long it takes from a start to the first new step of work; None: not told."""
    grace: float | None = None
    saved: float | None = None
    yielded: float | None = None
    deadline: float | None = None
    """Unix seconds by which its user wants it to have ended; None: no wish."""
    rank: str | None = None
    """Name of its class of batch work, as the site's rules know it; None: the ordinary one."""
    unparked: float | None = None
    """Unix seconds at which its owner, or an operator, asked that it be tried again after it was parked."""
    hold: str | None = None
    """`user`: its user submitted it with a hold of their own, which coloc leaves alone until they release it."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a job of somebody else asks of coloc in its Slurm comment: GPUs of each node joined at a link level, nodes near."""

    level: LinkLevel = "NVLINK"
    mode: Mode = Mode.GUARANTEED
    near: Closeness = Closeness.ANY
    """How near several nodes must be; as firmly as `mode` says."""
