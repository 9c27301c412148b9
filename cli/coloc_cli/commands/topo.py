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
    -m` or `rocm-smi --showtopo`, a dump of `coloc topo dump`, a gres.conf, or Slurm's topology.conf, topology.yaml or
    `scontrol show topology` (`-`: stdin); files need no daemon. Without either: one line a node, and the blocks, leaf
    switches and NVLink domains they are in, as far as known.
    """
    from coloc_cli import topo_show

    topo_show.run(app, words, as_json)


@command.command()
@click.option("--slurm-conf", metavar="FILE", help="slurm.conf of the cluster to ask, or to read.")
@click.option("--gres-conf", metavar="FILE", help="The gres.conf to check (default: beside slurm.conf).")
@click.option(
    "--nvml",
    "facts",
    multiple=True,
    metavar="[NODES=]FILE",
    help="Dump of `coloc topo dump`, or NODES= and an output of `nvidia-smi topo -m`; may be repeated.",
)
@click.option("--release", metavar="X.Y", help="Check for this release of Slurm instead of the running one.")
@click.option("--offline", is_flag=True, help="Do not ask slurmctld; read slurm.conf.")
@json_option
@shared_options
@pass_app
def check(
    app: App,
    slurm_conf: str | None,
    gres_conf: str | None,
    facts: tuple[str, ...],
    release: str | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Check gres.conf against the servers and against Slurm.

    Facts of servers come from --nvml and from the configuration's topology sources. Ends with exit code 78 when there are
    errors or warnings, and prints gres.conf lines that would be right; notes alone end with 0.
    """
    from coloc_cli import topo_check

    return topo_check.run(app, topo_check.Options(slurm_conf, gres_conf, facts, release, offline), as_json)


@command.command("import")
@click.argument("file")
@click.option("--nodes", required=True, metavar="HOSTLIST", help="The nodes of this kind: n[1-4],gpu07.")
@click.option(
    "--out", metavar="FILE", help="Write there and print what to put into the configuration (default: stdout)."
)
@click.option("--order", metavar="I,J,...", help="What FILE calls Slurm's GPU 0, 1 and so on.")
@click.option("--gres-conf", metavar="FILE", help="Whose File settings give the order (default: Slurm's).")
@shared_options
@pass_app
def import_(app: App, file: str, nodes: str, out: str | None, order: str | None, gres_conf: str | None) -> None:
    """Make a topology file for the configuration.

    FILE: a dump of `coloc topo dump`, or an output of `nvidia-smi topo -m` or `rocm-smi --showtopo` (`-`: stdin). It is
    checked, and its GPUs are put into Slurm's order.
    """
    from coloc_cli import topo_import

    topo_import.run(app, topo_import.Options(file, nodes, out, order, gres_conf))


@command.command()
@click.option("--host", help="Name to write into the dump, as Slurm calls the node (default: this host's).")
@shared_options
def dump(host: str | None) -> None:
    """Print what NVML says of this node as JSON.

    Run it on a GPU node; `coloc topo import`, `show` and `check` read it on the head node. It changes nothing.
    """
    from coloc_cli import topo_dump

    topo_dump.run(host)
