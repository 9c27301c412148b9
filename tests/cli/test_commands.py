"""Every command against a served fake backend: what programs get, what people see, how it ends."""

import json
from pathlib import Path

import pytest
from tests.api.fake_backend import AT, FakeBackend
from tests.cli.conftest import Coloc, FixedClock

from coloc_cli.array_rows import condensed
from coloc_cli.commands.queue import window
from colocd.api.server import ApiServer
from colocd.core.view import decode_view
from colocd.errors import SlurmUnknown

pytestmark = pytest.mark.usefixtures("daemon")


@pytest.mark.parametrize(
    ("argv", "method"),
    [
        (("status",), "status"),
        (("queue",), "queue"),
        (("service", "list"), "services"),
        (("plan",), "plan"),
    ],
)
def test_json_is_the_apis(coloc: Coloc, backend: FakeBackend, argv: tuple[str, ...], method: str) -> None:
    said = coloc(*argv, "--json")
    want = getattr(backend, method)()
    assert (said.code, said.json, said.err) == (0, json.loads(want) if isinstance(want, bytes) else want, "")


def test_status_for_people(coloc: Coloc, backend: FakeBackend, clock: FixedClock) -> None:
    clock.time = AT + 12
    backend.problems = ["n3 does not answer"]
    out = coloc("status").out
    assert "0.1.0, acting" in out
    assert "Slurm       22.05.8, by client commands" in out
    assert "12 s ago in 0.21 s: chat needs 3 replicas" in out
    assert "32: 12 serving, 14 batch, 5 free, 1 unknown" in out
    assert "problem     n3 does not answer" in out
    rows = [line.split() for line in out.splitlines()]
    assert ["chat", "23.5", "3", "3", "2", "21.0", "94.7", "n1:0-3", "n1:4-7", "n2:0-3", "starting"] in rows
    assert ["embed", "?", "1", "0", "0", "?", "?", "-"] in rows  # unknown is not zero
    assert "chat: the forecast of 60 min ahead did worse" in " ".join(out.split())
    assert ["7", "chat/2", "n2:0-3", "signalled", "24", "s", "117", "118_3"] in rows


def test_pause_and_resume(coloc: Coloc, backend: FakeBackend) -> None:
    assert coloc("pause", "new", "rack").code == 0
    assert "PAUSED: new rack" in coloc("status").out
    assert coloc("resume", "--json").json == {"paused": None}
    assert "PAUSED" not in coloc("status").out
    assert coloc("pause").code == 0
    assert "PAUSED: no reason given" in coloc("status").out


def test_queue(coloc: Coloc, clock: FixedClock) -> None:
    lines = coloc("queue").out.splitlines()
    assert lines[0].split() == ["JOBID", "USER", "NAME", "STATE", "GPUS", "EV", "SAVED", "STARTS", "REASON"]
    assert " ".join(lines[1].split()) == "117 ann train-7b running 4 1 12 s - victim of handover 7"
    assert "10m-2h held by coloc" in " ".join(lines[3].split())
    assert [job["ref"] for job in coloc("queue", "-u", "bob,cecil", "--json").json] == ["118_3", "119"]
    assert coloc("queue", "-u", "nobody").out == "no jobs\n"


@pytest.mark.parametrize(
    ("expected", "until", "told"),
    [
        ([AT + 600, None], AT + 86_400, "10m-?"),
        ([None, None], AT + 86_400, ">24h"),
        ([None, None], None, "?"),
        ([AT, AT], AT + 86_400, "0m"),
        (None, None, "-"),
    ],
)
def test_when_a_job_starts(expected: list[float | None] | None, until: float | None, told: str) -> None:
    """Where no valley long enough is foreseen, that is told, and how far one looked: never "now"."""
    assert window(expected, until, AT) == told


