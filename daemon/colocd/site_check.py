"""What of a site's Slurm stands in coloc's way: findings about one reading of it. Explained in docs/site-policies.md."""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

import msgspec

from colocd.clock import Clock
from colocd.config import Config
from colocd.core.delays import Delays, delays_of
from colocd.core.policy import Share
from colocd.core.view import Node
from colocd.errors import SlurmRefused, SlurmUnreachable
from colocd.slurm.port import Cluster, Partition, Site, SlurmPort

LONG_KILL_WAIT = 120.0
KEPT = 600.0
"""Seconds between two looks at the set-up: it changes with an operator's `scontrol reconfigure`."""
OLDEST = (22, 5)
_MIG = re.compile(r"\d+g\.\d+gb")
_HIDING = ("jobs", "nodes", "partitions", "reservations")


class Weight(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """coloc cannot work: in mode `act` it stays paused."""
    WARNING = "warning"
    """coloc works, but not as one would expect."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was found, one sentence, and the next step."""

    weight: Weight
    text: str
    hint: str


def examine(site: Site, cluster: Cluster, config: Config) -> tuple[Finding, ...]:
    """All findings, errors first, in a fixed order."""
    found = [*_rights(site), *_slurm(site), *_partitions(site, cluster, config), *_preemption(site, cluster, config)]
    found += [*_weights(site, config), *_submitting(site, cluster, config), *_nodes(cluster.nodes, config)]
    return tuple(sorted(found, key=lambda f: f.weight is not Weight.ERROR))


def blocking(findings: Iterable[Finding]) -> str | None:
    """The sentence why coloc must not act here; None: nothing is in the way."""
    worst = [f for f in findings if f.weight is Weight.ERROR]
    return f"{worst[0].text}; {worst[0].hint}" if worst else None


class SiteWatch:
    """Looks at how Slurm is set up, now and then, and remembers what it found."""

    @property
    def hides_jobs(self) -> bool:
        """Whether Slurm hides people's jobs from each other, as far as is known."""
        return self._site is not None and "jobs" in self._site[0].settings.get("PrivateData", "").split(",")

    @property
    def delays(self) -> Delays:
        """Slurm's own delays, as far as is known."""
        return Delays() if self._site is None else delays_of(self._site[0].settings)

    def __init__(self, slurm: SlurmPort, clock: Clock) -> None:
        self._slurm = slurm
        self._clock = clock
        self._site: tuple[Site, float] | None = None

    def look(self, cluster: Cluster, config: Config) -> tuple[Finding, ...]:
        """Findings by the newest reading of the set-up; raises `SlurmUnreachable` while there is none yet."""
        now = self._clock.monotonic()
        if self._site is None or now - self._site[1] > KEPT:
            try:
                self._site = (self._slurm.site(), now)
            except (SlurmUnreachable, SlurmRefused):
                if self._site is None:
                    raise
        return examine(self._site[0], cluster, config)

    def weigh(self, config: Config) -> Config:
        """The configuration with the users' weights by Slurm's fair-share, if they are to be taken from there and are known."""
        policy = config.policy
        told = self._site[0].shares if policy.weights == "slurm" and self._site is not None else None
        if not told:
            return config
        listed = {share.user for share in policy.shares}
        more = tuple(Share(user=user, weight=round(w, 4)) for user, w in sorted(told.items()) if user not in listed)
        return msgspec.structs.replace(config, policy=msgspec.structs.replace(policy, shares=policy.shares + more))


def _error(text: str, hint: str) -> Finding:
    return Finding(weight=Weight.ERROR, text=text, hint=hint)


def _warning(text: str, hint: str) -> Finding:
    return Finding(weight=Weight.WARNING, text=text, hint=hint)


def _weights(site: Site, config: Config) -> Iterator[Finding]:
    if config.policy.weights == "slurm" and not site.shares:
        db = "slurmdbd" in site.settings.get("AccountingStorageType", "")
        why = "`sshare -a` told none" if db else "AccountingStorageType is not slurmdbd"
        yield _warning(
            f"policy.weights is slurm, but Slurm's shares are unknown ({why}): users who are not listed have weight 1",
            "mend that, or set policy.weights to equal",
        )


def _rights(site: Site) -> Iterator[Finding]:
    hidden = [word for word in site.settings.get("PrivateData", "").split(",") if word in _HIDING]
    if site.privileged is False:
        yield _error(
            f"user {site.user} may not hold, requeue or update other people's jobs, nor make reservations",
            f"run colocd as root, or `sacctmgr modify user {site.user} set AdminLevel=Operator`",
        )
        if hidden:
            yield _error(
                f"PrivateData={','.join(hidden)} hides these from user {site.user}",
                "run colocd as root or as an operator, who see everything",
            )
    if site.privileged is None:
        yield _warning(
            f"what user {site.user} may do could not be read from slurmdbd", "check `sacctmgr show user` on this host"
        )
    if site.privileged is not False and site.user != "root":
        yield _warning(
            f"as user {site.user} colocd submits replicas of services of that user only: `sbatch --uid` is root's",
            f"let all services have user = {site.user!r}, or run colocd as root (docs/adr/0003)",
        )


def _slurm(site: Site) -> Iterator[Finding]:
    known = site.settings
    if site.federation is not None:
        yield _error(
            f"this cluster is a member of the federation {site.federation}: its jobs may be revoked and started elsewhere",
            "coloc does not work with federations; take the cluster out of it, or do without coloc",
        )
    version = tuple(int(part) for part in re.findall(r"\d+", known.get("SLURM_VERSION", ""))[:2])
    if version and version < OLDEST:
        yield _error(f"Slurm {known['SLURM_VERSION']} is too old", "coloc needs Slurm 22.05 or later")
    select = known.get("SelectType", "")
    if select and select != "select/cons_tres":
        yield _error(f"SelectType={select} does not give out single GPUs", "set SelectType=select/cons_tres")
    kinds = known.get("GresTypes", "gpu").split(",")
    if "gpu" not in kinds:
        yield _error("GresTypes does not name gpu", "add gpu to GresTypes in slurm.conf, and the GPUs to gres.conf")
    for kind in ("mps", "shard"):
        if kind in kinds:
            yield _warning(
                f"GresTypes names {kind}: a GPU of which a share is in use counts as used, and is not coloc's to free",
                f"keep {kind} jobs on nodes that coloc's partitions do not have",
            )
    kill_wait = delays_of(known).kill_wait
    if kill_wait is not None and kill_wait > LONG_KILL_WAIT:
        yield _warning(
            f"KillWait is {kill_wait:.0f} s: a victim that ignores TERM keeps its GPUs that much longer than its grace",
            "set KillWait to 30 to 60 s",
        )
    if known.get("SuspendProgram"):
        yield _warning(
            "Slurm powers idle nodes down (SuspendProgram): coloc counts such a node as not there and never wakes it",
            "name coloc's nodes in SuspendExcNodes",
        )


def _named(cluster: Cluster, names: Sequence[str]) -> list[Partition]:
    known = {p.name: p for p in cluster.partitions}
    return [known[name] for name in names if name in known]


def _partitions(site: Site, cluster: Cluster, config: Config) -> Iterator[Finding]:
    policy = config.policy
    known = {p.name for p in cluster.partitions}
    for key, names in (("batch_partitions", policy.batch_partitions), ("online_partitions", policy.online_partitions)):
        for name in names:
            if name not in known:
                yield _error(
                    f"policy.{key} names {name}, and Slurm has no such partition",
                    f"correct policy.{key}, or create the partition",
                )
    batch, online = _named(cluster, policy.batch_partitions), _named(cluster, policy.online_partitions)
    for part in (*batch, *online):
        if not part.up:
            yield _warning(
                f"partition {part.name} is not up: nothing starts in it",
                f"`scontrol update PartitionName={part.name} State=UP`",
            )
        if part.exclusive:
            yield (_error if part in online else _warning)(
                f"partition {part.name} gives whole nodes (OverSubscribe=EXCLUSIVE): one GPU asked for takes all",
                f"set OverSubscribe=NO for {part.name}",
            )
    shared = {n for p in batch for n in p.nodes} & {n for p in online for n in p.nodes}
    if batch and online and not shared:
        yield _error(
            "the batch and the online partitions have no node in common: there is nothing to share",
            "put both on the same GPU nodes, or correct policy.batch_partitions and policy.online_partitions",
        )
    top = max((p.tier for p in batch), default=None)
    for part in online:
        if top is not None and part.tier <= top and _preempts(site) == "none":
            yield _warning(
                f"partition {part.name} has PriorityTier={part.tier} and batch jobs have up to {top}: batch jobs that"
                " coloc does not manage may start before a waiting replica",
                f"give {part.name} a higher PriorityTier",
            )


def _preempts(site: Site) -> str:
    return (site.settings.get("PreemptType") or "preempt/none").removeprefix("preempt/")  # empty on 26.05


def _preemption(site: Site, cluster: Cluster, config: Config) -> Iterator[Finding]:
    kind = _preempts(site)
    if kind == "none":
        return
    batch = _named(cluster, config.policy.batch_partitions)
    online = _named(cluster, config.policy.online_partitions)
    if kind == "qos":
        yield _warning(
            "PreemptType=preempt/qos: jobs whose QOS may preempt that of batch jobs take GPUs by Slurm's choice, before"
            " coloc can choose",
            "let the QOS of services and of place requests preempt none (docs/site-policies.md)",
        )
        return
    for part in online:
        prey = [b.name for b in batch if b.preempt is not None and b.tier < part.tier]
        if prey:
            yield _warning(
                f"PreemptType=preempt/{kind}: a job that waits in {part.name} has Slurm preempt jobs of {', '.join(prey)},"
                " blind to NVLink and before coloc can choose",
                f"give {part.name} the PriorityTier of {prey[0]} and keep a partition of a higher tier for emergencies"
                " (docs/site-policies.md)",
            )


def _submitting(site: Site, cluster: Cluster, config: Config) -> Iterator[Finding]:
    known, online = site.settings, _named(cluster, config.policy.online_partitions)
    if site.user == "root":
        closed = ["DisableRootJobs=Yes"] if known.get("DisableRootJobs", "").lower() == "yes" else []
        closed += [f"DisableRootJobs=YES of partition {p.name}" for p in online if not p.root_jobs]
        for setting in closed:
            yield _warning(
                f"{setting}: coloc's plugs are jobs of root and are refused, so a guarantee holds only where any choice of"
                " GPUs is right",
                "allow jobs of root in the online partitions, or use a GPU type per island (docs/adr/0004)",
            )
    if known.get("JobSubmitPlugins"):
        yield _warning(
            f"JobSubmitPlugins={known['JobSubmitPlugins']} may change jobs: coloc's marks stand in the comment, and partition,"
            " node list, GPUs and reservation must stay as asked",
            "leave jobs whose comment begins with [coloc as they are (docs/site-policies.md)",
        )
    if known.get("JobRequeue") == "0":
        yield _warning(
            "JobRequeue=0: jobs are not requeued unless they say --requeue; coloc-sbatch says so",
            "none needed for jobs submitted with coloc-sbatch",
        )
    most = known.get("MaxJobCount", "")
    if most.isdigit() and len(cluster.jobs) > 0.9 * int(most):
        yield _warning(
            f"Slurm knows {len(cluster.jobs)} jobs and takes {most} (MaxJobCount): replicas may be refused soon",
            "raise MaxJobCount, or lower MinJobAge",
        )


def _nodes(nodes: Sequence[Node], config: Config) -> Iterator[Finding]:
    mine = {*config.policy.batch_partitions, *config.policy.online_partitions}
    ours = [node for node in nodes if mine & set(node.partitions) and node.gpus]
    if nodes and not ours:
        yield _error(
            "no node of coloc's partitions has GPUs", "check `sinfo -o '%N %G'`, and the partitions in the policy"
        )
    mig = [node.name for node in ours if any(_MIG.search(kind) for kind in node.types)]
    if mig:
        yield _warning(
            f"{len(mig)} nodes have MIG instances ({mig[0]} is one): no links join them, so only single ones can be guaranteed",
            "ask for gpus_per_replica = 1 there, or leave such nodes out of the online partitions",
        )
    blind = [node.name for node in ours if node.used is None]
    if blind:
        yield _warning(
            f"which GPUs of {blind[0]} are in use cannot be read ({len(blind)} nodes): nothing is planned there",
            f"look at GresUsed in `scontrol -d show node {blind[0]}`",
        )
