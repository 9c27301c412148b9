"""What a throw-away cluster consists of, and the configuration files that follow from it. Pure text, no I/O."""

import itertools

import msgspec

from coloc_topology.fit import fit_table
from coloc_topology.releases import habits, number
from coloc_topology.shape import Level, Shape, quads
from colocd.errors import ColocError

CORES_PER_SOCKET = 8
PARTITIONS = ("batch PriorityTier=1 Default=YES", "online PriorityTier=10")


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that another process needs to attach to the cluster; kept as `cluster.json` in its directory.

    `base` is the path that stands in Slurm's files: the directory itself, or a short link to it. `port` is slurmctld's;
    node k listens on `port + k`. `bin_dir`: where the commands are; `root`: a folder with a whole system to chroot into.
    `accounting`: with slurmdbd and a MariaDB of its own. `shards`: of all GPUs of a node together. `settings`:
    further lines of slurm.conf; `files`: further files beside it; `partitions`: each one's line without
    `PartitionName=` and `Nodes=`. `loopback`: the address of this host's own name, if that is a loopback address:
    the daemons can only be told to listen on that name. Otherwise they listen on all addresses, and the cluster's
    own munge key keeps strangers out.
    """

    base: str
    user: str
    port: int = 0
    nodes: int = 4
    shape: Shape = msgspec.field(default_factory=quads)
    gpu_type: str = "h100"
    typed_islands: bool = False
    links: bool = False
    cores: bool = True
    kill_wait: int = 5
    preempt: bool = False
    shards: int = 0
    accounting: bool = False
    settings: tuple[str, ...] = ()
    files: dict[str, str] = msgspec.field(default_factory=dict)
    partitions: tuple[str, ...] = PARTITIONS
    bin_dir: str | None = None
    root: str | None = None
    release: tuple[int, int] = (22, 5)
    loopback: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Node names, `n1` first."""
        return tuple(f"n{k}" for k in range(1, self.nodes + 1))

    @property
    def types(self) -> tuple[str, ...]:
        """The gres type of each GPU; empty strings: untyped."""
        if not self.typed_islands:
            return (self.gpu_type,) * self.shape.gpus
        islands = fit_table(self.shape).islands(Level.NVLINK)
        letter = {
            gpu: chr(ord("a") + k)
            for k, mask in enumerate(islands)
            for gpu in range(mask.bit_length())
            if mask >> gpu & 1
        }
        return tuple(f"{self.gpu_type}_{letter[gpu]}" for gpu in range(self.shape.gpus))

    @property
    def sockets(self) -> tuple[int, ...]:
        """The socket of each GPU, from the shape's cores, else its NUMA nodes, else all on socket 0."""
        shape = self.shape
        near: tuple[object, ...] = shape.cores if shape.cores and None not in shape.cores else shape.numa
        order = list(dict.fromkeys(near))
        return tuple(order.index(item) for item in near) or (0,) * shape.gpus


def release_of(said: str) -> tuple[int, int]:
    """Slurm's release from `slurmctld -V`: `slurm-wlm 22.05.8` gives (22, 5)."""
    found = number(said)
    if found is None:
        raise ColocError(f"slurmctld does not say its version but {said.strip()!r}", hint="check the Slurm packages")
    return found


def slurm_conf(spec: Spec) -> str:
    """The text of slurm.conf."""
    base, nodes, address = spec.base, f"n[1-{spec.nodes}]", spec.loopback or "127.0.0.1"
    kinds = [
        f"gpu:{kind}:{len(list(run))}" if kind else f"gpu:{len(list(run))}"
        for kind, run in itertools.groupby(sorted(spec.types))
    ]
    kinds += [f"shard:{spec.shards}"] if spec.shards else []
    preempt = ["PreemptType=preempt/partition_prio", "PreemptMode=REQUEUE"] if spec.preempt else []
    node_line = (
        f"NodeName={nodes} NodeHostname=localhost NodeAddr={address} Port=[{spec.port + 1}-{spec.port + spec.nodes}]"
        f" SocketsPerBoard={max(spec.sockets, default=0) + 1} CoresPerSocket={CORES_PER_SOCKET} RealMemory=1000"
        f" Gres={','.join(kinds)} State=UNKNOWN"
    )
    lines = [
        "ClusterName=coloctest",
        f"SlurmctldHost=localhost({address})",
        f"SlurmUser={spec.user}",
        f"SlurmdUser={spec.user}",
        f"SlurmctldPort={spec.port}",
        *(["CommunicationParameters=NoInAddrAny,NoCtldInAddrAny"] if spec.loopback else []),
        "AuthType=auth/munge",
        "CredType=cred/munge",
        # Without cred_expire a requeued job waits 121 s before it may start again.
        f"AuthInfo=socket={base}/run/munge.sock,cred_expire=5",
        f"StateSaveLocation={base}/state",
        f"SlurmdSpoolDir={base}/spool/%n",
        f"SlurmctldPidFile={base}/run/slurmctld.pid",
        f"SlurmdPidFile={base}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={base}/log/slurmctld.log",
        f"SlurmdLogFile={base}/log/slurmd-%n.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SlurmdParameters=config_overrides",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        f"GresTypes=gpu{',shard' if spec.shards else ''}",
        "ReturnToService=2",
        "MpiDefault=none",
        "PropagateResourceLimits=NONE",
        f"KillWait={spec.kill_wait}",
        # 22.05's default. That of later ones, multifactor, gives all jobs priority 1 without weights, and nice does nothing.
        "PriorityType=priority/basic",
        "SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_interval=2,sched_min_interval=100000",
        *preempt,
        *_accounting(spec),
        *spec.settings,
        node_line,
        *(f"PartitionName={line} Nodes={nodes}" for line in spec.partitions),
    ]
    return "\n".join(lines) + "\n"


def _accounting(spec: Spec) -> list[str]:
    if not spec.accounting:
        return []
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={spec.port + spec.nodes + 1}",
        # with munge this is where its socket is
        f"AccountingStoragePass={spec.base}/run/munge.sock",
        "AccountingStorageTRES=gres/gpu",
        "AccountingStorageEnforce=associations,limits,qos",
    ]


def gres_conf(spec: Spec) -> str:
    """The text of gres.conf: one line a GPU, in the shape's order; empty files stand in for devices."""
    shape = spec.shape
    lines = ["AutoDetect=off"]
    for gpu, (kind, socket) in enumerate(zip(spec.types, spec.sockets, strict=True)):
        words = [f"NodeName=n[1-{spec.nodes}]", "Name=gpu"]
        words += [f"Type={kind}"] if kind else []
        words.append(f"File={spec.base}/gpu/nvidia{gpu}")
        if spec.cores:
            words.append(f"Cores={socket * CORES_PER_SOCKET}-{(socket + 1) * CORES_PER_SOCKET - 1}")
        if spec.links:
            row = (-1 if other == gpu else shape.pair_nvlinks(gpu, other) for other in range(shape.gpus))
            words.append(f"Links={','.join(map(str, row))}")
        lines.append(" ".join(words))
    lines += [f"NodeName=n[1-{spec.nodes}] Name=shard Count={spec.shards}"] if spec.shards else []
    return "\n".join(lines) + "\n"


def cgroup_conf(spec: Spec) -> str:
    """The text of cgroup.conf; slurmd of each release wants its own way to do without cgroups."""
    return habits(spec.release).no_cgroups + "\n"
