"""The daemon's configuration file (TOML), /etc/coloc/colocd.toml; COLOC_CONFIG overrides the path."""

import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from coloc_topology.errors import TopologyError
from coloc_topology.hostlist import expand
from colocd.config_forecast import FORECAST_RULES, ForecastConfig
from colocd.config_telemetry import TELEMETRY_RULES, TelemetryConfig
from colocd.core.policy import Policy
from colocd.errors import BadConfig
from colocd.policy_rules import POLICY_RULES
from colocd.toml import LIMIT, Document
from colocd.units import LONG, Rule, absolute_path, duration, one_line, socket_path

DEFAULT_PATH = Path("/etc/coloc/colocd.toml")


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where history and intents are kept."""

    url: str = "sqlite:////var/lib/coloc/coloc.db"
    """An SQLAlchemy URL: `sqlite:////absolute/path.db` or `postgresql+psycopg://user@host/name`."""
    keep_load: float = 400 * 86400.0
    """How long load history is kept at all: after `keep_minutes` as ten-minute means, peaks and counts."""
    keep_minutes: float = 28 * 86400.0
    """How long load history is kept by the minute."""
    keep_raw: float = 3 * 3600.0
    """How long single load samples are kept (at least until they are rolled up to minutes, an hour or two)."""
    keep_decisions: float = 90 * 86400.0
    """Seconds of decisions, intents and handovers kept."""
    keep_runs: float = 400 * 86400.0
    """Seconds for which runs of batch jobs are kept: what `coloc report` can look back."""


class SlurmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How Slurm is reached."""

    adapter: Literal["auto", "cli", "pyslurm"] = "auto"
    """`cli`: Slurm's client commands. `pyslurm`: the library of that name. `auto`: pyslurm where one that matches is there."""
    conf: str | None = None
    """Path of slurm.conf. Not set: Slurm's own default."""
    bin_dir: str | None = None
    """Folder of Slurm's commands. Not set: found on PATH."""
    pyslurm_python: str | None = None
    """The Python that has pyslurm. Not set: colocd's own."""
    timeout: float = 10.0
    """Longest wait for one call to Slurm."""
    calls_per_minute: int = 600
    """Commands sent to slurmctld in the long run, at most (120 may come at once)."""