def test_tasks_that_wait_have_one_line() -> None:
    def row(ref: str, state: str = "pending", **more: object) -> dict[str, object]:
        facts = {"ref": ref, "user": "ann", "name": "sweep", "state": state, "gpus": 1, "evictions": 0, "saved": None}
        return {**facts, "expected": None, "foreseen_until": None, "reason": "waits", **more}

    rows = [
        row("9"),
        row("17_0", "running"),
        row("17_1", evictions=1),
        *(row(f"17_{n}", expected=[100.0 + n, 900.0 + n], foreseen_until=5000.0) for n in (2, 3, 4, 7)),
        row("18_5", reason="is released"),
        row("18_6", expected=[50.0, None]),
        row("19_1"),
    ]
    found = condensed(rows)
    assert [r["ref"] for r in found] == ["9", "17_0", "17_1", "17_[2-4,7]", "18_[5-6]", "19_1"]
    assert (found[3]["expected"], found[3]["foreseen_until"], found[3]["reason"]) == ([102.0, 907.0], 5000.0, "waits")
    assert (found[4]["expected"], found[4]["reason"]) == ([50.0, None], "the first: is released")
    assert len(condensed(row(f"5_{n}") for n in range(10_000))) == 1


def test_queue_of_oneself(coloc: Coloc) -> None:
    assert coloc("queue", "--me", "--json").json == []


def test_plan(coloc: Coloc) -> None:
    out = coloc("plan").out
    assert "place chat/2 on n2, release 1 job" in out
    assert "chat/2 on n2:0-3 NVLINK, evicts 117 118_3" in out
    assert "job 120 on n3" in out
    assert "asks for 8 GPUs, 5 are free" in out


def test_explain(coloc: Coloc) -> None:
    said = coloc("explain", "117")
    assert "victim of handover 7, has saved 12 s ago" in said.out
    assert "gives n2:0-3 to chat/2" in said.out
    assert coloc("explain", "117", "--json").json["subject"] == "117"
    unknown = coloc("explain", "999")
    assert (unknown.code, unknown.out) == (66, "")
    assert unknown.err.splitlines()[0] == "coloc: coloc knows no '999'"
    assert unknown.err.splitlines()[1].startswith("  look at")


def test_history(coloc: Coloc) -> None:
    assert len(coloc("history", "--limit", "2").out.splitlines()) == 3
    assert len(coloc("history", "-n2", "--json").json) == 2
    assert coloc("history", "-n", "0").code == 64


def test_snapshot(coloc: Coloc, backend: FakeBackend, tmp_path: Path) -> None:
    assert coloc("snapshot").out.encode() == backend.view()
    file = tmp_path / "view.json"
    assert coloc("snapshot", str(file)).out == ""
    assert file.read_bytes() == backend.view()
    assert decode_view(file.read_bytes()).at == AT
    said = coloc("snapshot", str(tmp_path / "none" / "view.json"))
    assert (said.code, "cannot be written" in said.err) == (65, True)
    (tmp_path / "folder").mkdir()
    assert coloc("snapshot", str(tmp_path / "folder")).code == 65
    assert sorted(p.name for p in tmp_path.iterdir() if "part" in p.name) == []


def test_services(coloc: Coloc, backend: FakeBackend, tmp_path: Path) -> None:
    good, bad = tmp_path / "chat.toml", tmp_path / "bad.toml"
    good.write_text('name = "chat"')
    bad.write_text('name = "broken"')
    assert coloc("service", "apply", str(good)).out == "chat applied\n"
    assert coloc("service", "apply", str(good), "--json").json == [{"name": "chat", "changed": True}]
    said = coloc("service", "apply", str(good), str(bad), str(good))
    assert (said.code, said.out) == (65, "chat applied\n")
    assert f"{bad}: line 3" in said.err
    assert coloc("service", "remove", "chat").out == "chat removed; its replicas are drained\n"
    assert coloc("service", "remove", "other").code == 66
    assert coloc("service", "show", "chat", "--json").json == backend.service_list[0]
    assert "n1" in coloc("service", "show", "chat").out
    assert coloc("service", "show", "other").code == 66
    backend.service_list = []
    assert "no services" in coloc("service", "list").out


def test_nothing_is_applied_when_a_file_cannot_be_read(coloc: Coloc, backend: FakeBackend, tmp_path: Path) -> None:
    good, latin = tmp_path / "good.toml", tmp_path / "latin.toml"
    good.write_text("")
    latin.write_bytes(b'a = 1\nname = "\xe4"')
    for other, text in (
        (tmp_path / "none.toml", "cannot be read"),
        (latin, "line 2: not UTF-8"),
        (tmp_path, "cannot be read"),
    ):
        said = coloc("service", "apply", str(good), str(other))
        assert (said.code, text in said.err) == (65, True)
    assert backend.calls == []


