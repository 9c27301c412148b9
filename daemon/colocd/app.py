"""The daemon: composition root, the cycle, and what the API answers."""

import getpass
import logging
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import msgspec

from coloc_topology.shape import Shape
from colocd.act.actor import Actor
from colocd.act.handover import HandoverMachine
from colocd.act.hooks import Hooks
from colocd.act.pace import Pace
from colocd.act.replicas import Replicas
from colocd.act.tools import RETRY, Tools
from colocd.answers import Answers
from colocd.clock import Clock
from colocd.config import Config
from colocd.core.actions import Plan
from colocd.core.index import PlannerIndex
from colocd.core.plan import plan
from colocd.core.service import ServiceSpec
from colocd.core.view import Node, ReplicaState, View
from colocd.core.wishes import is_wish
from colocd.core.wishes import subject as subject_of
from colocd.endpoints import EndpointFiles, endpoints_of
from colocd.errors import ColocError, SlurmUnknown, SlurmUnreachable, StoreUnavailable
from colocd.gpus.board import GpuBoard
from colocd.gpus.seen import GpuSource
from colocd.hook import Hook
from colocd.metrics import Metrics
from colocd.observe import Observed, Observer
from colocd.servicefile import spec_from_json
from colocd.slurm.port import SlurmPort
from colocd.store.port import Store
from colocd.store.records import Decision
from colocd.telemetry.scrape import Scraper

log = logging.getLogger("colocd")
ROLL_UPS = 60
"""Hours or days of series rolled up in one go (some tenths of a second at most): no cycle waits for long."""
_PASSING = (SlurmUnreachable, SlurmUnknown, StoreUnavailable)
"""Errors of a bad day: the cycle says so in one sentence and the next one tries again."""


