"""The daemon's configuration file (TOML), /etc/coloc/colocd.toml; COLOC_CONFIG overrides the path."""

from typing import Literal

import msgspec

from colocd.core.policy import Policy


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where history and intents are kept: an SQLAlchemy URL (`sqlite:///…` or `postgresql+psycopg://…`)."""

    url: str = "sqlite:////var/lib/coloc/coloc.db"
    keep_load: float = 8 * 7 * 86400.0
    """Seconds of load history kept."""
    keep_decisions: float = 90 * 86400.0
    """Seconds of decisions, intents and handovers kept."""


class SlurmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How Slurm is reached. `conf` None: Slurm's own default. `bin_dir` None: found on PATH."""

    adapter: Literal["auto", "cli"] = "auto"
    conf: str | None = None
    bin_dir: str | None = None
    timeout: float = 10.0


class TopologySource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Topology of some nodes: a file with the output of `nvidia-smi topo -m` of one of them, in Slurm's GPU order."""

    nodes: str
    file: str


class TopologyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where shapes come from: `sources` first, else Slurm's gres.conf (`Links=`, `Cores=`). None: beside slurm.conf."""

    gres_conf: str | None = None
    sources: tuple[TopologySource, ...] = ()


class CycleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The timetable, in seconds: a cycle every `period`, open handovers stepped every `handover_period`."""

    period: float = 10.0
    handover_period: float = 0.2
    horizon: float = 86400.0


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Unix sockets: `socket` for everybody (read only), `admin_socket` for operators (group `group`)."""

    socket: str = "/run/coloc/coloc.sock"
    admin_socket: str = "/run/coloc/admin.sock"
    group: str | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file. `mode = "advise"` decides, records and explains, and touches nothing."""

    mode: Literal["advise", "act"] = "advise"
    database: DatabaseConfig = DatabaseConfig()
    slurm: SlurmConfig = SlurmConfig()
    topology: TopologyConfig = TopologyConfig()
    cycle: CycleConfig = CycleConfig()
    policy: Policy = Policy()
    api: ApiConfig = ApiConfig()