def test_slurms_unknown_outcome_keeps_its_code(coloc: Coloc, backend: FakeBackend) -> None:
    backend.fail = SlurmUnknown("the call timed out")
    said = coloc("status")
    assert (said.code, said.err) == (75, f"coloc: the call timed out\n  {SlurmUnknown.hint}\n")


def test_control_characters_do_not_reach_the_terminal(coloc: Coloc, backend: FakeBackend) -> None:
    backend.service_list = [{"name": "a\x1b[2Jb\nc", "load": 1.0, "need": 1, "have": 0, "ready": 0, "replicas": []}]
    for argv in (("status",), ("service", "list"), ("service", "show", "a\x1b[2Jb\nc")):
        out = coloc(*argv).out
        assert "\x1b" not in out
        assert "a\ufffd[2Jb\ufffdc" in out


@pytest.mark.parametrize(
    "argv", [("status",), ("queue",), ("plan",), ("history",), ("service", "list"), ("explain", "117")]
)
def test_eighty_columns(coloc: Coloc, monkeypatch: pytest.MonkeyPatch, argv: tuple[str, ...]) -> None:
    monkeypatch.setattr("coloc_cli.output.terminal_width", lambda: 80)
    said = coloc(*argv)
    assert (said.code, max(len(line) for line in said.out.splitlines()) <= 80) == (0, True)


def test_an_answer_without_the_optional_parts_is_shown(coloc: Coloc, backend: FakeBackend, daemon: ApiServer) -> None:
    backend.status = lambda: {"mode": "advise", "cycle": None}  # type: ignore[method-assign]
    backend.explain = lambda subject: {"subject": subject, "now": None, "decisions": []}  # type: ignore[method-assign]
    assert "none yet" in coloc("status").out
    assert "touches nothing" in coloc("status").out
    assert "no decisions yet" in coloc("explain", "1").out


def test_report(coloc: Coloc, backend: FakeBackend) -> None:
    told = coloc("report", "--user", "ann")
    assert told.code == 0
    assert told.out.split()[-9:] == ["2026-11", "ann", "2", "3", "1", "12.5", "12.0", "0.5", "0.2"]
    assert coloc("report", "--month", "2026-01", "--json").json[0]["lost"] == 0.5
    wrong = coloc("report", "--month", "2026-13")
    assert wrong.code == 64
    assert "2026-11" in wrong.err


def test_override(coloc: Coloc, backend: FakeBackend) -> None:
    assert coloc("reclaim", "chat").code == 64
    assert coloc("reclaim", "chat", "--override", " ").code == 64
    assert coloc("reclaim", "chat", "--override", "launch at 9").code == 0
    assert coloc("reclaim", "chat", "--cancel", "--json").json == {"name": "chat", "override": None}
    calls = [call for call in backend.calls if call[0] == "override"]
    assert calls == [("override", "chat", "launch at 9"), ("override", "chat", "")]


def test_unpark_takes_a_job_id(coloc: Coloc) -> None:
    wrong = coloc("unpark", "17; id")
    assert wrong.code == 64
    assert "no job id" in wrong.err


def test_valleys(coloc: Coloc, backend: FakeBackend) -> None:
    out = coloc("valleys", "--hours", "4").out
    assert "at q0.9, of 32" in out
    assert "too little is known of embed" in out
    rows = [line.split() for line in out.splitlines()]
    assert [row[-1] for row in rows if "░" in "".join(row)] == ["12", "12", "0", "0"]
    assert ["n1", "0-3", "44.."] in rows
    assert ["n2", "0-3", "88.."] in rows
    only = coloc("valleys", "--node", "n2").out
    assert ["n2", "0-3", "88" + 22 * "."] in [line.split() for line in only.splitlines()]
    assert "n1" not in only
    assert "░" not in only, "what the whole cluster has is not this node's"
    assert "no island of n3 has a GPU to spare" in coloc("valleys", "--node", "n3").out
    assert coloc("valleys", "--node", "n9").code == coloc("explain", "n9").code != 0
    assert coloc("valleys", "--json").json == json.loads(json.dumps(backend.valleys(24)))
    assert coloc("valleys", "--hours", "25").code == 64
