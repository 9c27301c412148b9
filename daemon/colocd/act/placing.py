"""Making Slurm give exactly the wanted GPUs: fence, plugs, the replica's submission, and what was really given."""

import msgspec

from coloc_topology.fit import FitTable
from coloc_topology.shape import Level, bits, idx
from colocd.act.tools import Tools, fence_name
from colocd.core.comment import own_key, own_token
from colocd.core.service import Mode, ServiceSpec
from colocd.core.view import Job, JobState, Node
from colocd.slurm.port import Submission
from colocd.store.records import Handover, Outcome

ALIVE = (JobState.PENDING, JobState.CONFIGURING, JobState.RUNNING, JobState.SUSPENDED)
PLUG_SCRIPT = (
    "#!/bin/sh\n# Holds one GPU for a moment, so that a replica beside it gets the right ones.\nexec sleep 3600\n"
)


def required(h: Handover, spec: ServiceSpec) -> Level:
    """Level below which the placement is wrong: the asked one if guaranteed, else the planned one."""
    return spec.level if spec.mode is Mode.GUARANTEED else min(spec.level, Level[h.level])


def raise_fence(tools: Tools, h: Handover, spec: ServiceSpec) -> str | None:
    """Reserve the node for the service's and coloc's users; None: it stands, else what is wrong so far."""
    name = fence_name(h)
    if any(r.name == name for r in tools.slurm.reservations()):
        return None
    policy = tools.policy
    minutes = int((policy.grace + 3 * policy.start_timeout) // 60) + 5
    users = tuple(dict.fromkeys((spec.user, tools.user)))
    result = tools.call(
        h, "fence", f"node:{h.node}", lambda: tools.slurm.reserve(name, h.node, users, minutes), name=name
    )
    return None if result.done else (result.detail or "the fence is not confirmed")


def lower_fence(tools: Tools, h: Handover) -> bool:
    """Delete the reservation; True when it is gone."""
    name = fence_name(h)
    if not any(r.name == name for r in tools.slurm.reservations()):
        return True
    return tools.call(h, "unfence", f"node:{h.node}", lambda: tools.slurm.unreserve(name), name=name).done


def own_jobs(tools: Tools, h: Handover) -> tuple[dict[str, Job], dict[str, Job]]:
    """The handover's replica submissions and plugs that Slurm knows, by the key in their comments, ended ones too.

    Only jobs of the users whom coloc submits as count: anybody could copy a comment.
    """
    spec = tools.spec(h.service)
    users = {tools.user} | ({spec.user} if spec is not None else set())
    replicas: dict[str, Job] = {}
    plugs: dict[str, Job] = {}
    for job in tools.slurm.find(f"[coloc-own key={h.data['key']}."):
        key = own_key(job.comment) or ""
        if job.user in users:
            (plugs if key.endswith(".plug") else replicas)[job.ref] = job
    return replicas, plugs


def any_choice_fits(table: FitTable, free: int, h: Handover, level: Level) -> bool:
    """Whether whatever Slurm chooses among the free GPUs reaches the level, so that no plug is needed."""
    worst = table.worst_level(free, h.want.bit_count())
    return worst is not None and worst >= level


def plug(tools: Tools, h: Handover, count: int) -> str | None:
    """Submit `count` one-GPU plug jobs into the fence; None: submitted, else what went wrong."""
    job = Submission(
        name="coloc-plug",
        script=PLUG_SCRIPT,
        partition=_partition(tools, h),
        gpus=1,
        nodes=(h.node,),
        reservation=fence_name(h),
        comment=own_token(f"{h.data['key']}.plug"),
        time_limit=3600.0,
        workdir="/",
        output="/dev/null",
    )
    for _ in range(count):
        result = tools.call(h, "plug", f"node:{h.node}", lambda: tools.slurm.submit(job))
        if not result.done:
            return result.detail or "a plug is not confirmed"
    return None


def _partition(tools: Tools, h: Handover) -> str:
    spec = tools.spec(h.service)
    return spec.partition if spec is not None else ""


def shape_free_set(tools: Tools, h: Handover, node: Node, table: FitTable, level: Level) -> tuple[bool, str | None]:
    """Bring the node's free GPUs to a set of which any choice is right. (ready, what is wrong).

    Plugs cannot be told which GPU to take either: all free GPUs are plugged, then the plugs on wanted ones are ended.
    """
    broken = node.free & tools.failed(h.node)
    if not broken and (h.gpu_type is not None or any_choice_fits(table, node.free, h, level)):
        return True, None
    _, found = own_jobs(tools, h)
    plugs = {ref: job for ref, job in found.items() if job.state in ALIVE}
    waiting = [ref for ref, job in plugs.items() if not job.gpus]
    if node.free & ~h.want:
        missing = node.free.bit_count() - len(waiting)
        return False, plug(tools, h, missing) if missing > 0 else None
    surplus = waiting + [ref for ref, job in plugs.items() if (job.gpus or {}).get(h.node, 0) & h.want]
    if surplus:
        result = tools.call(h, "unplug", f"node:{h.node}", lambda: tools.slurm.cancel(surplus), refs=surplus)
        return False, None if result.done else result.detail
    return node.free == h.want, None


def plugged(tools: Tools, h: Handover) -> int:
    """GPUs of the node that the handover's own plugs hold."""
    if not any(i.kind == "plug" for i in tools.store.intents(handover=h.id)):
        return 0
    mask = 0
    for job in own_jobs(tools, h)[1].values():
        mask |= (job.gpus or {}).get(h.node, 0)
    return mask


def replica_key(h: Handover) -> str:
    """Key of the present try to submit the replica."""
    return f"{h.data['key']}.replica-{int(h.data.get('attempt', 0))}"


def submission(tools: Tools, h: Handover, spec: ServiceSpec, key: str, address: str) -> Submission:
    """The replica's batch job: inside the fence, on the node, with its place in the service in the environment."""
    return Submission(
        name=f"coloc-{spec.name}-{h.slot}",
        script=spec.script,
        partition=spec.partition,
        user=spec.user,
        gpus=spec.gpus_per_replica,
        gpu_type=h.gpu_type,
        cpus=spec.cpus_per_replica,
        nodes=(h.node,),
        reservation=fence_name(h),
        comment=own_token(key),
        environment={
            "COLOC_SERVICE": spec.name,
            "COLOC_SLOT": str(h.slot),
            "COLOC_PORT": str(spec.port_base + h.slot),
            "COLOC_ADDRESS": address,
        },
        options=spec.sbatch_options,
        workdir="/",
        output=None if any(o.startswith(("--output", "-o")) for o in spec.sbatch_options) else "/dev/null",
    )


def submit_replica(tools: Tools, h: Handover, spec: ServiceSpec, address: str) -> tuple[Handover, str | None]:
    """Submit the replica under a new key; (handover with the job, what went wrong)."""
    attempt, key = int(h.data.get("attempt", 0)), replica_key(h)
    job = submission(tools, h, spec, key, address)
    h = tools.save(h, submitted_at=h.data["submitted_at"] if tools.store.intent(key) else tools.clock.now())
    result = tools.ledger.do(
        key, "submit", f"service:{h.service}", lambda: tools.slurm.submit(job), payload={"slot": h.slot}, handover=h.id
    )
    if result.outcome is Outcome.DONE:
        h = msgspec.structs.replace(h, job=result.value or result.detail)
        return tools.save(h), None
    if result.outcome is Outcome.UNKNOWN:
        # It may still arrive. The next step looks for its key, and only after a pause gives that key up.
        return tools.save(h, unsure_since=tools.clock.now()), None
    refused = int(h.data.get("refused", 0)) + (result.outcome is Outcome.REFUSED)
    return tools.save(h, attempt=attempt + 1, refused=refused), f"{result.outcome.value}: {result.detail}"


def describe(mask: int) -> str:
    """GPUs for people: `GPUs 0-3`."""
    return f"GPU{'s' if len(bits(mask)) > 1 else ''} {idx(mask)}"
