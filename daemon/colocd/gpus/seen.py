"""What a source of GPU readings gives: the same for agents and for Prometheus."""

from typing import NamedTuple, Protocol

from colocd.agent.wire import GpuInfo, GpuSample


class Seen(NamedTuple):
    """The newest reading of a node: its GPUs and a sample of each. `at` is colocd's wall time of the reading."""

    at: float
    gpus: tuple[GpuInfo, ...]
    samples: tuple[GpuSample, ...]
    problems: tuple[str, ...] = ()


class Spell(NamedTuple):
    """`seconds` up to `at` that one sample of a node stands for. `sm` in percent and `power` in watts by NVML's index."""

    at: float
    seconds: float
    sm: dict[int, int]
    power: dict[int, float]


class GpuSource(Protocol):
    """Where readings come from. Called by the cycle only; must not wait for anything."""

    def expect(self, addresses: dict[str, str]) -> None:
        """Say which nodes there are: NodeAddr by Slurm's name."""
        ...

    def latest(self) -> dict[str, Seen]:
        """The newest reading of each node, however old."""
        ...

    def drain(self) -> dict[str, list[Spell]]:
        """What was measured since the last call, by node, oldest first."""
        ...

    def counts(self) -> dict[str, int]:
        """Sums since the start, by what was counted (docs/metrics.md)."""
        ...

    def problems(self) -> tuple[str, ...]:
        """What does not work, one sentence each."""
        ...
