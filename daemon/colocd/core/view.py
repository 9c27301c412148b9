"""The view: everything one cycle knows, immutable, as one documented JSON document.

Times are Unix seconds (UTC); GPU sets are bit masks over Slurm's GPU indices. None always means unknown, never zero.
The JSON form is versioned by `VIEW_VERSION` and described in docs/view.md.
"""

from enum import StrEnum

import msgspec

from coloc_topology.shape import Shape, mask_of
from colocd.core.brief import HandoverBrief as HandoverBrief
from colocd.core.capacity import Carries
from colocd.core.delays import Delays as Delays
from colocd.core.lead import Lead
from colocd.core.marks import Checkpoint as Checkpoint
from colocd.core.marks import Request as Request
from colocd.core.policy import Policy
from colocd.core.quota import Quota
from colocd.core.readings import FailedGpu as FailedGpu
from colocd.core.readings import NodeReadings as NodeReadings
from colocd.core.readings import Reading as Reading
from colocd.core.service import ServiceSpec
from colocd.core.surge import Surge

VIEW_VERSION = 2


class JobState(StrEnum):
    """Slurm's job states, folded to what coloc must tell apart."""

    PENDING = "pending"
    CONFIGURING = "configuring"
    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETING = "completing"
    DONE = "done"
    FAILED = "failed"
    """Any end other than COMPLETED: failed, cancelled, timeout, node failure, out of memory, deadline, boot failure."""
    OTHER = "other"


class Held(StrEnum):
    """Who holds a pending job."""

    NO = "no"
    USER = "user"
    ADMIN = "admin"


