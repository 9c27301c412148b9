"""`coloc reclaim`: an operator's word that budgets of evictions do not count for once."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from colocd.errors import BadRequest


@click.command()
@click.argument("service")
@click.option(
    "--override", metavar="REASON", help="Ignore the budgets for the service's next replica; REASON is recorded."
)
@click.option("--cancel", is_flag=True, help="Take an override back that was not used yet.")
@json_option
@shared_options
@pass_app
def command(app: App, service: str, override: str | None, cancel: bool, as_json: bool) -> None:
    """Let a service's next reclaim ignore the budgets.

    When SERVICE is short of replicas and only budgets keep jobs from being evicted (evictions per job, per user, per hour,
    protected run time, deadline), one more replica is placed as if there were none, once. Jobs that were not submitted
    through coloc stay out of bounds.
    """
    if cancel == (override is not None):
        raise BadRequest("say either --override REASON or --cancel", "see `coloc reclaim --help`")
    words = " ".join((override or "").split())
    if not cancel and not words:
        raise BadRequest("the reason of an override is empty", "say why, for the history")
    with app.client() as client:
        answer = client.override(service, "" if cancel else words)
    if as_json:
        output.as_json(answer)
    elif cancel:
        output.say(f"reclaims of {output.clean(service)} obey the budgets again")
    else:
        output.say(f"the next replica of {output.clean(service)} that is short may be placed whatever the budgets say")
