"""`coloc pause`: the global stop switch."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options


@click.command()
@click.argument("reason", nargs=-1)
@json_option
@shared_options
@pass_app
def command(app: App, reason: tuple[str, ...], as_json: bool) -> None:
    """Stop acting until `coloc resume`.

    Open handovers are finished or rolled back first; Slurm goes on as if coloc were not there. REASON is shown by
    `coloc status`.
    """
    with app.client() as client:
        answer = client.pause(" ".join(reason))
    if as_json:
        output.as_json(answer)
        return
    output.say("paused; open handovers are finished or rolled back first")
