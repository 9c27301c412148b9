"""What the acting side is given: ports, rules, and a few shared operations on handovers."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from coloc_topology.fit import FitTable, fit_table
from coloc_topology.hostlist import fold
from coloc_topology.shape import Shape
from colocd.act.ledger import Ledger, Result
from colocd.clock import Clock
from colocd.core.brief import HandoverBrief
from colocd.core.policy import Policy
from colocd.core.service import ServiceSpec
from colocd.core.view import Node
from colocd.slurm.port import SlurmPort
from colocd.store.port import Store
from colocd.store.records import Decision, Handover, HandoverState

log = logging.getLogger("colocd.act")

FENCE_PREFIX = "coloc-"
RETRY = "retry-at:"
"""Settings with this prefix and a service's name: Unix seconds before which no placement of it is tried."""

OVERRIDE = "override:"
"""Settings with this prefix and a service's name: who lets its next reclaim ignore the budgets, and why."""


class Tools:
    """Composition of the acting side. `user` is colocd's own user; `spec` and `shape` answer None for unknown names;
    `failed` the mask of a node's GPUs that must not be given out, `network` the node as the last view had it, with its leaf,
    block and NVLink domain (None: not known).
    """

    def __init__(
        self,
        *,
        slurm: SlurmPort,
        store: Store,
        clock: Clock,
        policy: Policy,
        user: str,
        spec: Callable[[str], ServiceSpec | None],
        shape: Callable[[str], Shape | None],
        failed: Callable[[str], int] = lambda _: 0,
        network: Callable[[str], Node | None] = lambda _: None,
        evicted: Callable[[Mapping[str, object]], None] = lambda facts: None,
    ) -> None:
        self.slurm = slurm
        self.store = store
        self.clock = clock
        self.policy = policy
        self.user = user
        self.spec = spec
        self.shape = shape
        self.evicted = evicted
        self.failed = failed
        self.network = network
        self.ledger = Ledger(store, clock)
        self.kill_wait: float | None = None
        """Slurm's `KillWait` in seconds, as the last view had it; None: not known."""

    def table(self, node: str) -> FitTable | None:
        """Fit table of a node; None when its topology is unknown."""
        shape = self.shape(node)
        return fit_table(shape) if shape is not None else None

    def save(self, h: Handover, *, state: HandoverState | None = None, job: str | None = None, **data: Any) -> Handover:
        """Write a handover with changed data and, when given, its new state (with the time) and its job."""
        now = self.clock.now()
        facts = {**h.data, **data}
        if state is not None and state is not h.state:
            facts["t"] = {**facts.get("t", {}), state.value: now}
            log.info("handover %d (%s/%d on %s): %s", h.id, h.service, h.slot, fold(h.places), state.value)
        changed = msgspec.structs.replace(h, state=state or h.state, job=job or h.job, updated_at=now, data=facts)
        self.store.save_handover(changed)
        return changed

    def tell(self, subject: str, kind: str, text: str, **data: Any) -> None:
        """Record a decision or event and log its sentence."""
        log.info("%s: %s", subject, text)
        self.store.add_decisions([Decision(at=self.clock.now(), subject=subject, kind=kind, text=text, data=data)])

    def pause_service(self, name: str) -> None:
        """No placement of the service is tried for a while, after one failed.

        A setting of its own: writing the service's row here could undo what an operator applies at the same moment.
        """
        self.store.put_setting(f"{RETRY}{name}", repr(self.clock.now() + self.policy.retry_after))

    def call(self, h: Handover, kind: str, subject: str, call: Callable[[], Any], **payload: Any) -> Result[Any]:
        """A repeatable call of a handover, under the next free number of its kind."""
        number = sum(1 for i in self.store.intents(handover=h.id) if i.kind == kind)
        return self.ledger.do(f"{h.data['key']}.{kind}.{number}", kind, subject, call, payload=payload, handover=h.id)


def fence_name(h: Handover) -> str:
    """Name of the handover's reservation: its own, or that of the replica beside which it starts."""
    own = f"{FENCE_PREFIX}h{h.id}-{h.data['key'][:6]}"
    return str(h.data["lead"]["fence"]) if "lead" in h.data else own


def fenced(h: Handover) -> dict[str, int]:
    """GPUs by node that the handover's fence is for: its own, and those of the replica that starts beside it."""
    masks = dict(h.places)
    for name, mask in h.data.get("guest", {}).get("places", {}).items():
        masks[name] = masks.get(name, 0) | mask
    return masks


def waits_until(h: Handover) -> float | None:
    """Unix seconds until which the handover waits at most for victims that go at a moment of their own; None: it does not."""
    early = h.state in (HandoverState.PLANNED, HandoverState.FENCED)
    if not early or not h.data.get("moments") or "hastened" in h.data or "told_at" in h.data:
        return None
    return float(h.data["decided_at"]) + float(h.data["latest"])


def brief(h: Handover) -> HandoverBrief:
    """What the view tells of an open handover."""
    return HandoverBrief(
        id=h.id,
        service=h.service,
        slot=h.slot,
        places=h.places,
        victims=h.victims,
        state=h.state.value,
        waits_until=waits_until(h),
    )
