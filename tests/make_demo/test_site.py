"""The demo's batch job on a real Slurm, with the part of coloc played by hand: asked, saved, requeued, finished."""

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from demo import files
from demo.report import JobRecord, completed, steps_lost
from demo.site import Site

from colocd.clock import SystemClock
from colocd.core.comment import parse_comment

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(180)]
CLOCK = SystemClock()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="cs-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        found = Site(Path(folder), CLOCK)
        try:
            found.up()
            yield found
        finally:
            found.cluster.down()


def wait_for(what: Callable[[], object], text: str, seconds: float = 60.0) -> None:
    until = CLOCK.monotonic() + seconds
    while not what():
        assert CLOCK.monotonic() < until, text
        CLOCK.sleep(0.1)


def told(site: Site, ref: str) -> str:
    return site.cluster.run("scontrol", "-d", "-o", "show", "job", ref).stdout


def steps(job: JobRecord) -> int:
    journal = job.folder / "journal"
    return len(journal.read_text().splitlines()) if journal.exists() else 0


def test_a_job_asked_saves_and_goes_on_elsewhere(site: Site) -> None:
    user = site.people.batch[-1]
    job = site.submit(files.BacklogJob(name="train-1", gpus=2, steps=40), user)
    said = told(site, job.ref)
    assert f"UserId={user}(" in said
    assert "JobState=PENDING" in said, "coloc decides when it starts"
    site.cluster.run("scontrol", "release", job.ref)
    wait_for(lambda: steps(job) >= 5, "it does not start")
    (holder,) = site.running()
    assert (holder.job, holder.count, holder.ours) == (job.ref, 2, False)
    site.cluster.run("scancel", "-b", "-s", "USR1", job.ref)

    def yielded() -> bool:
        comment = re.search(r" Comment=(.*?\])", told(site, job.ref))
        mark = parse_comment(comment.group(1)) if comment else None
        return mark is not None and mark.yielded is not None and mark.saved is not None

    wait_for(yielded, "it does not acknowledge")
    done = steps(job)
    site.cluster.run("scontrol", "requeuehold", job.ref)
    wait_for(lambda: "JobState=PENDING" in told(site, job.ref), "it does not give the GPUs back")
    assert site.running() == ()
    assert steps(job) == done
    CLOCK.sleep(2.0)  # Slurm fails a job that starts in the second of its requeue ("job credential revoked")
    site.cluster.run("scontrol", "release", job.ref)
    site.cluster.run("scontrol", "update", f"jobid={job.ref}", "StartTime=now")
    wait_for(lambda: completed(job), "it does not end")
    assert steps_lost(job.folder / "journal") == 0
    wait_for(lambda: not site.running(), "its GPUs are not free")


def test_a_replica_says_where_it_sits(site: Site) -> None:
    """The service's script as a job: healthy on its port, in the log with its GPUs, gone after the cancellation."""
    from urllib.request import urlopen

    from colocd.servicefile import parse_service

    site.begin_day(CLOCK.now())
    spec = parse_service((site.run / "chat.toml").read_text(), "chat.toml")
    words = ["--parsable", "--partition=online", "--gpus-per-node=4", "--nodes=1", "--output=/dev/null"]
    env = f"--export=PATH,COLOC_PORT={spec.port_base},COLOC_SLOT=0"
    ref = site.cluster.run("sbatch", *words, env, text=spec.script).stdout.strip()
    live = site.day / "live"
    wait_for(lambda: list(live.iterdir()), "it does not become ready")
    with urlopen(f"http://127.0.0.1:{spec.port_base}/metrics", timeout=5) as answer:
        assert "vllm:num_requests_running" in answer.read().decode()
    (holder,) = [job for job in site.running() if job.job == ref]
    assert holder.count == 4
    line = (site.day / "replicas.log").read_text().splitlines()[-1]
    assert f"job={ref} node={next(iter(holder.gpus))} " in line
    site.cluster.run("scancel", ref)
    wait_for(lambda: not list(live.iterdir()), "it leaves its heartbeat behind")
