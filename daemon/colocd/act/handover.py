"""The handover: a durable state machine from decision to verified placement. States and events: docs/handover.md.

Every step first looks at what is (Slurm), then does the one thing that is missing (through the ledger), then writes where
it stands. So a crash, a time-out or a dead slurmctld between any two instructions only means that the next step looks again.
"""

from collections.abc import Callable
from functools import partial

import msgspec

from coloc_topology.hostlist import fold
from colocd.act import adoption, ending, own_moments, placing, readback, victims
from colocd.act.asked import RewrittenJob
from colocd.act.deadlines import Deadlines
from colocd.act.tools import Tools, fence_name, fenced
from colocd.core.seats import in_order, words
from colocd.core.service import ServiceSpec
from colocd.core.view import JobState, ReplicaState
from colocd.core.wishes import is_wish
from colocd.errors import NotFound
from colocd.slurm.port import JobUpdate
from colocd.store.records import OPEN_STATES, Handover, ReplicaRow
from colocd.store.records import HandoverState as S

MAX_ATTEMPTS = 3
"""Replica submissions before a handover is given up."""
MAX_REFUSALS = 5
UNSURE_PAUSE = 2.0
"""Seconds after which a submission that timed out and is not found counts as never delivered."""


class HandoverMachine:
    """Steps handovers. Holds deadlines on the monotonic clock, so that a jump of the wall clock cuts no grace short."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self._deadlines = Deadlines(tools.clock)
        self._steps: dict[S, Callable[[Handover], Handover]] = {
            S.PLANNED: self._planned,
            S.FENCED: self._fenced,
            S.SIGNALLED: self._signalled,
            S.CHECKPOINTED: self._requeue,
            S.GRACE_EXPIRED: self._requeue,
            S.REQUEUED: self._requeued,
            S.FREED: self._shaped_or_given_up,
            S.PLACED: self._placed,
            S.VERIFIED: self._verified,
        }

    def run(self, h: Handover) -> Handover:
        """Step a handover until it must wait for something; Slurm's and the store's errors go to the caller."""
        while h.state in OPEN_STATES:
            before = h.state
            if self.tools.spec(h.service) is None and "abort" not in h.data:
                h = self.tools.save(h, abort="the service was removed, or the job that asked for the place is gone")
            if "abort" in h.data and ending.may_end(self.tools, h):
                h = ending.end(self.tools, h)
                break
            h = self._steps[h.state](h)
            if h.state is before and ("abort" not in h.data or not ending.may_end(self.tools, h)):
                break
        if h.state not in OPEN_STATES:
            self._deadlines.forget(h.id)
        return h

    def _spec(self, h: Handover) -> ServiceSpec:
        """The service's specification; the states that ask for it are never entered without one (see `run`)."""
        spec = self.tools.spec(h.service)
        if spec is None:
            raise NotFound(f"service {h.service} is not known")
        return spec

    def _left(self, h: Handover, what: str, since: float, seconds: float) -> float:
        return self._deadlines.left((h.id, f"{what}@{since}"), since, seconds)

    def _entered(self, h: Handover) -> float:
        return float(h.data.get("t", {}).get(h.state.value, h.created_at))

    # -- the states --------------------------------------------------------------------------------------------------

    def _planned(self, h: Handover) -> Handover:
        """Nothing was done yet: put the fence up, so that GPUs freed from now on are nobody else's."""
        if "lead" in h.data:
            return self._behind(h)
        if is_wish(h.service):
            h, gone = adoption.hold_back(self.tools, h)
            if gone is not None:
                return self.tools.save(h, abort=gone)
        wrong = placing.raise_fence(self.tools, h, self._spec(h))
        if wrong is None:
            return self.tools.save(h, state=S.FENCED)
        if self._left(h, "fence", h.created_at, self.tools.policy.start_timeout) <= 0:
            return self.tools.save(h, abort=f"the fence could not be put up: {wrong}")
        return h

    def _behind(self, h: Handover) -> Handover:
        """It starts beside another replica, within that one's fence and on what that one's victims gave up: once that stands."""
        lead = self.tools.store.handover(int(h.data["lead"]["id"]))
        if lead is not None and lead.state in OPEN_STATES:
            return h
        if lead is None or lead.state is not S.RELEASED:
            return self.tools.save(h, abort="the replica beside which it was to start was not placed")
        if not any(r.name == fence_name(h) for r in self.tools.slurm.reservations()):
            return self.tools.save(h, abort="the fence around it and its partner is gone")
        return self.tools.save(h, state=S.REQUEUED)

    def _fenced(self, h: Handover) -> Handover:
        """The fence stands: check that the plan still holds, then tell the victims while they still hold their GPUs."""
        tools = self.tools
        nodes, jobs = tools.slurm.nodes(list(fenced(h))), tools.slurm.jobs(h.victims)
        # Whoever was told waits for the requeue, whatever has become of the plan meanwhile.
        if not ending.told(tools, h) and (wrong := own_moments.plan_broken(tools, h, nodes, jobs, self._spec(h))):
            return tools.save(h, abort=wrong)
        if not any(victims.holding(job) for job in jobs.values()):
            return tools.save(h, state=S.REQUEUED, acked=list(h.victims))
        if "marks" not in h.data:
            h = tools.save(h, marks=victims.marks(jobs), **victims.periods(tools, h, jobs))
        begun = float(h.data.get("decided_at", h.created_at))
        if waiting := own_moments.waited_for(h, jobs, lambda what, seconds: self._left(h, what, begun, seconds)):
            return own_moments.go_early(tools, h, jobs, waiting)
        h = own_moments.waited(tools, h, jobs)
        if not victims.tell_victims(tools, h, jobs):
            return h
        return tools.save(h, state=S.SIGNALLED, told_at=tools.clock.now())

    def _signalled(self, h: Handover) -> Handover:
        """Wait for each victim's acknowledgement or end, or for the end of the grace; repeat an unanswered signal once."""
        tools = self.tools
        jobs = tools.slurm.jobs(h.victims)
        before = h.data["marks"]
        h = victims.keep_loose(tools, h, jobs)
        acked = [ref for ref in h.victims if victims.acknowledged(jobs.get(ref), before.get(ref))]
        if len(acked) > len(h.data.get("acked", [])):
            h = tools.save(h, acked=acked)
        if len(acked) == len(h.victims):
            return tools.save(h, state=S.CHECKPOINTED)
        left = self._left(h, "grace", h.data["told_at"], h.data["grace"])
        silent = [ref for ref in h.victims if ref not in acked]
        if left <= 0:
            text = f"job{'s' if len(silent) > 1 else ''} {', '.join(silent)} did not acknowledge within {h.data['grace']:.0f} s"
            tools.tell(f"handover:{h.id}", "grace-expired", text, victims=silent)
            return tools.save(h, state=S.GRACE_EXPIRED)
        if left < h.data["grace"] / 2 and not h.data.get("repeated"):
            h = tools.save(h, repeated=True)
            victims.tell_victims(tools, h, {ref: jobs[ref] for ref in silent if ref in jobs}, again=True)
        return h

    def _requeue(self, h: Handover) -> Handover:
        """All have consented or had their time: requeue and hold them in one call."""
        tools = self.tools
        jobs = tools.slurm.jobs(h.victims)
        mine = {r: j for r, j in jobs.items() if victims.staying(h, j) or j.state is JobState.PENDING}
        if "evicted" not in h.data or any(victims.staying(h, j) for j in mine.values()):
            victims.remember_eviction(tools, h, mine)
            h = tools.save(h, evicted=sorted({*h.data.get("evicted", []), *mine}))
        wrong = victims.send_away(tools, h, mine)
        if wrong is None:
            return tools.save(h, state=S.REQUEUED)
        refusals = int(h.data.get("refusals", 0)) + 1
        if refusals >= MAX_REFUSALS:
            return tools.save(h, abort=f"Slurm does not requeue the victims: {wrong}", stuck=True)
        if refusals == 1:
            for ref in (r for r, j in mine.items() if victims.holding(j)):
                tools.call(h, "requeueable", f"job:{ref}", partial(tools.slurm.update, ref, JobUpdate(requeue=True)))
        return tools.save(h, refusals=refusals)

    def _requeued(self, h: Handover) -> Handover:
        """Wait until Slurm shows the wanted GPUs of all nodes free (or held by our own plugs)."""
        tools = self.tools
        nodes, jobs = tools.slurm.nodes(list(h.places)), tools.slurm.jobs(h.victims)
        wrong = placing.down(nodes)
        if wrong is not None:
            return tools.save(h, abort=wrong)
        still = [ref for ref, job in jobs.items() if job.state is JobState.COMPLETING or victims.staying(h, job)]
        if not still:
            plugs = placing.plugged(tools, h)
            if all(n.used is not None and not n.used & ~plugs.get(k, 0) & h.places[k] for k, n in nodes.items()):
                return tools.save(h, state=S.FREED, freed_at=tools.clock.now())
        if self._left(h, "free", self._entered(h), victims.gone_within(tools, h)) <= 0:
            what = f"job {', '.join(still)} does not end" if still else "somebody else holds them"
            return tools.save(h, abort=f"{words(h.places)} did not become free: {what}")
        return h

    def _shaped_or_given_up(self, h: Handover) -> Handover:
        try:
            return self._freed(h)
        except RewrittenJob as wrong:
            return self.tools.save(self.tools.store.handover(h.id) or h, abort=str(wrong))

    def _freed(self, h: Handover) -> Handover:
        """Shape the free set, submit the replica into the fence, and wait until it runs."""
        tools = self.tools
        if h.job is not None:
            return self._await_start(h)
        if "unsure_since" in h.data:
            return self._look_for_replica(h)
        unknown = [name for name in h.places if tools.table(name) is None]
        if unknown:
            return tools.save(h, abort=f"the topology of {', '.join(unknown)} is not known any more")
        nodes = tools.slurm.nodes(in_order(h.places))
        wrong = placing.down(nodes)
        if wrong is not None:
            return tools.save(h, abort=wrong)
        spec = self._spec(h)
        if broken := readback.broken(tools, h.places):
            return tools.save(h, abort=f"{words(broken)} failed meanwhile")
        if tools.store.intent(placing.replica_key(h)) is not None:
            ready, wrong = True, None  # Submitted before a crash: its outcome is looked up, not called again.
        else:
            ready, wrong = placing.shape_free_set(tools, h, nodes, placing.required(h, spec))
        if ready and is_wish(h.service):
            h, wrong = adoption.admit(tools, h)
        elif ready:
            h, wrong = placing.submit_replica(tools, h, spec, next(iter(nodes.values())).address)
        elif self._left(h, "shape", self._entered(h), tools.policy.start_timeout) <= 0:
            text = f"the free GPUs of {fold(h.places)} could not be shaped: {wrong or 'plugs do not start'}"
            return tools.save(h, abort=text)
        if wrong is not None and int(h.data.get("refused", 0)) >= MAX_ATTEMPTS:
            return tools.save(h, abort=f"the replica could not be submitted: {wrong}")
        return h

    def _look_for_replica(self, h: Handover) -> Handover:
        """A submission timed out: adopt the job if it arrived, else give its key up after a pause."""
        tools = self.tools
        found, _ = placing.own_jobs(tools, h)
        alive = [job for job in found.values() if job.state in placing.ALIVE]
        if alive:
            h = msgspec.structs.replace(h, job=alive[0].ref)
            return tools.save(ending.without(h, "unsure_since"))
        if self._left(h, "unsure", h.data["unsure_since"], UNSURE_PAUSE) > 0:
            return h
        return tools.save(ending.without(h, "unsure_since"), attempt=int(h.data.get("attempt", 0)) + 1)

    def _await_start(self, h: Handover) -> Handover:
        tools = self.tools
        job = tools.slurm.jobs([h.job or ""]).get(h.job or "")
        if job is None or job.state in (JobState.DONE, JobState.FAILED, JobState.COMPLETING):
            return tools.save(h, abort=f"the replica (job {h.job}) ended as soon as it started: see its output")
        if job.state is JobState.RUNNING and job.gpus:
            h = msgspec.structs.replace(h, got=job.gpus)
            return tools.save(h, state=S.PLACED)
        if self._left(h, f"start-{h.job}", float(h.data["submitted_at"]), tools.policy.start_timeout) <= 0:
            return tools.save(h, abort=f"the replica (job {h.job}) did not start: {job.reason or job.state}")
        return h

    def _placed(self, h: Handover) -> Handover:
        """Read back what Slurm gave. A guaranteed replica on wrong GPUs never goes on: it is ended and tried again."""
        tools = self.tools
        given = readback.given(tools, h, self._spec(h))
        if given is None:
            return tools.save(h, abort=f"the topology of {fold(h.places)} is not known any more")
        if given.wrong is None:
            near = given.closeness.value if given.closeness is not None else None
            row = ReplicaRow(
                service=h.service,
                slot=h.slot,
                state=ReplicaState.STARTING.value,
                job=h.job,
                node=in_order(h.places)[0],
                places=h.got or {},
                level=given.level.name,
                since=tools.clock.now(),
                data={"handover": h.id, "closeness": near},
            )
            if not is_wish(h.service):
                tools.store.put_replica(row)
            return tools.save(h, state=S.VERIFIED, level_got=given.level.name, closeness_got=near)
        tries = int(h.data.get("misplaced", 0)) + 1
        text = f"Slurm gave {given.wrong}; try {tries} is ended"
        tools.tell(f"handover:{h.id}", "misplaced", text)
        if is_wish(h.service):
            ended = adoption.send_back(tools, h)
        else:
            ended = tools.call(h, "unplace", f"job:{h.job}", lambda: tools.slurm.cancel([h.job or ""])).done
        if not ended:
            return h
        if given.hopeless or tries >= MAX_ATTEMPTS:
            return tools.save(h, abort=f"Slurm gave the wrong GPUs {tries} times: {given.wrong}")
        h = msgspec.structs.replace(h, job=None, got=None)
        return tools.save(h, state=S.REQUEUED, misplaced=tries, attempt=int(h.data.get("attempt", 0)) + 1)

    def _verified(self, h: Handover) -> Handover:
        """The placement is right: detach the running replica, then take plugs and fence away."""
        tools = self.tools
        ref = h.job or ""
        job = tools.slurm.jobs([ref]).get(ref)
        if job is not None and job.reservation is not None and victims.holding(job):
            detach = partial(tools.slurm.update, ref, JobUpdate(reservation=""))
            if not tools.call(h, "detach", f"job:{ref}", detach).done:
                return h
        if not ending.clear(tools, h, keep=ref):
            return h
        h = tools.save(h, state=S.RELEASED)
        who = f"job {ref}" if is_wish(h.service) else f"replica {h.slot} of {h.service}"
        near = h.data.get("closeness_got")
        placed = f"{who} runs on {words(h.got or {})} ({h.data['level_got']}{f', nodes: {near}' if near else ''})"
        gone = f"; {len(h.victims)} victim(s), {len(h.data.get('acked', []))} acknowledged" if h.victims else ""
        tools.tell(f"handover:{h.id}", "released", placed + gone)
        return h
