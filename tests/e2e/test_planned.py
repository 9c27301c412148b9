"""A peak that the forecast sees: victims go right after their own checkpoint, replicas are ready before it, people are told."""

import subprocess
import sys

import pytest
from tests.helpers.live import LiveSite

from coloc_cli.client import Client
from coloc_cli.jobmark import read_comment
from colocd.config import ApiConfig
from colocd.core.view import JobState
from colocd.store.records import Handover, LoadSample
from colocd.testcluster import PrivateCluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(120)]

SEASON, RISE, FALL = 90.0, 17.0, 23.0
QUIET, PEAK = 5.0, 25.0
EVERY, RATE = 5.0, 20
SIZES = (4, 4, 4, 4, 4, 4, 4)
AS_NOBODY = """
import os, sys
from coloc_cli import jobmark, main
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main.run(sys.argv[1:]))
"""


def remember(site: LiveSite, begin: float) -> None:
    """Four seasons before `begin`, as if colocd had read them, and the same again for the service itself."""
    with site.store() as store:
        past = [k * 0.5 for k in range(int(-8 * SEASON), 0)]
        store.add_load(
            [LoadSample(service="chat", at=begin + t, value=PEAK if RISE <= t % SEASON < FALL else QUIET) for t in past]
        )
    points = [(0.0, QUIET), (RISE, QUIET), (RISE + 0.1, PEAK), (FALL, PEAK), (FALL + 0.1, QUIET)]
    site.curve(begin, points)


def submit(site: LiveSite, name: str, gpus: int, *more: str) -> str:
    """A job that cannot be asked: it saves every EVERY seconds and says so; TERM ends it where it is."""
    words = ["--parsable", f"--job-name={name}", f"--gpus-per-node={gpus}", "--nodes=1", "--ntasks=1"]
    words += [*more, f"--coloc-interval={EVERY:g}", f"--output={site.jobs}/{name}.log", "--open-mode=append"]
    job = [*site.programs("train_job.sh", "train_job.py"), str(site.jobs / name), "100000"]
    job += [f"--rate={RATE}", f"--every={EVERY:g}"]
    env = {"COLOC_COMMAND": site.command, "COLOC_DEMO_PYTHON": site.python}
    return site.run("coloc_cli.sbatch_main", *words, *job, check=True, **env).stdout.strip()


def test_a_foreseen_peak(clean_cluster: PrivateCluster) -> None:
    with LiveSite(
        clean_cluster, policy={"plan_ahead": 10.0}, service={"season": SEASON, "lead_time": 0.5, "max_replicas": 3}
    ) as site:
        site.upgrade()
        site.start()
        names = [f"train-{k}" for k in range(len(SIZES))]
        refs = [submit(site, name, gpus) for name, gpus in zip(names, SIZES, strict=True)]
        site.until(
            lambda: all(j.checkpoint and j.checkpoint.saved for j in site.slurm.jobs(refs).values()),
            "the first checkpoint of all batch jobs",
        )
        begin = site.clock.now()
        remember(site, begin)
        site.coloc("service", "apply", str(site.base / "chat.toml"))

        # Those who will have to go are told before: they are waited for.
        def announced() -> bool:
            with Client(ApiConfig(socket=f"{site.base}/c.sock", admin_socket=f"{site.base}/a.sock")) as client:
                told = [str(client.explain(ref)) for ref in refs]
            return any("its GPUs are wanted for chat; coloc waits for the next checkpoint of job" in t for t in told)

        site.until(announced, "a word to the coming victims", begin + RISE - site.clock.now())
        site.until(lambda: site.ready() == 3, "replicas for the peak")
        assert site.clock.now() < begin + RISE  # before it, by the forecast alone
        with site.store() as store:
            reclaims = [h for h in store.handovers() if h.victims]
            saved = {row.ref: row.saved or 0.0 for row in store.jobs()}
        victims = [ref for h in reclaims for ref in h.victims]
        assert len(victims) == 2
        late: list[float] = []
        for h in reclaims:
            assert h.why.startswith("a replica more is foreseen to be needed")
            assert (h.state, h.data["emergency"]) == ("released", False)
            # Right after its own checkpoint (told in whole seconds), where any other moment costs up to EVERY.
            late += [h.data["told_at"] - saved[ref] for ref in h.victims]
        # A busy machine may tell one late; blind moments would lie anywhere between two checkpoints. One that was due, and comes
        # up to a second later than whole seconds foretell, may just miss the latest moment.
        assert any(t < 3.0 or EVERY <= t < EVERY + 1.0 for t in late), (late, reclaims, saved)

        # The queue and the story of a victim, as its user reads them.
        def queued() -> bool:
            lines = [line for line in site.coloc("queue").stdout.splitlines() if line.split()[:1] and "waits" in line]
            return sum(line.split()[0] in victims and "pending" in line for line in lines) == 2

        site.until(queued, "both victims in the queue, with a reason", begin + FALL - site.clock.now())
        for ref in victims:
            story = site.coloc("explain", ref).stdout
            for words in ("was evicted", "for service chat", "its last checkpoint was"):
                assert words in story, (words, story)
            assert "it is expected to go on in" in story or "no valley long enough for it" in story, story

        # The peak goes, the replicas drain, the victims go on where they had saved.
        site.until(lambda: site.states(refs) == {JobState.RUNNING}, "their resume")
        assert site.clock.now() > begin + FALL
        for ref in victims:
            assert site.job(ref).restarts == 1
            name = names[refs.index(ref)]
            site.until(lambda name=name: "\n1 " in (site.jobs / name / "journal").read_text(), "their first step")  # type: ignore[misc]
        assert site.lost(*names) <= 2 * RATE * 2.0


