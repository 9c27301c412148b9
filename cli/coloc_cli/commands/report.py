"""`coloc report`: what batch jobs used, saved and lost, per user and month."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options

TITLES = ("MONTH", "USER", "JOBS", "RUNS", "EVICTED", "USED", "SAVED", "LOST", "BY EVICTION")


@click.command()
@click.option("-m", "--month", metavar="YYYY-MM", help="Only this month (UTC).")
@click.option("-u", "--user", metavar="NAME", help="Only this user.")
@json_option
@shared_options
@pass_app
def command(app: App, month: str | None, user: str | None, as_json: bool) -> None:
    """GPU-hours that batch jobs used, saved and lost.

    Per user and month (UTC). LOST is the work since a run's last checkpoint when it ended without finishing; BY EVICTION the
    part of it that coloc caused. A job that finishes has saved everything.
    """
    with app.client() as client:
        rows = client.report(month, user)
    if as_json:
        output.as_json(rows)
        return
    if not rows:
        output.say("no batch jobs have run")
        return
    keys = ("used", "saved", "lost", "lost_by_eviction")
    lines = [
        (*(r.get(key) for key in ("month", "user", "jobs", "runs", "evictions")), *(f"{r[key]:.1f}" for key in keys))
        for r in rows
    ]
    output.show(TITLES, lines, right="JOBS RUNS EVICTED USED SAVED LOST BY EVICTION")
