"""What a service owner asks for: the meaning of a service file."""

from enum import StrEnum
from typing import Literal

import msgspec

from coloc_topology.shape import Level

LinkLevel = Literal["NVLINK", "NVLINK_PARTIAL", "PIX", "PXB", "PHB", "NODE", "SYS"]


class Mode(StrEnum):
    """How firmly the link level is asked for."""

    GUARANTEED = "guaranteed"
    BEST_EFFORT = "best-effort"


class Measure(StrEnum):
    """Which reading of a replica is its load."""

    CONCURRENCY = "concurrency"
    """Requests running plus waiting."""
    TOKENS = "tokens_per_s"
    """Prompt and generated tokens per second."""
    GENERATED = "generation_tokens_per_s"
    """Generated tokens per second: what loads a decode group."""
    PROMPT = "prompt_tokens_per_s"
    """Prompt tokens per second: what loads a prefill group."""
    BUSY = "busy_gpus"
    """GPUs' worth of time in which kernels ran, for servers that tell nothing themselves."""


class Closeness(StrEnum):
    """How near each other several nodes of one replica, or two services that belong together, must be; closest first."""

    NVLINK = "nvlink"
    """One NVLink domain."""
    LEAF = "leaf"
    """One leaf switch."""
    BLOCK = "block"
    """One block."""
    ANY = "any"


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica carries: `per_replica` in units of the load measure, planned to be used up to `target_use` (0..1]."""

    per_replica: float
    target_use: float = 0.8
    learn: bool = True
    """Whether `per_replica` is only the start and coloc learns better; False: it holds as it is."""


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies the service promises, in seconds, for nine of ten requests; None: none."""

    ttft: float | None = None
    """Time to the first token."""
    tpot: float | None = None
    """Time per output token after it."""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """HTTP ready check: GET `url` answers 2xx. None as url: ready as soon as the job runs. `timeout` in seconds."""

    url: str | None = None
    timeout: float = 600.0


class Draining(msgspec.Struct, frozen=True, kw_only=True):
    """How the service's router learns that a replica takes no new requests. Seconds."""

    url: str | None = None
    """POST here when a drain begins; None: no call."""
    hook: str | None = None
    """Name of a program in the site's hook folder; None: none."""
    timeout: float = 10.0
    """Longest time for each of them."""
    settle: float = 0.0
    """A replica without requests is not ended before this long after its drain began."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Where load is read: Prometheus text at `url`, per replica if it contains `{address}` or `{port}`, else once."""

    url: str = ""
    """Empty: the load is read from the GPUs themselves (`busy_gpus`)."""
    measure: Measure = Measure.CONCURRENCY
    server: str = "vllm"
    series: dict[str, str] = msgspec.field(default_factory=dict)
    """Fact to the name of the series that tells it; comes before the server's own names."""


class ServiceSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One service. Durations are seconds.

    `script` is the batch script of a replica. coloc passes COLOC_SERVICE, COLOC_SLOT, COLOC_PORT (= `port_base` + slot) and
    COLOC_ADDRESS in its environment. URLs may use `{address}` (Slurm's NodeAddr), `{node}`, `{port}` and `{slot}`.
    """

    name: str
    user: str
    partition: str
    script: str
    gpus_per_replica: int
    capacity: Capacity
    load: Load
    link_level: LinkLevel = "NVLINK"
    mode: Mode = Mode.GUARANTEED
    min_replicas: int = 1
    max_replicas: int = 1
    cpus_per_replica: int = 1
    port_base: int = 8000
    ready: Ready = Ready()
    slo: Slo = Slo()
    drain: Draining = Draining()
    drain_grace: float = 60.0
    lead_time: float = 120.0
    priority: int = 0
    """Which service goes first when GPUs are short: higher first."""
    season: float = 86400.0
    """Length of the load's cycle: a day."""
    sbatch_options: tuple[str, ...] = ()
    nodes: int = 1
    """Nodes of one replica, `gpus_per_replica` GPUs on each."""
    closeness: Closeness = Closeness.ANY
    """How near these nodes must be; as firmly as `mode` says."""
    spread: bool = False
    """No two replicas of the service on one node."""
    beside: str | None = None
    """A service (decode, for the prefill one) whose replicas must be near: one NVLink domain if it fits, else one leaf."""
    like: str | None = None
    """A service whose load has the same shape: its history, scaled, stands in until this one has seven days of its own."""

    @property
    def level(self) -> Level:
        """The link level asked for, as an ordered value."""
        return Level[self.link_level]