class TopologySource(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Topology of some nodes (`[[topology.sources]]`, any number of them)."""

    nodes: str
    """The nodes, as Slurm writes them: `n[1-4],gpu07`."""
    file: str
    """A file of one of these nodes, in Slurm's GPU order: what `coloc topo import` makes, or `nvidia-smi topo -m`."""


class TopologyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the shapes of nodes come from: `sources` first, else Slurm's gres.conf (`Links=`, `Cores=`)."""

    gres_conf: str | None = None
    """Path of gres.conf. Not set: beside slurm.conf."""
    sources: tuple[TopologySource, ...] = ()
    """See `[[topology.sources]]` below."""


class CycleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The timetable."""

    period: float = 10.0
    """A cycle (observe, foresee, plan, act) starts this often."""
    handover_period: float = 0.2
    """Open handovers are looked at this often after a change, then less and less often (at most every 2 s)."""
    wake_file: str | None = None
    """A file that Slurm's EpilogSlurmctld touches when a job ends: the next cycle then comes at once. Not set: none."""


class HookConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command of the site's that is told of evictions, for example to send a mail ([hook.md](hook.md))."""

    evicted: tuple[str, ...] = ()
    """The program (an absolute path) and its arguments; never a shell. Empty: none is called."""
    timeout: float = 30.0
    """It is ended after this long."""


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The Unix sockets on which colocd answers."""

    socket: str = "/run/coloc/coloc.sock"
    """For everybody: read only."""
    admin_socket: str = "/run/coloc/admin.sock"
    """For operators: everything."""
    group: str | None = None
    """Group that may use `admin_socket`, besides root and colocd's own user. Not set: nobody else."""


class RoutingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the site's routers learn which replicas take requests."""

    endpoints: str | None = None
    """Folder, coloc's own, for lists of ready replicas (Prometheus file_sd, HAProxy, nginx). Not set: none are written."""
    hooks: str | None = None
    """Folder of the programs that service files may name as `drain.hook`, root's alone. Not set: none is run."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    mode: Literal["advise", "act"] = "advise"
    """`advise` decides, records and explains, and touches nothing; `act` also carries it out."""
    database: DatabaseConfig = DatabaseConfig()
    slurm: SlurmConfig = SlurmConfig()
    topology: TopologyConfig = TopologyConfig()
    cycle: CycleConfig = CycleConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    forecast: ForecastConfig = ForecastConfig()
    policy: Policy = Policy()
    api: ApiConfig = ApiConfig()
    hook: HookConfig = HookConfig()
    routing: RoutingConfig = RoutingConfig()


def _database_url(value: str) -> str | None:
    said = one_line(value)
    if said is not None:
        return said
    scheme, found, rest = value.partition("://")
    if found and scheme == "sqlite":
        path = rest.partition("?")[0]
        good = path.startswith("//") and path.strip("/")
        return None if good else "must name an absolute path: sqlite:////absolute/path.db (four slashes)"
    if found and scheme == "postgresql+psycopg":
        return None if rest else "must name a database: postgresql+psycopg://user@host/name"
    return "must start with sqlite:/// or postgresql+psycopg://"


def _nodes(value: str) -> str | None:
    try:
        return None if expand(value) else "must name a node"
    except TopologyError as wrong:
        return wrong.reason


RULES: dict[str, Rule] = {
    "mode": Rule(),
    "database.url": Rule(check=_database_url),
    "database.keep_load": duration(high=LONG),
    "database.keep_minutes": duration(high=LONG),
    "database.keep_raw": duration(high=LONG),
    "database.keep_decisions": duration(high=LONG),
    "database.keep_runs": duration(high=LONG),
    "slurm.adapter": Rule(),
    "slurm.conf": Rule(check=absolute_path),
    "slurm.bin_dir": Rule(check=absolute_path),
    "slurm.pyslurm_python": Rule(check=absolute_path),
    "slurm.timeout": duration(high=600.0),
    "slurm.calls_per_minute": Rule(low=30, high=100_000),
    "topology.gres_conf": Rule(check=absolute_path),
    "topology.sources": Rule(),
    "topology.sources[].nodes": Rule(check=_nodes),
    "topology.sources[].file": Rule(check=absolute_path),
    "cycle.period": duration(high=3600.0),
    "cycle.handover_period": duration(high=60.0),
    "cycle.wake_file": Rule(check=absolute_path),
    **TELEMETRY_RULES,
    **POLICY_RULES,
    **FORECAST_RULES,
    "api.socket": Rule(check=socket_path),
    "api.admin_socket": Rule(check=socket_path),
    "api.group": Rule(check=one_line),
    "hook.evicted": Rule(check=lambda words: absolute_path(words[0]) if words else None),
    "hook.evicted[]": Rule(check=one_line),
    "hook.timeout": duration(high=600.0),
    "routing.endpoints": Rule(check=absolute_path),
    "routing.hooks": Rule(check=absolute_path),
}
"""Range and unit of every key; a test walks the Structs and proves that none is missing."""


def parse_config(text: str, filename: str) -> Config:
    """Read the text of a configuration file; raises `BadConfig` with file, line, key and reason."""
    document = Document(text, filename, BadConfig)
    config = document.build(Config, RULES)
    if config.api.socket == config.api.admin_socket:
        document.complain(("api", "admin_socket"), "must differ from api.socket, which is open to everybody")
    if config.cycle.handover_period > config.cycle.period:
        document.complain(("cycle", "handover_period"), "must not be longer than cycle.period")
    document.finish()
    return config


def config_path(path: Path | None, environ: Mapping[str, str]) -> Path:
    """Which file is read: `path`, else COLOC_CONFIG, else /etc/coloc/colocd.toml."""
    return path if path is not None else Path(environ.get("COLOC_CONFIG") or DEFAULT_PATH)


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read the configuration file (see `config_path`); raises `BadConfig`, also when there is none."""
    chosen = config_path(path, environ)
    return parse_config(_read(chosen), str(chosen))


def check_config(path: Path) -> list[str]:
    """Warnings about a file that is legal but odd, one sentence each; raises `BadConfig` when it is not legal."""
    config = load_config(path, {})
    return [f"{path}: {warning}" for warning in (*config_warnings(config), *_file_warnings(path, config))]


def config_warnings(config: Config) -> list[str]:
    """Legal values that are hardly meant, one sentence each."""
    return list(_odd(config))


def _odd(config: Config) -> Iterable[str]:
    cycle, policy = config.cycle, config.policy
    if policy.stale_after < 2 * cycle.period:
        yield (
            "policy.stale_after is less than two cycles (cycle.period): one missed reading makes a load unknown, "
            "and nothing is given to batch jobs then"
        )
    if cycle.period < 2.0:
        yield "cycle.period is below 2 seconds: every cycle asks slurmctld several times"
    if config.slurm.timeout > 6 * cycle.period:
        yield "slurm.timeout is longer than six cycles: one slow answer stops coloc for that long"
    if policy.peak_quantile < 0.5:
        yield "policy.peak_quantile is below 0.5: peaks will often come without GPUs"
    if policy.valley_quantile < 0.5:
        yield "policy.valley_quantile is below 0.5: batch jobs will often be evicted soon after their start"
    if policy.grace < 10.0:
        yield "policy.grace is below 10 seconds: hardly any job can checkpoint in that time"
    if policy.grace > 3600.0:
        yield "policy.grace is above an hour: an emergency reclaim may take that long"
    if policy.max_evictions_per_job == 0:
        yield "policy.max_evictions_per_job is 0: no batch job is ever a victim, so GPUs only come back when jobs end"
    if policy.emergency_grace > policy.grace:
        yield "policy.emergency_grace is above policy.grace, which bounds it"
    if policy.max_unsaved == 0:
        yield "policy.max_unsaved is 0: lost work counts for nothing when victims are chosen"
    if config.database.keep_raw > 2 * 86400.0:
        yield "database.keep_raw is above two days: 200 services write 50 to 200 MB of single samples a day"
    if config.database.keep_load < 3 * 86400.0:
        yield "database.keep_load is below three days: the forecast has few earlier days to learn from"


def _file_warnings(path: Path, config: Config) -> Iterable[str]:
    userinfo, found, _ = config.database.url.partition("://")[2].rpartition("@")
    if found and ":" in userinfo and path.stat().st_mode & stat.S_IROTH:
        yield "database.url holds a password and everybody can read the file; chmod 0640 it"


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "does not exist"
            raise BadConfig(f"{path} {what}", "create it (see systemd/colocd.toml.example) or set COLOC_CONFIG")
        with path.open("rb") as file:
            data = file.read(4 * LIMIT + 1)
        return data.decode("utf-8")
    except (OSError, ValueError) as wrong:
        if isinstance(wrong, UnicodeDecodeError):
            line = wrong.object[: wrong.start].count(b"\n") + 1
            raise BadConfig(f"{path}:{line}: is not UTF-8 text") from None
        reason = wrong.strerror if isinstance(wrong, OSError) else wrong
        raise BadConfig(f"{str(path)!r:.300} cannot be read: {reason}", "check the path and its rights") from None
