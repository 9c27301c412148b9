"""`coloc history`: the newest decisions and handovers."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from coloc_cli.words import local


@click.command()
@click.option("-n", "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many.")
@json_option
@shared_options
@pass_app
def command(app: App, limit: int, as_json: bool) -> None:
    """The newest decisions and handovers."""
    with app.client() as client:
        entries = client.history(limit)
    if as_json:
        output.as_json(entries)
        return
    if not entries:
        output.say("no decisions yet")
        return
    rows = [(local(e.get("at")), e.get("subject"), e.get("kind"), e.get("text")) for e in entries]
    output.show(("TIME", "SUBJECT", "DECISION", "BECAUSE"), rows)
