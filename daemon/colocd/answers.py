"""What the running daemon answers to the API: from the last view and plan, and from the store."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from colocd.act.tools import OVERRIDE
from colocd.answer_words import (
    decision_words,
    handover_sentence,
    handover_words,
    release,
    service_story,
    service_words,
)
from colocd.answers_forecast import forecast_answer
from colocd.answers_job import array_story, job_story, queue_rows, released
from colocd.api.peer import peer, signed
from colocd.api.rights import check_apply
from colocd.clock import Clock
from colocd.config import Config
from colocd.core.accounts import Stay, accounts, as_rows
from colocd.core.actions import Plan, encode_plan
from colocd.core.outlook import Window, windows
from colocd.core.plan import explain
from colocd.core.view import View, encode_view
from colocd.endpoints import endpoints_of
from colocd.errors import BadRequest, NotFound, SlurmUnreachable
from colocd.gpu_use import gpu_use, node_sentences
from colocd.metrics import Metrics
from colocd.servicefile import parse_service, spec_from_json, spec_to_json
from colocd.store.port import Store
from colocd.store.records import Decision, ServiceRow
from colocd.valley_answers import Valleys

_JOB = re.compile(r"([0-9]+(?:_[0-9]+)?)(?:_(?:\[.*\])?)?")
"""A job id, or what squeue shows for the tasks of an array that wait."""


class Answers:
    """Implements `colocd.api.backend.Backend`. Views and plans are replaced as a whole, so readers need no lock."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics, config: Config) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self.config = config
        self.trouble: str | None = None
        self.gpu_use_of: Callable[[str], str | None] = lambda _: None
        self._valleys = Valleys()
        self.private = False
        """Whether the site hides people's jobs from each other."""
        self._last: tuple[View, Plan] | None = None
        self._expected: tuple[View, dict[str, Window]] | None = None
        self._cycle: dict[str, Any] | None = None
        self.adapter: str | None = None
        """What reads Slurm, in words; None: nothing was read yet."""

    def seen(self, view: View, result: Plan) -> None:
        """Take over a cycle's view and plan."""
        self._last = (view, result)

    def finished(self, at: float, seconds: float, sentence: str) -> None:
        """Take over a finished cycle's sentence."""
        problems = list(self._last[0].problems) if self._last is not None else []
        if self.trouble is not None:
            problems.insert(0, self.trouble)
        self._cycle = {"at": at, "seconds": round(seconds, 3), "sentence": sentence, "problems": problems}

    def _view(self) -> View:
        if self._last is None:
            raise SlurmUnreachable(
                self.trouble or "colocd has not finished its first cycle", "wait for one cycle and try again"
            )
        return self._last[0]

    def status(self) -> dict[str, Any]:
        """See `Backend.status`. `gpus` and `services` are those of the last view; `cycle.problems` says if it is old."""
        view = self._last[0] if self._last is not None else None
        return {
            "mode": self.config.mode,
            "paused": self._store.setting("paused") or (None if view is None else view.paused),
            "slurm": view.slurm if view is not None else None,
            "adapter": self.adapter,
            "version": release(),
            "cycle": self._cycle,
            "gpus": gpu_use(view) if view is not None else None,
            "services": self.services(),
            "handovers": [handover_words(h) for h in self._store.handovers(only_open=True)],
        }

    def forecast(self, name: str) -> dict[str, Any]:
        """See `Backend.forecast`."""
        return forecast_answer(name, self._view(), self._store)

    def view(self) -> bytes:
        """See `Backend.view`."""
        return encode_view(self._view())

    def plan(self) -> bytes:
        """See `Backend.plan`."""
        self._view()
        assert self._last is not None
        return encode_plan(self._last[1])

    def explain(self, subject: str) -> dict[str, Any]:
        """See `Backend.explain`. Raises `NotFound` when neither the last view nor the store knows the subject."""
        view = self._last[0] if self._last is not None else None
        subject = self._subject(subject, view)
        now = explain(subject, *self._last) if self._last is not None else []
        kind, _, name = subject.partition(":")
        known = bool(now)
        if kind == "handover":
            handover = self._store.handover(int(name)) if name.isdigit() else None
            if handover is None:
                raise NotFound(f"there is no handover {name}")
            now, known = [handover_sentence(handover)], True
        if view is not None and kind == "job":
            job = next((j for j in view.jobs if j.ref == name), None)
            if job is not None:
                handovers, past = self._store.handovers(only_open=True), self._store.decisions(subject, limit=50)
                story = job_story(job, view, self._windows(view).get(name), handovers, past)
                now, known = [*story, *now], True
            elif "_" not in name and self._last is not None:
                notes = {n.subject: n.text for n in self._last[1].notes}
                now = array_story(name, view, notes, self._windows(view))
                known = bool(now)
        if view is not None:
            more = [*service_story(subject, view), *self._gpus(kind, name, view)]
            now, known = [*now, *more], known or any(n.name == name for n in view.nodes)
        decisions = [msgspec.to_builtins(d) for d in self._store.decisions(subject, limit=50)]
        if not known and not decisions:
            raise NotFound(f"coloc knows nothing of {subject.partition(':')[2] or subject!r}")
        return {"subject": subject, "now": "; ".join(now) or "nothing is planned for it", "decisions": decisions}

    def _gpus(self, kind: str, name: str, view: View) -> list[str]:
        """What is known of the GPUs of a node or a job beside Slurm."""
        if kind == "node":
            node = next((n for n in view.nodes if n.name == name), None)
            return [] if node is None else node_sentences(node, view.gpus.get(name), view.at)
        use = self.gpu_use_of(name) if kind == "job" else None
        return [] if use is None else [use]

    def _subject(self, text: str, view: View | None) -> str:
        if text.partition(":")[0] in ("job", "service", "handover", "node") and ":" in text:
            return text
        if (job := _JOB.fullmatch(text)) is not None:
            return f"job:{job[1]}"  # `17_[4-9]`, as squeue shows the tasks that wait: the array
        if view is not None and any(n.name == text for n in view.nodes):
            return f"node:{text}"
        return f"service:{text}"

    def endpoints(self, name: str) -> dict[str, Any]:
        """See `Backend.endpoints`. From the store: a replica whose drain has just begun is not there any more."""
        row = next((r for r in self._store.services() if r.name == name), None)
        if row is None:
            raise NotFound(f"there is no service {name}")
        addresses = {n.name: n.address for n in self._view().nodes}
        found = endpoints_of(spec_from_json(row.spec), self._store.replicas(), addresses)
        listed = [{**msgspec.to_builtins(e), "target": e.target} for e in found]
        return {"service": name, "at": self._clock.now(), "endpoints": listed}

    def valleys(self, hours: int) -> dict[str, Any]:
        """See `Backend.valleys`."""
        return self._valleys.of(self._view(), hours)

    def history(self, limit: int) -> list[dict[str, Any]]:
        """See `Backend.history`."""
        return [decision_words(d) for d in self._store.decisions(limit=limit)]

    def queue(self) -> list[dict[str, Any]]:
        """See `Backend.queue`: coloc's batch jobs that have not ended."""
        view = self._view()
        assert self._last is not None
        return queue_rows(view, self._last[1], self._windows(view), released(self._last[1]))

    def _windows(self, view: View) -> dict[str, Window]:
        """Expected starts by this view, worked out once for it."""
        if self._expected is None or self._expected[0] is not view:
            starting = released(self._last[1]) if self._last is not None and self._last[0] is view else None
            self._expected = (view, windows(view, starting))
        return self._expected[1]

    def report(self, month: str | None, user: str | None) -> list[dict[str, Any]]:
        """See `Backend.report`."""
        runs = msgspec.convert(self._store.runs(0.0), tuple[Stay, ...], from_attributes=True)
        return as_rows(accounts(runs, self._clock.now(), month, user))

    def override(self, name: str, reason: str) -> dict[str, Any]:
        """See `Backend.override`. The word is taken back when a replica is placed by it, or by an empty reason."""
        row = next((r for r in self._store.services() if r.name == name and not r.removed), None)
        if row is None:
            raise NotFound(f"there is no service {name}")
        asked = _line(reason, "reason")
        word = signed(asked) if asked else ""
        self._store.put_setting(f"{OVERRIDE}{name}", word or None)
        text = f"its next reclaim may ignore the budgets: {asked}" if word else "its reclaims obey the budgets again"
        self._decide(f"service:{name}", "override", text)
        return {"name": name, "override": word or None}

    def services(self) -> list[dict[str, Any]]:
        """See `Backend.services`; a service applied since the last cycle is shown without readings."""
        seen = {s.spec.name: s for s in self._last[0].services} if self._last is not None else {}
        view = self._last[0] if self._last is not None else None
        rows: list[dict[str, Any]] = []
        for row in self._store.services():
            service = seen.get(row.name)
            if service is None or view is None:
                rows.append({"name": row.name, "load": None, "need": None, "have": None, "ready": None, "replicas": []})
            else:
                rows.append(service_words(service, view))
        return rows

    def apply_service(self, text: str, filename: str) -> dict[str, Any]:
        """See `Backend.apply_service`."""
        # By its bare name: parse_service would read a script file beside an absolute one, with colocd's rights.
        spec = parse_service(text, Path(filename).name)
        check_apply(spec.user, text, filename, peer())
        wanted = spec_to_json(spec)
        old = next((r for r in self._store.services() if r.name == spec.name), None)
        changed = old is None or old.spec != wanted or old.removed
        if changed:
            now = self._clock.now()
            self._store.put_service(ServiceRow(name=spec.name, spec=wanted, applied_at=now))
            what = "changed" if old is not None else "applied"
            self._decide(f"service:{spec.name}", "apply", f"the service was {what}")
        return {"name": spec.name, "changed": changed}

    def remove_service(self, name: str) -> dict[str, Any]:
        """See `Backend.remove_service`."""
        row = next((r for r in self._store.services() if r.name == name), None)
        if row is None:
            raise NotFound(f"there is no service {name}")
        self._store.put_service(msgspec.structs.replace(row, removed=True))
        draining = sum(1 for r in self._store.replicas() if r.service == name)
        self._decide(f"service:{name}", "remove", f"the service was removed; {draining} replicas drain")
        return {"name": name, "removed": True, "draining": draining}

    def pause(self, reason: str) -> dict[str, Any]:
        """See `Backend.pause`."""
        reason = _line(reason, "reason") or "by an operator"
        self._store.put_setting("paused", reason)
        self._decide("coloc", "pause", f"paused: {reason}")
        return {"paused": reason}

    def resume(self) -> dict[str, Any]:
        """See `Backend.resume`."""
        self._store.put_setting("paused", None)
        self._decide("coloc", "resume", "resumed")
        return {"paused": None}

    def hides_jobs(self) -> str | None:
        """See `Backend.hides_jobs`."""
        return (self.config.api.group or "") if self.private else None

    def owner(self, ref: str) -> str | None:
        """See `Backend.owner`."""
        view = self._last[0] if self._last is not None else None
        jobs = view.jobs if view is not None else ()
        found = next((j.user for j in jobs if j.ref == ref or j.ref.startswith(f"{ref}_")), None)
        return found or next((r.user for r in self._store.jobs(unended=False) if r.ref == ref), None)

    def metrics(self) -> bytes:
        """See `Backend.metrics`."""
        return self._metrics.text()

    def _decide(self, subject: str, kind: str, text: str) -> None:
        self._store.add_decisions([Decision(at=self._clock.now(), subject=subject, kind=kind, text=signed(text))])


def _line(text: str, what: str) -> str:
    """An operator's words on one line."""
    text = " ".join(text.split())
    if len(text) > 500:
        raise BadRequest(f"the {what} is longer than 500 characters")
    return text
