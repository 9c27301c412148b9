"""Making Slurm give exactly the wanted GPUs on every node: fence, plugs, the replica's submission, what was really given."""

from functools import reduce
from operator import or_

import msgspec

from coloc_topology.fit import FitTable
from coloc_topology.hostlist import fold
from coloc_topology.shape import Level
from colocd.act import asked
from colocd.act.tools import Tools, fence_name, fenced
from colocd.core.comment import own_key, own_token
from colocd.core.seats import in_order
from colocd.core.service import Mode, ServiceSpec
from colocd.core.view import Job, JobState, Node
from colocd.slurm.port import Submission
from colocd.store.records import Handover, Outcome

ALIVE = (JobState.PENDING, JobState.CONFIGURING, JobState.RUNNING, JobState.SUSPENDED)
PLUG_SCRIPT = (
    "#!/bin/sh\n# Holds one GPU for a moment, so that a replica beside it gets the right ones.\nexec sleep 3600\n"
)


def subject(h: Handover) -> str:
    """What calls that concern all nodes of the handover are recorded under."""
    return f"node:{fold(h.places)}"


def required(h: Handover, spec: ServiceSpec) -> Level:
    """Level below which the placement is wrong: the asked one if guaranteed, else the planned one."""
    return spec.level if spec.mode is Mode.GUARANTEED else min(spec.level, Level[h.level])


def down(nodes: dict[str, Node]) -> str | None:
    """Which of the nodes takes no jobs, in words; None: all do."""
    return next((f"node {name} is {node.state}" for name, node in nodes.items() if not node.up), None)


