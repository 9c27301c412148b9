"""The Slurm port and its adapters."""

from colocd.clock import Clock
from colocd.config import SlurmConfig
from colocd.slurm.port import SlurmPort

__all__ = ["open_slurm"]


def open_slurm(config: SlurmConfig, clock: Clock) -> SlurmPort:
    """The adapter that the configuration asks for; `auto` is the client commands. Talks to nobody yet."""
    from colocd.slurm.cli import CliSlurm  # here, so that the port alone can be imported without it

    return CliSlurm(config, clock)
