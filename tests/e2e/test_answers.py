"""What people ask of a running colocd, and the operator's switches: commands, snapshot, advise, pause, reload."""

import pytest
from tests.helpers.live import LiveSite

from colocd.core.view import Held, JobState

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


def everything(site: LiveSite) -> tuple[str, str]:
    """What a colocd that touches nothing must leave as it is."""
    queue = site.cluster.run("squeue", "-a", "-h", "-o", "%i %T %r %n %R %k").stdout
    return queue, site.cluster.run("scontrol", "-o", "show", "reservation").stdout


def test_commands_answer(site: LiveSite) -> None:
    site.load(5)
    site.begin()
    site.until(lambda: site.ready() == 1, "the first replica")
    ref = site.submit("train", 2)
    site.until(lambda: site.job(ref).state is JobState.RUNNING, "the start of the batch job")
    queue = {}

    def listed() -> bool:
        queue.update({row["ref"]: row for row in site.ask("queue")})
        return ref in queue and queue[ref]["state"] == "running"

    site.until(listed, "the job in `coloc queue`")
    assert (queue[ref]["gpus"], queue[ref]["evictions"], queue[ref]["name"]) == (2, 0, "train")
    status = site.ask("status")
    assert (status["mode"], status["paused"], status["gpus"]["total"]) == ("act", None, 32)
    assert status["gpus"]["serving"] == 4
    assert status["gpus"]["batch"] == 2
    (service,) = status["services"]
    assert (service["name"], service["load"], service["need"], service["ready"]) == ("chat", 5.0, 1, 1)
    assert service["replicas"][0]["level"] == "NVLINK"
    plan = site.ask("plan")
    assert plan["needs"][0]["service"] == "chat"
    assert [d["kind"] for d in site.ask("explain", ref)["decisions"]] == ["release"]
    assert "GPUs" in site.ask("explain", "chat")["now"] or site.ask("explain", "chat")["decisions"]
    kinds = {entry["kind"] for entry in site.ask("history")}
    assert {"apply", "place", "ready", "release"} <= kinds
    for words in (("status",), ("plan",), ("queue",), ("history",), ("explain", ref), ("explain", "chat")):
        assert "\x1b" not in site.coloc(*words).stdout
    nobody = site.coloc("explain", "999999", check=False)
    assert nobody.returncode == 66


def test_a_chain_of_jobs(site: LiveSite) -> None:
    """A held job that depends on another is released when that has ended, and not before."""
    site.load(5)
    site.begin()
    first = site.submit("train-0", 2)
    second = site.submit("train-1", 2, options=[f"--dependency=afterany:{first}"])
    third = site.submit("train-2", 2, options=[f"--dependency=afterok:{first}"])
    site.until(lambda: site.job(first).state is JobState.RUNNING, "the start of the first job")
    colocd = site.colocd
    assert colocd is not None
    cycles = len(colocd.status())
    site.until(lambda: len(colocd.status()) > cycles + 2, "three more cycles")
    reasons = {row["ref"]: row["reason"] for row in site.ask("queue")}
    assert reasons[second] == f"waits for job {first} to end (afterany)"
    assert f"waits for job {first} to end (afterok)" in site.ask("explain", third)["now"]
    assert [(site.job(ref).held, site.job(ref).required_nodes) for ref in (second, third)] == [(Held.USER, ())] * 2
    site.cluster.run("scancel", first)
    site.until(lambda: site.job(second).state is JobState.RUNNING, "the start of the second job")
    assert site.job(third).state is JobState.PENDING
    assert site.decisions("hold") == []


def test_a_snapshot_is_planned_without_slurm(site: LiveSite) -> None:
    site.load(15)
    site.begin()
    ref = site.submit("train", 4)
    site.until(lambda: site.ready() == 2, "two replicas")
    site.until(lambda: site.job(ref).state is JobState.RUNNING, "the start of the batch job")
    view = site.base / "view.json"
    site.coloc("snapshot", str(view))
    site.cluster.stop_controller()
    try:
        first = site.coloc("plan", "--view", str(view), "--json").stdout
        assert first
        assert site.coloc("plan", "--view", str(view), "--json").stdout == first
    finally:
        site.cluster.start_controller()


def test_advice_touches_nothing(site: LiveSite) -> None:
    site.load(25)
    site.write_config("advise")
    held = site.submit("train", 4)
    stranger = site.strangers(1, "batch")[0]
    site.until(lambda: site.job(stranger).state is JobState.RUNNING, "the start of somebody else's job")
    before = everything(site)
    site.begin()
    colocd = site.colocd
    assert colocd is not None
    site.until(lambda: sum("place" in s for s in colocd.status()) >= 3, "three cycles of advice")
    assert everything(site) == before
    assert all(sentence.startswith("advice only: ") for sentence in colocd.status())
    advice = site.decisions("advice")
    assert any(text.startswith("would place") for text in advice)
    assert any(text.startswith("would release") for text in advice)
    assert site.ask("status")["mode"] == "advise"
    assert any(d["kind"] == "advice" for d in site.ask("explain", held)["decisions"])
    with site.store() as store:
        assert store.intents() == ()
        assert store.handovers() == ()


def test_pause_and_resume(site: LiveSite) -> None:
    site.load(5)
    site.begin()
    site.until(lambda: site.ready() == 1, "the first replica")
    site.coloc("pause", "the operator looks")
    colocd = site.colocd
    assert colocd is not None
    site.until(lambda: "paused: the operator looks" in colocd.status()[-1], "a paused cycle")
    ref = site.submit("train", 2)
    cycles = len(colocd.status())
    site.until(lambda: len(colocd.status()) > cycles + 2, "more paused cycles")
    assert site.job(ref).state is JobState.PENDING
    assert site.ask("status")["paused"] == "the operator looks"
    colocd.kill()  # a pause outlives the daemon
    site.start()
    assert site.ask("status")["paused"] == "the operator looks"
    assert site.job(ref).state is JobState.PENDING
    site.coloc("resume")
    site.until(lambda: site.job(ref).state is JobState.RUNNING, "the start of the batch job")
    assert len(site.replicas()) == 1


def test_reload(site: LiveSite) -> None:
    site.write_config("advise")
    site.load(5)
    site.begin()
    colocd = site.colocd
    assert colocd is not None
    good = site.config.read_text()
    site.config.write_text('mode = "perhaps"\n')
    colocd.hup()
    site.until(lambda: "the configuration was not reloaded" in site.tail(), "the refusal of a bad file")
    assert "perhaps" in site.tail()
    cycles = len(colocd.status())
    site.until(lambda: len(colocd.status()) > cycles, "a cycle with the old configuration")
    assert colocd.status()[-1].startswith("advice only")
    site.config.write_text(good.replace('mode = "advise"', 'mode = "act"'))
    colocd.hup()
    site.until(lambda: site.ready() == 1, "a replica in act mode")
    assert colocd.said("RELOADING=1") == 2
    assert colocd.said("READY=1") == 3
