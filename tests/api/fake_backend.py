"""A backend with a small, realistic cluster behind it: what the API and CLI tests read and change."""

import threading
from typing import Any

from colocd.core.actions import Need, Note, Place, Plan, Release, encode_plan
from colocd.core.view import Node, View, encode_view
from colocd.errors import BadFile, NotFound

AT = 1_760_000_000.0


def replica(slot: int, state: str, job: str | None, node: str, gpus: str, load: float | None) -> dict[str, Any]:
    return {
        "slot": slot,
        "state": state,
        "job": job,
        "node": node,
        "places": {node: gpus},
        "level": "NVLINK",
        "load": load,
    }


def sample_services() -> list[dict[str, Any]]:
    chat = [
        replica(0, "ready", "101", "n1", "0-3", 11.5),
        replica(1, "ready", "102", "n1", "4-7", 12.0),
        replica(2, "starting", "131", "n2", "0-3", None),
    ]
    foreseen = {"ahead": 3600.0, "wape": 0.21, "persistence": 0.2, "covered95": 0.947, "lost": True}
    return [
        {"name": "chat", "load": 23.5, "need": 3, "have": 3, "ready": 2, "forecast": foreseen, "replicas": chat},
        {"name": "embed", "load": None, "need": 1, "have": 0, "ready": 0, "replicas": []},
    ]


NOW = 1_760_000_000.0
FORECAST: dict[str, Any] = {
    "service": "chat",
    "at": NOW,
    "measure": "concurrency",
    "load": 12.0,
    "history": [[NOW - 600 * i, None if i == 9 else 10.0 + i % 7] for i in range(40, 0, -1)],
    "step": 900.0,
    "points": [
        {
            "ahead": 900.0 * i,
            "values": {"0.5": 10.0 + i % 5, "0.75": 15.0, "0.9": 16.0 + i % 5, "0.95": 22.0, "0.99": 25.0},
        }
        for i in range(24)
    ],
    "trust": 0.9,
    "basis": "cycle found; <1 h ahead & more",
    "records": [
        {"ahead": 3600.0, "wape": 0.05, "persistence": 0.2, "covered95": 0.95, "seen": 900, "used": "weekly profile"}
    ],
    "have": 2,
    "carried": 20.0,
    "quantile": 0.9,
    "valleys": [[3600.0, 7200.0]],
}


