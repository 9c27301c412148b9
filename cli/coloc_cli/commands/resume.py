"""`coloc resume`: end a pause."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options


@click.command()
@json_option
@shared_options
@pass_app
def command(app: App, as_json: bool) -> None:
    """Act again after `coloc pause`."""
    with app.client() as client:
        answer = client.resume()
    if as_json:
        output.as_json(answer)
        return
    output.say("resumed; the next cycle acts again")
