"""`coloc testcluster`: a private Slurm on this machine."""

from pathlib import Path

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options


@click.group()
def command() -> None:
    """Private Slurm cluster on this machine, to try things out."""


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--nodes", type=click.IntRange(1, 64), default=4, show_default=True, help="How many nodes of 8 GPUs.")
@json_option
@shared_options
@pass_app
def up(app: App, directory: Path, nodes: int, as_json: bool) -> None:
    """Start a cluster with everything it needs in DIRECTORY; it runs until `down`.

    The GPUs are empty files: jobs get indices, not devices. Needs the packages slurm-wlm and munge, but not root.
    """
    from colocd.testcluster import PrivateCluster

    cluster = PrivateCluster(directory, nodes=nodes, clock=app.clock).up(keep=True)
    if as_json:
        output.as_json({"directory": str(cluster.directory), "conf": str(cluster.conf), "nodes": nodes})
        return
    output.say(f"{nodes} nodes of 8 GPUs are up; to use them:")
    output.say(f"  export SLURM_CONF={cluster.conf}")
    output.say(f"and in the end:  coloc testcluster down {directory}")


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
@shared_options
@pass_app
def down(app: App, directory: Path) -> None:
    """Stop the cluster in DIRECTORY and remove what it wrote."""
    from colocd.testcluster import down as take_down

    take_down(directory)
    output.say(f"the cluster in {output.clean(directory)} is down")
