"""Which sources of GPU readings the configuration asks for."""

from colocd.clock import Clock
from colocd.config import Config
from colocd.gpus.agents import Agents
from colocd.gpus.prometheus import Prometheus


def open_sources(config: Config, clock: Clock) -> tuple[Agents | Prometheus, ...]:
    """The configured sources, not started; raises `BadConfig`, and `NotFound` without libmunge."""
    told = config.telemetry
    sources: list[Agents | Prometheus] = []
    if told.agents.listen is not None:
        sources.append(Agents(told.agents, clock))
    if told.prometheus.url is not None:
        sources.append(Prometheus(told.prometheus, clock, config.cycle.period, config.policy.stale_after))
    return tuple(sources)