class FakeBackend:
    """Implements `colocd.api.backend.Backend`; `calls` says what was asked, `gate` holds `queue()` until it is set."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.paused: str | None = None
        self.problems: list[str] = []
        self.service_list = sample_services()
        self.fail: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.hidden_from: str | None = None

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.fail is not None:
            raise self.fail

    def status(self) -> dict[str, Any]:
        self._note("status")
        return {
            "mode": "act",
            "paused": self.paused,
            "slurm": "22.05.8",
            "adapter": "client commands",
            "version": "0.1.0",
            "cycle": {
                "at": AT,
                "seconds": 0.21,
                "sentence": "chat needs 3 replicas, has 3; released 1 job",
                "problems": self.problems,
            },
            "gpus": {"total": 32, "serving": 12, "batch": 14, "free": 5, "failed": 0, "other": 0, "unknown": 1},
            "services": self.service_list,
            "handovers": [
                {
                    "id": 7,
                    "service": "chat",
                    "slot": 2,
                    "places": {"n2": "0-3"},
                    "state": "signalled",
                    "victims": ["117", "118_3"],
                    "since": AT - 12,
                }
            ],
        }

    def view(self) -> bytes:
        self._note("view")
        node = Node(name="n1", address="127.0.0.1", up=True, gpus=8, used=255)
        return encode_view(View(at=AT, mode="act", slurm="22.05.8", nodes=(node,)))

    def plan(self) -> bytes:
        self._note("plan")
        place = Place(
            service="chat",
            slot=2,
            places={"n2": 0b1111},
            level="NVLINK",
            victims=("117", "118_3"),
            cost=1234.0,
            why="load will pass 2 replicas at 08:00",
        )
        return encode_plan(
            Plan(
                at=AT,
                actions=(place, Release(job="120", nodes=("n3",), why="fits into the valley until 07:40")),
                needs=(Need(service="chat", now=3, have=2, why="forecast 23.5 at 90 %"),),
                notes=(Note(subject="job:119", text="asks for 8 GPUs, 5 are free"),),
                summary="place chat/2 on n2, release 1 job",
            )
        )

    def explain(self, subject: str) -> dict[str, Any]:
        self._note("explain", subject)
        if subject not in {"117", "service:chat", "handover:7", "chat", "118_3", "node:n3"}:
            raise NotFound(f"coloc knows no {subject!r}")
        return {
            "subject": subject,
            "now": "victim of handover 7, has saved 12 s ago",
            "decisions": [
                {"at": AT - 12, "subject": "job:117", "kind": "victim", "text": "gives n2:0-3 to chat/2"},
                {"at": AT - 3600, "subject": "job:117", "kind": "release", "text": "fits into the valley"},
            ],
        }

    def endpoints(self, name: str) -> dict[str, Any]:
        self._note("endpoints", name)
        if name != "chat":
            raise NotFound(f"there is no service {name}")
        one = {"slot": 0, "address": "10.0.0.1", "port": 8000, "node": "n1", "job": "101", "target": "10.0.0.1:8000"}
        return {"service": name, "at": AT, "endpoints": [one]}

    def valleys(self, hours: int) -> dict[str, Any]:
        self._note("valleys", hours)
        slots = [{"at": AT + n * 1800, "free": 12 if n < 4 else 0, "needs": {"chat": 3}} for n in range(2 * hours)]
        valley = {"node": "n1", "island": "0-3", "gpus": "0-3", "count": 4, "start": AT, "end": AT + 7200}
        return {
            "at": AT,
            "step": 1800.0,
            "quantile": 0.9,
            "gpus": 32,
            "blind": ["embed"],
            "slots": slots,
            "valleys": [valley, {**valley, "node": "n2", "count": 8}],
        }

    def history(self, limit: int) -> list[dict[str, Any]]:
        self._note("history", limit)
        return [
            {"at": AT - i, "subject": f"job:{100 + i}", "kind": "release", "text": f"fits into the valley of n{i}"}
            for i in range(min(limit, 5))
        ]

    def queue(self) -> list[dict[str, Any]]:
        self.waiting.set()
        if not self.gate.wait(30):
            raise TimeoutError("the test forgot the gate")
        self._note("queue")
        keys = ("ref", "user", "name", "state", "gpus", "reason", "evictions", "saved", "expected")
        rows: list[tuple[Any, ...]] = [
            ("117", "ann", "train-7b", "running", 4, "victim of handover 7", 1, AT - 12, None),
            ("118_3", "bob", "sweep of a very long name indeed", "running", 1, None, 0, None, None),
            (
                "119",
                "cecil",
                "finetune",
                "pending",
                8,
                "held by coloc: asks for 8 GPUs, 5 are free",
                0,
                None,
                [AT + 600, AT + 7200],
            ),
        ]
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def report(self, month: str | None, user: str | None) -> list[dict[str, Any]]:
        self._note("report", month, user)
        hours = {"used": 12.5, "saved": 12.0, "lost": 0.5, "lost_by_eviction": 0.25}
        return [{"month": month or "2026-11", "user": user or "ann", "jobs": 2, "runs": 3, "evictions": 1, **hours}]

    def override(self, name: str, reason: str) -> dict[str, Any]:
        self._note("override", name, reason)
        return {"name": name, "override": reason or None}

    def forecast(self, name: str) -> dict[str, Any]:
        self._note("forecast", name)
        if name != "chat":
            raise NotFound(f"there is no service {name!r}")
        return FORECAST

    def services(self) -> list[dict[str, Any]]:
        self._note("services")
        return self.service_list

    def apply_service(self, text: str, filename: str) -> dict[str, Any]:
        self._note("apply_service", text, filename)
        if "broken" in text:
            raise BadFile(f"{filename}: line 3: min_replicas is not a number")
        return {"name": "chat", "changed": True}

    def remove_service(self, name: str) -> dict[str, Any]:
        self._note("remove_service", name)
        if name != "chat":
            raise NotFound(f"there is no service {name!r}")
        return {"name": name, "removed": True, "draining": 3}

    def pause(self, reason: str) -> dict[str, Any]:
        self._note("pause", reason)
        self.paused = reason
        return {"paused": reason}

    def resume(self) -> dict[str, Any]:
        self._note("resume")
        self.paused = None
        return {"paused": None}

    def metrics(self) -> bytes:
        self._note("metrics")
        return b"# TYPE coloc_gpus gauge\ncoloc_gpus 32\n"

    def hides_jobs(self) -> str | None:
        return self.hidden_from

    def owner(self, ref: str) -> str | None:
        return next((row["user"] for row in self.queue() if row["ref"] == ref), None)