def test_victims_go_one_by_one(clean_cluster: PrivateCluster) -> None:
    """The one that nobody can ask goes at once; the one that saves when it is asked works on, until the latest moment."""
    with LiveSite(clean_cluster, service={"max_replicas": 3}) as site:
        site.upgrade()
        site.start()
        site.curve(site.clock.now(), [(0.0, QUIET), (60.0, QUIET)])
        site.coloc("service", "apply", str(site.base / "chat.toml"))
        site.until(lambda: site.ready() == 1, "the replica that the load needs")
        mute = submit(site, "mute", 2, "--nodelist=n1")
        site.until(lambda: bool(site.job(mute).gpus), "the first job")
        asked = site.submit("asked", 2, nodes="n1")
        site.until((site.jobs / "asked" / "journal").exists, "the second job's first step")
        now = site.clock.now()
        wanted = site.job(mute).gpus["n1"] | site.job(asked).gpus["n1"]  # type: ignore[index]
        waits = {"moments": {asked: 5.0}, "latest": 5.0, "decided_at": now}
        with site.store() as store:
            number = store.add_handover(
                Handover(
                    service="chat",
                    slot=2,
                    places={"n1": wanted},
                    level="NVLINK",
                    victims=(mute, asked),
                    created_at=now,
                    updated_at=now,
                    data={"key": "0123456789abcdef", "t": {"planned": now}, **waits},
                )
            ).id
        site.until(lambda: site.job(mute).state is JobState.PENDING, "the first victim's requeue")
        assert site.job(asked).state is JobState.RUNNING
        assert "has to give up its GPUs for service chat" in site.coloc("explain", asked).stdout

        def released() -> bool:
            with site.store() as store:
                h = store.handover(number)
            return h is not None and h.state == "released"

        site.until(released, "the replica")
        with site.store() as store:
            h = store.handover(number)
            rows = {row.ref: row for row in store.jobs()}
        assert h is not None
        assert h.data["level_got"] == "NVLINK"  # another island, if one is free: Slurm chooses
        assert h.data["told_at"] - now >= 5.0
        assert (rows[mute].evicted_at or 0.0) < now + 4.0
        assert [rows[ref].evictions for ref in (mute, asked)] == [1, 1]
        assert site.lost("asked") == 0


@pytest.mark.root
@pytest.mark.parametrize("words", [["checkpointed", "--yield"], ["unpark"]], ids=["checkpointed", "unpark"])
def test_nobody_speaks_for_somebody_elses_job(clean_cluster: PrivateCluster, words: list[str]) -> None:
    with LiveSite(clean_cluster) as site:
        ref = submit(site, "mine", 1)
        before = read_comment(ref, site.environment, site.clock)
        said = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, *words, *([ref] if words == ["unpark"] else [])],
            env={**site.environment, "SLURM_JOB_ID": ref},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert said.returncode == 77, said
        assert f"job {ref} is not yours" in said.stderr
        assert "Traceback" not in said.stderr
        assert read_comment(ref, site.environment, site.clock) == before == "[coloc v=1 interval=5]"
