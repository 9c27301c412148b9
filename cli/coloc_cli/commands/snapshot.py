"""`coloc snapshot`: the last view as a file that `coloc plan --view` reads."""

import os

import click

from coloc_cli import output
from coloc_cli.app import App, pass_app, shared_options
from colocd.errors import BadFile


@click.command()
@click.argument("file", default="-")
@shared_options
@pass_app
def command(app: App, file: str) -> None:
    """Write the last view to a file.

    FILE is written whole or not at all; without it, or with `-`, the view goes to stdout. `coloc plan --view FILE` plans
    on it.
    """
    with app.client() as client:
        view = client.view()
    if file == "-":
        output.raw(view)
        return
    part = f"{file}.part.{os.getpid()}"
    try:
        with open(part, "xb") as out:
            out.write(view)
        os.replace(part, file)
    except OSError as error:
        raise BadFile(
            f"{file} cannot be written: {error.strerror}", "name a file in a folder you may write to"
        ) from None
    finally:
        if os.path.exists(part):
            os.unlink(part)