def raise_fence(tools: Tools, h: Handover, spec: ServiceSpec) -> str | None:
    """Reserve the nodes, all in one reservation, for the service's and coloc's users; None: it stands, else what is wrong."""
    name = fence_name(h)
    if any(r.name == name for r in tools.slurm.reservations()):
        return None
    policy = tools.policy
    guest = h.data.get("guest")
    slurms = tools.kill_wait or 0.0
    waits = float(h.data.get("latest") or 0.0)
    minutes = int((policy.grace + slurms + waits + (3 if guest is None else 6) * policy.start_timeout) // 60) + 5
    users = tuple(dict.fromkeys((spec.user, *([guest["user"]] if guest is not None else []), tools.user)))
    nodes = in_order(fenced(h))
    result = tools.call(h, "fence", subject(h), lambda: tools.slurm.reserve(name, nodes, users, minutes), name=name)
    return None if result.done else (result.detail or "the fence is not confirmed")


def lower_fence(tools: Tools, h: Handover) -> bool:
    """Delete the reservation; True when it is gone, or left to the replica that starts within it, too."""
    name = fence_name(h)
    if any(other.id != h.id and fence_name(other) == name for other in tools.store.handovers(only_open=True)):
        return True
    if not any(r.name == name for r in tools.slurm.reservations()):
        return True
    return tools.call(h, "unfence", subject(h), lambda: tools.slurm.unreserve(name), name=name).done


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


def any_choice_fits(table: FitTable, free: int, want: int, level: Level) -> bool:
    """Whether whatever Slurm chooses among the free GPUs of a node reaches the level, so that no plug is needed."""
    worst = table.worst_level(free, want.bit_count())
    return worst is not None and worst >= level


def plug(tools: Tools, h: Handover, node: str, count: int) -> str | None:
    """Submit `count` one-GPU plugs into the fence; None: submitted, else what went wrong. Raises `asked.RewrittenJob`."""
    spec = tools.spec(h.service)
    job = Submission(
        name="coloc-plug",
        script=PLUG_SCRIPT,
        partition=spec.partition if spec is not None else "",
        gpus=1,
        nodes=(node,),
        reservation=fence_name(h),
        comment=own_token(f"{h.data['key']}.plug"),
        time_limit=3600.0,
        workdir="/",
        output="/dev/null",
    )
    for nth in range(count):
        result = tools.call(h, "plug", f"node:{node}", lambda: tools.slurm.submit(job))
        if not result.done:
            return result.detail or "a plug is not confirmed"
        if nth == 0 and result.value:
            asked.check(tools, h, result.value, job)
    return None


def shape_free_set(tools: Tools, h: Handover, nodes: dict[str, Node], level: Level) -> tuple[bool, str | None]:
    """Bring the free GPUs of each node to a set of which any choice is right. (all are ready, what is wrong).

    Plugs cannot be told which GPU to take either: all free GPUs are plugged, then the plugs on wanted ones are ended.
    """
    rough = {node.name for node in nodes.values() if not _fits(tools, h, node, level)}
    if not rough and not _has_plugs(tools, h):
        return True, None
    plugs = {ref: job for ref, job in own_jobs(tools, h)[1].items() if job.state in ALIVE}
    shaped, surplus = True, list[str]()
    for node in nodes.values():
        want = h.places[node.name]
        waiting = [ref for ref, job in plugs.items() if not job.gpus and job.required_nodes == (node.name,)]
        if node.name not in rough:
            # Those that have started suffice: another one would take what the replica is to get, or has by now.
            surplus += waiting
            taken = node.free & reduce(or_, ((job.gpus or {}).get(node.name, 0) for job in plugs.values()), 0)
            shaped = shaped and not taken
        elif node.free & ~want:
            missing = node.free.bit_count() - len(waiting)
            wrong = plug(tools, h, node.name, missing) if missing > 0 else None
            if wrong is not None:
                return False, wrong
            shaped = False
        else:
            surplus += waiting + [ref for ref, job in plugs.items() if (job.gpus or {}).get(node.name, 0) & want]
            shaped = shaped and node.free == want
    if surplus:
        result = tools.call(h, "unplug", subject(h), lambda: tools.slurm.cancel(surplus), refs=surplus)
        return False, None if result.done else result.detail
    return shaped, None


def _fits(tools: Tools, h: Handover, node: Node, level: Level) -> bool:
    """Whether any choice of Slurm's on this node is right. Failed GPUs must not be chosen, so free ones are plugged."""
    table = tools.table(node.name)
    if table is None or node.free & tools.failed(node.name):
        return False
    return h.gpu_type is not None or any_choice_fits(table, node.free, h.places[node.name], level)


def _has_plugs(tools: Tools, h: Handover) -> bool:
    """Whether plugs were ever asked for."""
    return any(i.kind == "plug" for i in tools.store.intents(handover=h.id))


def plugged(tools: Tools, h: Handover) -> dict[str, int]:
    """GPUs by node that the handover's own plugs hold."""
    masks: dict[str, int] = {}
    if _has_plugs(tools, h):
        for job in own_jobs(tools, h)[1].values():
            for name, mask in (job.gpus or {}).items():
                masks[name] = masks.get(name, 0) | mask
    return masks


def replica_key(h: Handover) -> str:
    """Key of the present try to submit the replica."""
    return f"{h.data['key']}.replica-{int(h.data.get('attempt', 0))}"


def submission(h: Handover, spec: ServiceSpec, key: str, address: str) -> Submission:
    """The replica's batch job: inside the fence, on its nodes, with its place in the service in the environment.

    `address`: of its first node, where Slurm runs the script.
    """
    nodes = in_order(h.places)
    return Submission(
        name=f"coloc-{spec.name}-{h.slot}",
        script=spec.script,
        partition=spec.partition,
        user=spec.user,
        gpus=spec.gpus_per_replica,
        gpu_type=h.gpu_type,
        cpus=spec.cpus_per_replica,
        nodes=nodes,
        reservation=fence_name(h),
        comment=own_token(key),
        environment={
            "COLOC_SERVICE": spec.name,
            "COLOC_SLOT": str(h.slot),
            "COLOC_PORT": str(spec.port_base + h.slot),
            "COLOC_ADDRESS": address,
            "COLOC_NODES": " ".join(nodes),
        },
        options=spec.sbatch_options,
        workdir="/",
        output=None if any(o.startswith(("--output", "-o")) for o in spec.sbatch_options) else "/dev/null",
    )


def submit_replica(tools: Tools, h: Handover, spec: ServiceSpec, address: str) -> tuple[Handover, str | None]:
    """Submit the replica under a new key; (handover with the job, what went wrong). Raises `asked.RewrittenJob`."""
    attempt, key = int(h.data.get("attempt", 0)), replica_key(h)
    job = submission(h, spec, key, address)
    h = tools.save(h, submitted_at=h.data["submitted_at"] if tools.store.intent(key) else tools.clock.now())
    result = tools.ledger.do(
        key, "submit", f"service:{h.service}", lambda: tools.slurm.submit(job), payload={"slot": h.slot}, handover=h.id
    )
    if result.outcome is Outcome.DONE:
        h = tools.save(msgspec.structs.replace(h, job=result.value or result.detail))
        if result.value:  # of this very call, not of one before a crash
            asked.check(tools, h, result.value, job)
        return h, None
    if result.outcome is Outcome.UNKNOWN:
        # It may still arrive. The next step looks for its key, and only after a pause gives that key up.
        return tools.save(h, unsure_since=tools.clock.now()), None
    refused = int(h.data.get("refused", 0)) + (result.outcome is Outcome.REFUSED)
    return tools.save(h, attempt=attempt + 1, refused=refused), f"{result.outcome.value}: {result.detail}"
