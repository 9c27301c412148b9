"""`coloc config`: look at the configuration file before the daemon does."""

from pathlib import Path

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options


@click.group()
def command() -> None:
    """Check the configuration file."""


@command.command()
@click.argument("file", required=False)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@json_option
@shared_options
@pass_app
def check(app: App, file: str | None, strict: bool, as_json: bool) -> int:
    """Check the configuration file.

    FILE: instead of the one that applies. Mistakes end with exit code 78 and the line; warnings about legal but odd
    values are printed, and count only with --strict.
    """
    from colocd.config import check_config
    from colocd.errors import BadConfig

    path = file or app.config_path
    warnings = check_config(Path(path))
    if as_json:
        output.as_json({"file": path, "warnings": warnings})
    else:
        for warning in warnings:
            output.say(f"warning: {warning}")
        output.say(f"{path}: {len(warnings) or 'no'} warning{'' if len(warnings) == 1 else 's'}")
    return BadConfig.exit_code if strict and warnings else 0
