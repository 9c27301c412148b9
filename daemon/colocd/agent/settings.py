"""The agent's configuration file (TOML), /etc/coloc/agent.toml."""

from pathlib import Path

import msgspec

from colocd.errors import BadConfig
from colocd.toml import LIMIT, Document
from colocd.units import Rule, absolute_path, duration, host_port, one_line

DEFAULT_PATH = Path("/etc/coloc/agent.toml")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    server: str
    """Where colocd listens for agents: `host:port`, an IPv6 address in brackets."""
    node: str | None = None
    """This node's name in Slurm. Not set: the host's name up to the first dot."""
    period: float = 5.0
    """A sample is taken this often."""
    send_every: float = 10.0
    """Samples are sent this often."""
    keep: float = 3600.0
    """Samples that colocd could not be given yet are kept this long, in memory."""
    munge_socket: str | None = None
    """munged's socket. Not set: munge's default."""
    reader: int = 0
    """Number of the user whom colocd runs as; nobody else can read what is sent."""
    faults: str | None = "/run/coloc-agent/xids"
    """Where critical XIDs are remembered until the node is started again."""


RULES: dict[str, Rule] = {
    "server": Rule(check=host_port),
    "node": Rule(check=one_line),
    "period": duration(high=600.0),
    "send_every": duration(high=3600.0),
    "keep": duration(high=86400.0),
    "munge_socket": Rule(check=absolute_path),
    "reader": Rule(low=0, high=2**32 - 2),
    "faults": Rule(check=absolute_path),
}


def load_settings(path: Path) -> Settings:
    """Read the file; raises `BadConfig` with file, line, key and reason."""
    try:
        with path.open("rb") as file:
            text = file.read(LIMIT + 1).decode("utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror or 'cannot be read'}", "see systemd/agent.toml.example") from None
    except UnicodeDecodeError:
        raise BadConfig(f"{path}: is not UTF-8 text") from None
    document = Document(text, str(path), BadConfig)
    settings = document.build(Settings, RULES)
    if settings.send_every < settings.period:
        document.complain(("send_every",), "must not be shorter than period")
    document.finish()
    return settings
