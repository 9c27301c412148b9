"""`coloc topo`: the links between GPUs: look at them, check Slurm's files against them, give them to coloc."""

import click

from coloc_cli.app import App, json_option, pass_app, shared_options


@click.group()
def command() -> None:
    """Links between GPUs: show, check, import, dump."""


@command.command()
@click.argument("words", nargs=-1, metavar="[NODE|FILE]...")
@json_option
@shared_options
@pass_app
def show(app: App, words: tuple[str, ...], as_json: bool) -> None:
    """Draw the islands of nodes and files.

    NODE: a node, or a host list (n[1-4]); who sits on which GPU is what colocd saw last. FILE: an output of `nvidia-smi topo
    -m`, a dump of `coloc topo dump`, or a gres.conf; such files need no daemon. Without either: one line a node.
    """
    from coloc_cli import topo_show

    topo_show.run(app, words, as_json)


@command.command()
@click.option("--host", help="Name to write into the dump, as Slurm calls the node (default: this host's).")
@shared_options
def dump(host: str | None) -> None:
    """Print what NVML says of this node as JSON.

    Run it on a GPU node; `coloc topo import`, `show` and `check` read it on the head node. It changes nothing.
    """
    from coloc_cli import topo_dump

    topo_dump.run(host)