class Job(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One Slurm job as Slurm tells it.

    `ref` is the id that Slurm's commands take (`17`, or `17_3` for an array task) and the key everywhere in coloc.
    `gpus` maps node to GPU mask while the job holds GPUs; None: it holds some, but which could not be read.
    `checkpoint` is None for a job that is not coloc's to manage.
    `dependency`: what it waits for, in Slurm's words. `begins`: its begin time while it is held. None: none known.
    """

    ref: str
    user: str
    name: str
    partition: str
    state: JobState
    reason: str | None = None
    gpus: dict[str, int] | None = msgspec.field(default_factory=dict)
    gpus_requested: int = 0
    gpus_per_node: int | None = None
    nodes_requested: int = 1
    cpus_requested: int = 1
    submitted: float | None = None
    started: float | None = None
    ends: float | None = None
    time_limit: float | None = None
    restarts: int = 0
    held: Held = Held.NO
    required_nodes: tuple[str, ...] = ()
    reservation: str | None = None
    comment: str = ""
    checkpoint: Checkpoint | None = None
    request: Request | None = None
    """The job's own wish for a place; None: it has none, Slurm alone decides."""
    unplaced: str | None = None
    """Why coloc leaves a job with such a wish to Slurm, because of what else it asks; None: nothing else is known."""
    uid: int | None = None
    qos: str | None = None
    dependency: str | None = None
    begins: float | None = None

    @property
    def order(self) -> tuple[int, int]:
        """Numeric order of the job id, the last tiebreak of every choice."""
        head, _, tail = self.ref.partition("_")
        return (int(head), int(tail) if tail.isdigit() else -1)


class Node(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One node. `up`: Slurm would start jobs there. `used`: GPUs Slurm has given out; None: could not be read.

    `shape` names an entry of `View.shapes`; None: topology unknown, then nothing is guaranteed there.
    `types[i]` is the gres type of GPU i (empty string: untyped). `fence`: name of coloc's reservation on it, if any.
    `nvlink_domain` (one that spans nodes), `leaf` (its leaf switch), `block`: None: none, or not known.
    """

    name: str
    address: str
    up: bool
    gpus: int
    used: int | None
    shape: str | None = None
    types: tuple[str, ...] = ()
    state: str = ""
    partitions: tuple[str, ...] = ()
    cpus: int | None = None
    cpus_used: int | None = None
    fence: str | None = None
    reserved: bool = False
    """Somebody else's reservation covers it now: no fills, no reclaims."""
    nvlink_domain: str | None = None
    leaf: str | None = None
    block: str | None = None
    unfit: tuple[FailedGpu, ...] = ()
    """GPUs that have failed: never free, whatever Slurm thinks."""

    @property
    def free(self) -> int:
        """Mask of GPUs known to be free and not failed: none when the node is not up or `used` is unknown."""
        if not self.up or self.used is None:
            return 0
        return ((1 << self.gpus) - 1) & ~self.used & ~self.failed

    @property
    def failed(self) -> int:
        """Mask of the GPUs that have failed."""
        return mask_of(failed.gpu for failed in self.unfit)


class ReplicaState(StrEnum):
    """Life of a replica."""

    PLACING = "placing"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of a service. `job` None: not submitted yet. `load` None: not readable now.

    `places`: its GPUs by node. `node`: the one of them on which its script runs and serves.
    """

    service: str
    slot: int
    state: ReplicaState
    job: str | None = None
    node: str | None = None
    places: dict[str, int] = msgspec.field(default_factory=dict)
    level: str | None = None
    load: float | None = None
    since: float | None = None
    kv_use: float | None = None
    """How full its KV cache is, 0 to 1; None: not told."""
    hits: float | None = None
    """Share of prompt tokens found in its prefix cache lately, 0 to 1; None: not told."""


class Quantiles(msgspec.Struct, frozen=True):
    """Foreseen load `ahead` seconds from the view's time: value per quantile, in ascending order of quantile."""

    ahead: float
    values: dict[str, float]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """How well a service's load was foreseen `ahead` seconds before it came, lately; `seen`: values that came true so far."""

    ahead: float
    wape: float
    """Mean absolute error ÷ mean load; `persistence`: the same for the last value told again."""
    persistence: float
    covered95: float
    """Share at or below the 0.95 quantile."""
    seen: int
    used: str
    """The forecaster with the most weight."""
    lost: bool = False  # the own forecast did worse than the last value lately: the last value is told instead


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """Foreseen load of a service. `trust` 0..1, None: not known yet. `basis` says in words what it rests on.

    `step`: seconds between points; times for which nothing can be said have none.
    """

    points: tuple[Quantiles, ...]
    step: float
    trust: float | None
    basis: str
    records: tuple[Record, ...] = ()
    """Own error lately, a horizon each."""


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """A service with all that is known of it now. `load` None: unknown (never zero), so nothing of it is given away.

    `low_since`: since when the load needs fewer replicas than there are; None: it does not.
    """

    spec: ServiceSpec
    replicas: tuple[Replica, ...] = ()
    load: Reading | None = None
    forecast: Forecast | None = None
    low_since: float | None = None
    retry_at: float | None = None
    """No placement is tried before this time, after one failed."""
    removed: bool = False
    """The service file was removed: drain all replicas."""
    recent: float | None = None
    """Highest load read within the last `scale_down_after` seconds: what has only just gone may come back."""
    capacity: Carries | None = None
    """What one replica carries; None: what the service file says."""
    lead: Lead | None = None
    """From the decision to a ready replica; None: what the service file says."""
    surge: Surge | None = None
    """What the load read now may grow by until a replica is ready; None: too little is known, or nothing is added."""


class JobFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What coloc remembers of a batch job that Slurm does not: keyed by `ref` in `View.facts`."""

    evictions: int = 0
    evicted_at: float | None = None
    released_at: float | None = None
    """When it was released, or Slurm could first start it after that; None: never, or taken back since."""
    ever_released: bool = False
    retry_at: float | None = None
    ours: bool = False
    """The present hold was placed by coloc (requeue-and-hold, or taken back)."""
    pinned: bool = False
    """The required nodes were set by coloc, not by the user."""
    tag: float | None = None
    """Its place in the fair queue, in virtual GPU-seconds: the smallest goes first. None: it does not wait for its turn."""
    ran: float = 0.0
    """Seconds it has run in earlier runs, whether or not their work was saved."""
    deaths: int = 0
    """How often in a row it ended soon after a resume without having saved anything new."""
    parked: str | None = None
    """Why coloc does not start it until it is unparked; None: it does."""
    deadline: float | None = None
    """The first deadline that its user told (Unix seconds); later ones do not count."""
    answered: int = 0
    """How often it acknowledged in time when it was told to save; while it was never told: its user's jobs of its kind."""
    silent: int = 0
    """How often it did not, although it had all the time it asks for."""
    took: float | None = None
    """Seconds from being told to its last answer; None: it was silent the last time, or never told."""
    alike: bool = False
    """The last three are those of its user's other jobs of the same kind of name."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot. `at` is its time; everything the planner needs, and nothing it must look up elsewhere."""

    version: int = VIEW_VERSION
    at: float
    mode: str = "advise"
    paused: str | None = None
    """Why coloc is paused; None: it is not."""
    slurm: str = ""
    policy: Policy = Policy()
    shapes: dict[str, Shape] = msgspec.field(default_factory=dict)
    nodes: tuple[Node, ...] = ()
    jobs: tuple[Job, ...] = ()
    facts: dict[str, JobFacts] = msgspec.field(default_factory=dict)
    services: tuple[ServiceView, ...] = ()
    handovers: tuple[HandoverBrief, ...] = ()
    gpus: dict[str, NodeReadings] = msgspec.field(default_factory=dict)
    """Fresh readings by node, from coloc-agent or Prometheus; nodes of which nothing is known are missing."""
    runs: dict[str, tuple[float, ...]] = msgspec.field(default_factory=dict)
    """Seconds that ended jobs ran, ascending, by `user/kind of job name` and by `user/`: what run times are guessed from."""
    evicted: dict[str, int] = msgspec.field(default_factory=dict)
    """Evictions within the last hour, by user."""
    quota: Quota = Quota()
    delays: Delays = Delays()
    overrides: dict[str, str] = msgspec.field(default_factory=dict)
    """Services whose next reclaim ignores the budgets, and by whose word."""
    problems: tuple[str, ...] = ()
    """Readings that failed in this cycle, one sentence each."""


def encode_view(view: View) -> bytes:
    """The view as canonical JSON: same view, same bytes."""
    return msgspec.json.format(msgspec.json.encode(view, order="deterministic"), indent=2) + b"\n"


def decode_view(data: bytes) -> View:
    """Read a view document; raises `msgspec.ValidationError` or `msgspec.DecodeError` with the path of what is wrong."""
    return msgspec.json.decode(data, type=View)
