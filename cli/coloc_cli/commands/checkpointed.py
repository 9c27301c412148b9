"""`coloc checkpointed`: a job says that its work up to now is safe."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options


@click.command()
@click.option("--yield", "give_up", is_flag=True, help="Also say that coloc may take the GPUs now.")
@json_option
@shared_options
@pass_app
def command(app: App, give_up: bool, as_json: bool) -> None:
    """Inside a job: say that a checkpoint is complete.

    Writes the time into the job's Slurm comment, as the job's own user. Needs neither colocd nor its configuration. With
    --yield in the trap of the checkpoint signal: coloc then takes the GPUs without waiting for the end of the grace.
    """
    from coloc_cli.jobmark import record_checkpoint

    facts = record_checkpoint(app.environ, app.clock, give_up=give_up)
    if as_json:
        output.as_json(facts)
    elif not facts["managed"]:
        output.warn(f"coloc: job {facts['job']} is not in coloc's care, so there is nothing to record")
