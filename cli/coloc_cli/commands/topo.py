"""`coloc topo`: the links between GPUs: look at them, check Slurm's files against them, give them to coloc."""

import click

from coloc_cli.app import shared_options


@click.group()
def command() -> None:
    """Links between GPUs: show, check, import, dump."""


@command.command()
@click.option("--host", help="Name to write into the dump, as Slurm calls the node (default: this host's).")
@shared_options
def dump(host: str | None) -> None:
    """Print what NVML says of this node as JSON.

    Run it on a GPU node; `coloc topo import`, `show` and `check` read it on the head node. It changes nothing.
    """
    from coloc_cli import topo_dump

    topo_dump.run(host)
