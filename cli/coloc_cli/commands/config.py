"""`coloc config`: look at the configuration file before the daemon does."""

from pathlib import Path
from typing import Any

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options


@click.group()
def command() -> None:
    """Check the configuration file."""


@command.command()
@click.argument("file", required=False)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@click.option(
    "--live", is_flag=True, help="Ask Slurm, too: rights, partitions, preemption, nodes. Run it as colocd's user."
)
@json_option
@shared_options
@pass_app
def check(app: App, file: str | None, strict: bool, live: bool, as_json: bool) -> int:
    """Check the configuration file.

    FILE: instead of the one that applies. Mistakes end with exit code 78 and the line; warnings about legal but odd
    values are printed, and count only with --strict. With --live, what coloc needs of Slurm and does not find is an
    error, too.
    """
    from colocd.config import check_config
    from colocd.errors import BadConfig

    path = file or app.config_path
    warnings = check_config(Path(path))
    found = _ask_slurm(Path(path)) if live else None
    errors = [f for f in found["findings"] if f["weight"] == "error"] if found else []
    worse = len(warnings) + (len(found["findings"]) - len(errors) if found else 0)
    if as_json:
        output.as_json({"file": path, "warnings": warnings, **({"live": found} if found else {})})
    else:
        for warning in warnings:
            output.say(f"warning: {warning}")
        if found:
            output.say(f"Slurm {found['slurm']}, asked as {found['user']}")
            for finding in found["findings"]:
                output.say(f"{finding['weight']}: {finding['text']}\n  next: {finding['hint']}")
        counted = f"{len(errors)} error{'' if len(errors) == 1 else 's'}, " if live else ""
        output.say(f"{path}: {counted}{worse or 'no'} warning{'' if worse == 1 else 's'}")
    return BadConfig.exit_code if errors or (strict and worse) else 0


def _ask_slurm(path: Path) -> dict[str, Any]:
    """What Slurm says, as the calling user; raises `SlurmUnreachable`."""
    import msgspec

    from colocd.clock import SystemClock
    from colocd.config import load_config
    from colocd.site_check import examine
    from colocd.slurm import open_slurm

    config = load_config(path, {})
    slurm = open_slurm(config.slurm, SystemClock())
    site, cluster = slurm.site(), slurm.read()
    findings = msgspec.to_builtins(examine(site, cluster, config))
    return {"slurm": cluster.version, "user": site.user, "privileged": site.privileged, "findings": findings}
