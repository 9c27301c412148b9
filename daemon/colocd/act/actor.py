"""Carries a plan out: starts handovers, drains, releases and holds; and sweeps up what a crash left in Slurm."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import assert_never

import msgspec

from colocd.act.placing import ALIVE
from colocd.act.tools import FENCE_PREFIX, OVERRIDE, Tools, fence_name, waits_until
from colocd.core.actions import Drain, Hasten, Hold, Place, Plan, Release
from colocd.core.comment import own_key
from colocd.core.view import Job, ReplicaState
from colocd.core.wishes import subject
from colocd.slurm.port import JobUpdate, Reservation
from colocd.store.records import BatchJob, Handover

BATCH = 200
"""Jobs in one Slurm command at most."""


class Actor:
    """Acts on plans. `new_key()` gives unguessable keys for coloc's own jobs (from the composition root)."""

    def __init__(self, tools: Tools, new_key: Callable[[], str]) -> None:
        self.tools = tools
        self._new_key = new_key

    def carry_out(self, plan: Plan, jobs: dict[str, Job]) -> None:
        """Do what the plan says, in its order; holds and releases that change nothing else go together."""
        releases: dict[tuple[str, ...], list[Release]] = {}
        guests = {a.follows: a for a in plan.actions if isinstance(a, Place) and a.follows is not None}
        holds: list[Hold] = []
        for action in plan.actions:
            match action:
                case Place():
                    if action.follows is None:
                        self._place(action, plan.at, guests.get(f"{action.service}/{action.slot}"))
                case Hasten():
                    self._hasten(action)
                case Drain():
                    self._drain(action)
                case Release():
                    releases.setdefault(action.nodes, []).append(action)
                case Hold():
                    holds.append(action)
                case _:
                    assert_never(action)
        self._hold(holds, jobs)
        for nodes, group in releases.items():
            self._release(nodes, group, jobs)

    def _place(self, action: Place, at: float, guest: Place | None) -> None:
        """Open a handover; the state machine does the rest. `guest`: who starts beside it, within the same fence.

        Both are written at once: without the second one, nobody would come for the GPUs that the first one's victims leave.
        """
        tools = self.tools
        if guest is None:
            self._told(action, tools.store.add_handover(self._opened(action, at, {})))
            return
        spec = tools.spec(guest.service)
        room = {"places": guest.places, "user": spec.user if spec is not None else tools.user}

        def follower(lead: Handover) -> Handover:
            return self._opened(guest, at, {"lead": {"id": lead.id, "fence": fence_name(lead)}})

        first, second = tools.store.add_pair(self._opened(action, at, {"guest": room}), follower)
        self._told(action, first)
        self._told(guest, second)

    def _opened(self, action: Place, at: float, near: dict[str, object]) -> Handover:
        now = self.tools.clock.now()
        return Handover(
            service=action.service,
            slot=action.slot,
            places=action.places,
            level=action.level,
            victims=action.victims,
            gpu_type=action.gpu_type,
            created_at=now,
            updated_at=now,
            why=action.why,
            data={
                "key": self._new_key(),
                "cost": action.cost,
                "decided_at": at,
                "emergency": action.emergency,
                "t": {"planned": now},
                **({"beside": list(action.beside)} if action.beside else {}),
                **({"moments": action.moments, "latest": action.latest} if action.moments else {}),
                **near,
            },
        )

    def _told(self, action: Place, handover: Handover) -> None:
        """Record why a handover was opened; a word that let it ignore the budgets is used up."""
        if action.override:
            self.tools.store.put_setting(f"{OVERRIDE}{action.service}", None)
            self.tools.tell(f"service:{action.service}", "override", f"used once: {action.why}", handover=handover.id)
        kind = "reclaim" if action.victims else "place"
        self.tools.tell(subject(action.service), kind, action.why, handover=handover.id, slot=action.slot)
        for ref in action.victims:
            text = f"gives up its GPUs for {subject(action.service).replace(':', ' ')}: {action.why}"
            self.tools.tell(f"job:{ref}", "evict", text, handover=handover.id)

    def _hasten(self, action: Hasten) -> None:
        tools = self.tools
        for h in tools.store.handovers(only_open=True):
            if (h.service, h.slot) == (action.service, action.slot) and waits_until(h) is not None:
                emergency = bool(h.data.get("emergency")) or action.emergency
                tools.save(h, hastened=action.why, emergency=emergency)
                text = f"its victims are told now, and not each at its own moment: {action.why}"
                tools.tell(f"handover:{h.id}", "hasten", text)

    def _drain(self, action: Drain) -> None:
        tools = self.tools
        for row in tools.store.replicas():
            if (row.service, row.slot) == (action.service, action.slot) and row.state != ReplicaState.DRAINING.value:
                data = {**row.data, "drain_since": tools.clock.now()}
                tools.store.put_replica(msgspec.structs.replace(row, state=ReplicaState.DRAINING.value, data=data))
                tools.tell(f"service:{action.service}", "drain", f"replica {action.slot} drains: {action.why}")

    def _rows(self, refs: Sequence[str], jobs: dict[str, Job]) -> list[BatchJob]:
        now = self.tools.clock.now()
        known = {row.ref: row for row in self.tools.store.jobs()}
        return [
            known.get(r) or BatchJob(ref=r, user=jobs[r].user, name=jobs[r].name, first_seen=now, last_seen=now)
            for r in refs
            if r in jobs or r in known
        ]

    def _release(self, nodes: tuple[str, ...], group: Sequence[Release], jobs: dict[str, Job]) -> None:
        """Pin (or unpin) each job, then release them together; remembered only if Slurm did it."""
        tools = self.tools
        ready: list[str] = []
        pinned = {row.ref for row in tools.store.jobs() if row.pinned}
        for action in group:
            job = jobs.get(action.job)
            # Slurm keeps a requeued job waiting for its old credential; a begin time of the user's own must stay.
            again = job is not None and job.restarts > 0
            where: tuple[str, ...] | None = None
            if nodes and (job is None or tuple(sorted(job.required_nodes)) != tuple(sorted(nodes))):
                where = nodes
            elif not nodes and action.job in pinned:
                where = ()
            change = JobUpdate(nodes=where, start_now=again) if again or where is not None else None
            pin = partial(tools.slurm.update, action.job, change) if change is not None else None
            if pin is None or self._do(f"pin-{action.job}", action.job, pin):
                ready.append(action.job)
        done = self._release_all(ready)
        now = tools.clock.now()
        rows = []
        for row in self._rows([action.job for action in group], jobs):
            if row.ref in done:
                facts = {"released_at": now, "ever_released": True, "ours": False, "pinned": bool(nodes)}
            else:
                facts = {"retry_at": now + tools.policy.retry_after}
            rows.append(msgspec.structs.replace(row, last_seen=now, **facts))
        tools.store.put_jobs(rows)
        for action in group:
            if action.job in done:
                tools.tell(f"job:{action.job}", "release", f"may start: {action.why}")

    def _release_all(self, refs: Sequence[str]) -> list[str]:
        """Release in few commands; where Slurm refuses some of them, one by one, so that one bad job stops nobody else."""
        done: list[str] = []
        for start in range(0, len(refs), BATCH):
            some = refs[start : start + BATCH]
            if self._do(f"release-{some[0]}", ",".join(some), partial(self.tools.slurm.release, some)):
                done += some
            elif len(some) > 1:
                done += [r for r in some if self._do(f"release-{r}", r, partial(self.tools.slurm.release, [r]))]
        return done

    def _hold(self, holds: Sequence[Hold], jobs: dict[str, Job]) -> None:
        """Take released jobs back. That the hold is coloc's is written first: a hold nobody owns would last for ever."""
        tools = self.tools
        if not holds:
            return
        refs = [h.job for h in holds]
        now = tools.clock.now()
        before = self._rows(refs, jobs)
        retry_at = now + tools.policy.retry_after
        tools.store.put_jobs(
            [msgspec.structs.replace(r, ours=True, released_at=None, retry_at=retry_at, last_seen=now) for r in before]
        )
        if self._do(f"hold-{refs[0]}", ",".join(refs), partial(tools.slurm.hold, refs)):
            for action in holds:
                tools.tell(f"job:{action.job}", "hold", f"taken back: {action.why}")

    def _do(self, name: str, subject: str, call: partial[None]) -> bool:
        key = f"{name}@{self.tools.clock.now():.6f}-{self._new_key()[:6]}"
        return self.tools.ledger.do(key, name.partition("-")[0], f"job:{subject}", call).done

    def sweep(self, jobs: Sequence[Job], reservations: Sequence[Reservation], handovers: Sequence[Handover]) -> None:
        """Remove fences and jobs of coloc's own that no open handover and no replica accounts for."""
        tools = self.tools
        fences = {fence_name(h) for h in handovers}
        keys = {h.data["key"] for h in handovers}
        kept = {row.job for row in tools.store.replicas()}
        for reservation in reservations:
            if reservation.name.startswith(FENCE_PREFIX) and reservation.name not in fences:
                lower = partial(tools.slurm.unreserve, reservation.name)
                if self._do(f"unfence-{reservation.name}", reservation.name, lower):
                    tools.tell("coloc", "sweep", f"removed the leftover fence {reservation.name}")
        for job in jobs:
            key = own_key(job.comment)
            if key is None or job.state not in ALIVE or job.ref in kept or key.partition(".")[0] in keys:
                continue
            head, _, tail = key.partition(".")
            intent = tools.store.intent(f"{head}.plug.0" if tail == "plug" else key)
            if intent is not None and self._do(f"sweep-{job.ref}", job.ref, partial(tools.slurm.cancel, [job.ref])):
                tools.tell("coloc", "sweep", f"ended job {job.ref}, which coloc submitted and nothing accounts for")