class Daemon:
    """One colocd. `cycle` and `step_handovers` are called by one thread; the API's threads only read `answers`."""

    def __init__(
        self, config: Config, slurm: SlurmPort, store: Store, clock: Clock, gpus: Sequence[GpuSource] = ()
    ) -> None:
        self.config = config
        self.store = store
        self.clock = clock
        self.metrics = Metrics()
        self._slurm = slurm
        self.board = GpuBoard(gpus, store, clock)
        self._observer = Observer(slurm, store, clock, Scraper(clock), config.cycle.period, self.board)
        self._failed: dict[str, int] = {}
        self._specs: dict[str, ServiceSpec] = {}
        self._node_shapes: dict[str, Shape] = {}
        self._nodes: dict[str, Node] = {}
        self._hook = Hook(config.hook)
        self.tools = Tools(
            slurm=slurm,
            store=store,
            clock=clock,
            policy=config.policy,
            user=getpass.getuser(),
            spec=self._spec,
            shape=self._node_shapes.get,
            evicted=self._hook.evicted,
            failed=lambda node: self._failed.get(node, 0),
            network=lambda node: self._nodes.get(node),
        )
        self._machine = HandoverMachine(self.tools)
        self._pace = Pace(clock, config.cycle.handover_period)
        self._actor = Actor(self.tools, lambda: secrets.token_hex(8))
        self._replicas = Replicas(self.tools, Hooks(_folder(config.routing.hooks)))
        self._said: dict[str, str] = {}
        self._problems: dict[str, str] = {}
        self.handovers_open = False
        self._recovered = False
        self._index = PlannerIndex()
        self.answers = Answers(store, clock, self.metrics, config)
        self.answers.gpu_use_of = self.board.use_of

    def reconfigure(self, config: Config) -> None:
        """Take a new configuration over: mode, policy, topology. Database, sockets and timetable need a restart."""
        self.config = config
        self.tools.policy = config.policy
        self._hook.config = config.hook
        self.answers.config = config
        self._pace.first = config.cycle.handover_period
        self._replicas.hooks.folder = _folder(config.routing.hooks)
        self._observer.forget_topology()

    def _spec(self, name: str) -> ServiceSpec | None:
        """Specification of an applied service; read from the store when the last view did not know it yet."""
        if name not in self._specs and not is_wish(name):
            row = next((r for r in self.store.services() if r.name == name), None)
            if row is None:
                return None
            self._specs[name] = spec_from_json(row.spec)
        return self._specs.get(name)

    # -- the cycle ---------------------------------------------------------------------------------------------------

    def cycle(self) -> str:
        """Observe, foresee, need, plan, act once; returns the sentence of this cycle and never raises for a bad day."""
        begun = self.clock.monotonic()
        try:
            sentence = self._cycle()
        except _PASSING as error:
            sentence = f"nothing was done: {error}"
            self.answers.trouble = str(error)
            self.metrics.failed()
        except ColocError as error:
            sentence = f"nothing was done: {error} ({error.hint})"
            self.answers.trouble = str(error)
            self.metrics.failed()
        seconds = self.clock.monotonic() - begun
        self.metrics.cycle(seconds)
        self.metrics.asked(self._slurm.usage())
        self.answers.finished(self.clock.now(), seconds, sentence)
        if self._said.get("cycle") != (quiet := _without_numbers(sentence)):
            self._said["cycle"] = quiet
            log.info("%s", sentence)
        return sentence

    def _recover(self) -> None:
        """Before the first action of this process: what a crash left open is unknown, and Slurm is asked about it.

        Not at construction: a second daemon, which is about to find the sockets taken, must not touch the first one's calls.
        """
        if not self._recovered:
            for intent in self.tools.ledger.settle_leftovers():
                log.info("intent %s was left open by a crash: Slurm is asked what happened", intent.key)
            self._recovered = True

    def _cycle(self) -> str:
        self._recover()
        seen = self._observer.observe(self.config)
        view = seen.view
        self._specs = {s.spec.name: s.spec for s in view.services}
        self._nodes = {n.name: n for n in view.nodes}
        self.tools.kill_wait = view.delays.kill_wait
        self._node_shapes.clear()
        self._node_shapes.update({n.name: view.shapes[n.shape] for n in view.nodes if n.shape is not None})
        self._failed = {n.name: n.failed for n in view.nodes if n.unfit}
        self.answers.trouble = None
        self.answers.adapter = seen.cluster.adapter
        self.answers.private = seen.private
        self._tell_problems(view.problems)
        for sentence in seen.odd:
            self._say_once(f"setup:{sentence}", "coloc", "setup", sentence)
        result = plan(view, self._index)
        self.answers.seen(view, result)
        self.metrics.seen(view)
        self.metrics.readings(self.board.counts())
        self._record(view, result)
        if view.mode == "act":
            self._act(seen, result)
        else:
            # Handovers begun in act mode are finished: a fence left standing would be worse than one more action.
            self.step_handovers()
        self._write_endpoints(view)
        return f"{'' if view.mode == 'act' else 'advice only: '}{result.summary}"

    def _act(self, seen: Observed, result: Plan) -> None:
        jobs = {j.ref: j for j in seen.cluster.jobs}
        self._replicas.addresses = {n.name: n.address for n in seen.view.nodes}
        self._replicas.step(jobs, seen.ready, seen.idle)
        handovers = self.store.handovers(only_open=True)
        self._actor.sweep(seen.cluster.jobs, seen.cluster.reservations, handovers)
        if result.actions:
            self._actor.carry_out(result, jobs)
        self._forget_removed(seen.view)
        self.step_handovers()

    def _write_endpoints(self, view: View) -> None:
        """Bring the routers' files up to what the store says now; a trouble is told once and stops nothing."""
        folder = _folder(self.config.routing.endpoints)
        if folder is None:
            return
        rows, addresses = self.store.replicas(), {n.name: n.address for n in view.nodes}
        specs = [s.spec for s in view.services if not is_wish(s.spec.name)]
        wrong = EndpointFiles(folder).write({s.name: endpoints_of(s, rows, addresses) for s in specs})
        if wrong is not None:
            self._say_once("endpoints", "coloc", "problem", wrong)
        else:
            self._said.pop("endpoints", None)

    def step_handovers(self) -> int:
        """Step every open handover that is due as far as it goes; returns how many stay open."""
        open_handovers = self.store.handovers(only_open=True)
        self._pace.keep({h.id for h in open_handovers})
        left = 0
        for handover in open_handovers:
            if not self._pace.due(handover):
                left += 1
                continue
            try:
                after = self._machine.run(handover)
            except _PASSING as error:
                self._say_once(f"handover:{handover.id}", f"handover:{handover.id}", "waiting", str(error))
                self._pace.looked(handover, handover)
                left += 1
                continue
            self._pace.looked(handover, after)
            if after.state in ("released", "failed", "rolled-back"):
                self.metrics.handover(after)
                self._said.pop(f"handover:{handover.id}", None)
            else:
                left += 1
        self.handovers_open = left > 0
        return left

    def _forget_removed(self, view: View) -> None:
        """Delete a removed service once its last replica is gone."""
        busy = {r.service for r in self.store.replicas()} | {h.service for h in self.store.handovers(only_open=True)}
        for service in view.services:
            alive = [r for r in service.replicas if r.state is not ReplicaState.GONE]
            still = any(r.name == service.spec.name and r.removed for r in self.store.services())
            if service.removed and still and not alive and service.spec.name not in busy:
                self.store.delete_service(service.spec.name)
                self.store.put_setting(f"{RETRY}{service.spec.name}", None)
                self._specs.pop(service.spec.name, None)
                self.tools.tell(f"service:{service.spec.name}", "removed", "its last replica is gone: forgotten")

    # -- saying things once ------------------------------------------------------------------------------------------

    def _record(self, view: View, result: Plan) -> None:
        """Record what is new in a plan: advice (in advise mode), and why a service does not get what it needs."""
        if view.mode != "act":
            for action in result.actions:
                words = msgspec.to_builtins(action)
                subject = f"job:{words['job']}" if "job" in words else subject_of(words["service"])
                self._say_once(
                    f"advice:{words['type']}:{subject}", subject, "advice", f"would {words['type']}: {action.why}"
                )
        asked = {s.spec.name for s in view.services}
        for note in result.notes:
            if note.subject.startswith("service:") or (is_wish(note.subject) and note.subject in asked):
                self._say_once(f"note:{note.subject}", note.subject, "short", note.text)
        for name in {k for k in self._said if k.startswith("note:")} - {f"note:{n.subject}" for n in result.notes}:
            del self._said[name]

    def _tell_problems(self, problems: tuple[str, ...]) -> None:
        """Record problems that the last cycle did not have, and say when one is over."""
        now = {_without_numbers(p): p for p in problems}
        for quiet in now.keys() - self._problems.keys():
            log.warning("%s", now[quiet])
            self.store.add_decisions([Decision(at=self.clock.now(), subject="coloc", kind="problem", text=now[quiet])])
        for quiet in self._problems.keys() - now.keys():
            log.info("over: %s", self._problems[quiet])
        self._problems = now

    def _say_once(self, key: str, subject: str, kind: str, text: str) -> None:
        """Log and record a sentence unless the last one of this key differs in its numbers only."""
        quiet = _without_numbers(text)
        if self._said.get(key) == quiet:
            return
        self._said[key] = quiet
        log.info("%s: %s", subject, text)
        self.store.add_decisions([Decision(at=self.clock.now(), subject=subject, kind=kind, text=text)])

    def prune(self) -> None:
        """Delete what is older than the configured retention."""
        now, keep = self.clock.now(), self.config.database
        try:
            self.store.prune(
                load_before=now - keep.keep_load,
                decisions_before=now - keep.keep_decisions,
                raw_before=now - keep.keep_raw,
                minutes_before=now - keep.keep_minutes,
                runs_before=now - keep.keep_runs,
            )
        except StoreUnavailable as error:
            log.warning("old rows stay: %s", error)

    def roll_up(self) -> None:
        """Make old load history small, a little at a time."""
        try:
            self.store.roll_up(self.clock.now(), at_most=ROLL_UPS)
        except StoreUnavailable as error:
            log.warning("load history is not rolled up: %s", error)


def _folder(path: str | None) -> Path | None:
    return None if path is None else Path(path)


def _without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", text)
