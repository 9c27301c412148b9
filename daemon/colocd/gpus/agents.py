"""The agents as a source of GPU readings: port, identity and intake together."""

import pwd

from colocd.clock import Clock
from colocd.config_telemetry import AgentsConfig
from colocd.errors import BadConfig
from colocd.gpus.identity import Identity
from colocd.gpus.intake import Intake
from colocd.gpus.listener import Listener
from colocd.gpus.seen import Seen, Spell
from colocd.munge import Munge
from colocd.units import split_address

SAID_FOR = 300.0
"""Seconds for which a refused agent stays among the problems after its last try."""


class Agents:
    """Implements `GpuSource`. `start` opens the port, `stop` closes it."""

    def __init__(self, config: AgentsConfig, clock: Clock) -> None:
        """Raises `BadConfig` for a user whom this host does not know."""
        where = split_address(config.listen or "")
        if where is None:
            raise BadConfig("telemetry.agents.listen: must be host:port")
        self._clock = clock
        self.intake = Intake()
        self._identity = Identity(_uid(config.user), config.hosts, clock)
        self.listener = Listener(where[0], where[1], Munge(config.munge_socket), self._identity, self.intake, clock)

    def start(self) -> None:
        """Open the port; raises `BadConfig`."""
        self.listener.start()

    def stop(self) -> None:
        """Close it."""
        self.listener.stop()

    def expect(self, addresses: dict[str, str]) -> None:
        """See `GpuSource.expect`."""
        self._identity.expect(addresses)
        self.intake.keep(set(addresses))

    def latest(self) -> dict[str, Seen]:
        """See `GpuSource.latest`."""
        return self.intake.latest()

    def drain(self) -> dict[str, list[Spell]]:
        """See `GpuSource.drain`."""
        return self.intake.drain()

    def counts(self) -> dict[str, int]:
        """See `GpuSource.counts`."""
        taken = self.intake.count._asdict()
        return {**taken, **{f"refused-{kind}": count for kind, count in self.listener.refused.copy().items()}}

    def problems(self) -> tuple[str, ...]:
        """See `GpuSource.problems`."""
        now = self._clock.monotonic()
        noted = self.listener.noted
        for who in [who for who, (at, _) in list(noted.items()) if now - at > SAID_FOR]:
            noted.pop(who, None)
        told = [f"readings from {who} are refused: {why}" for who, (_, why) in sorted(noted.copy().items())[:8]]
        return tuple(told if self._identity.problem is None else [self._identity.problem, *told])


def _uid(user: str) -> int:
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise BadConfig(
            f"telemetry.agents.user: this host has no user {user}",
            "create the user (systemd/coloc-agent.sysusers), with the same number on all nodes, or give the number",
        ) from None
