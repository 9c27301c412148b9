"""The Slurm port and its adapters."""

import importlib.util

from colocd.clock import Clock
from colocd.config import SlurmConfig
from colocd.slurm.port import SlurmPort

__all__ = ["open_slurm"]


def open_slurm(config: SlurmConfig, clock: Clock) -> SlurmPort:
    """The adapter that is configured; `auto`: pyslurm where there is one, else the client commands. Asks nobody yet."""
    from colocd.slurm.cli import CliSlurm  # here, so that the port alone can be imported without it
    from colocd.slurm.pyslurm_adapter import PyslurmSlurm

    if config.adapter == "pyslurm":
        return PyslurmSlurm(config, clock, strict=True)
    there = config.pyslurm_python is not None or importlib.util.find_spec("pyslurm") is not None
    return PyslurmSlurm(config, clock) if config.adapter == "auto" and there else CliSlurm(config, clock)
