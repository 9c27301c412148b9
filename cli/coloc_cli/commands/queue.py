"""`coloc queue`: coloc's batch jobs, one line a job."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from coloc_cli.array_rows import condensed
from coloc_cli.words import span

TITLES = ("JOBID", "USER", "NAME", "STATE", "GPUS", "EV", "SAVED", "STARTS", "REASON")


@click.command()
@click.option("-u", "--user", metavar="NAME[,NAME]", help="Only jobs of these users.")
@click.option("--me", is_flag=True, help="Only your own jobs.")
@click.option("-r", "--array", is_flag=True, help="A line for each task of an array, also of those that wait.")
@json_option
@shared_options
@pass_app
def command(app: App, user: str | None, me: bool, array: bool, as_json: bool) -> None:
    """Batch jobs in coloc's care, like squeue.

    EV: how often it was evicted. SAVED: how long ago its last checkpoint was. STARTS: in how long it is expected to start
    (10m-2h; >24h: no valley long enough for it is foreseen in the next 24 hours; ?: cannot be foreseen). Tasks of an array that
    wait have one line, as in squeue; --json has them all.
    """
    with app.client() as client:
        jobs = client.queue()
    wanted = {name for name in (user or "").split(",") if name}
    if me:
        wanted.add(_own_name())
    if wanted:
        jobs = [job for job in jobs if job.get("user") in wanted]
    if as_json:
        output.as_json(jobs)
        return
    if not jobs:
        output.say("no jobs")
        return
    now = app.clock.now()
    rows = [
        (
            *(job.get(key) for key in ("ref", "user", "name", "state", "gpus", "evictions")),
            "-" if job.get("saved") is None else span(now - job["saved"]),
            window(job.get("expected"), job.get("foreseen_until"), now),
            job.get("reason") or "-",
        )
        for job in (jobs if array else condensed(jobs))
    ]
    output.show(TITLES, rows, right="JOBID GPUS EV")


def window(expected: list[float | None] | None, until: float | None, now: float) -> str:
    """Expected start from now: `10m-2h`; `>24h`: no valley long enough is foreseen, and so far one looked; `?` when nothing is.

    `-` for a job that does not wait.
    """
    if not expected:
        return "-"
    first, last = (None if t is None else _short(max(0.0, t - now)) for t in expected)
    if first is None:
        return "?" if until is None else f">{_short(max(0.0, until - now))}"
    return first if first == last else f"{first}-{last or '?'}"


def _short(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.0f}m"
    return f"{seconds / 3600:.0f}h" if seconds < 172_800 else f"{seconds / 86400:.0f}d"


def _own_name() -> str:
    import os
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
