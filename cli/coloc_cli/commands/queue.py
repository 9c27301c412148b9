"""`coloc queue`: coloc's batch jobs, one line a job."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from coloc_cli.words import ago

TITLES = ("JOBID", "USER", "NAME", "STATE", "GPUS", "EVICTED", "SAVED", "REASON")


@click.command()
@click.option("-u", "--user", metavar="NAME[,NAME]", help="Only jobs of these users.")
@click.option("--me", is_flag=True, help="Only your own jobs.")
@json_option
@shared_options
@pass_app
def command(app: App, user: str | None, me: bool, as_json: bool) -> None:
    """Batch jobs in coloc's care, like squeue."""
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
            "-" if job.get("saved") is None else ago(job["saved"], now),
            job.get("reason") or "-",
        )
        for job in jobs
    ]
    output.show(TITLES, rows, right="JOBID GPUS EVICTED")


def _own_name() -> str:
    import os
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
