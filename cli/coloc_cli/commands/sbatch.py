"""`coloc sbatch`: the wrapper of sbatch, see `coloc_cli.sbatch_main`."""

import click

from coloc_cli.app import App, pass_app


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@pass_app
def command(app: App, arguments: tuple[str, ...]) -> int:
    """Submit a batch job; takes all options of sbatch."""
    from coloc_cli.sbatch_main import run

    return run(list(arguments), app.environ, config=app.config)
