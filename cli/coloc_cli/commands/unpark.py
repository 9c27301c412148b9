"""`coloc unpark`: a job's owner lets it try again."""

import os

import click

from coloc_cli import output
from coloc_cli.app import App, pass_app, shared_options
from coloc_cli.jobmark import record_unpark


@click.command()
@click.argument("job")
@shared_options
@pass_app
def command(app: App, job: str) -> None:
    """Let a parked batch job try again.

    JOB is a job id (17, 17_3). It is written into the job's Slurm comment, so Slurm decides whether you may: owners and
    operators. Mend first what made the job die; `coloc explain JOB` says what coloc saw.
    """
    record_unpark(job, os.environ, app.clock)
    output.say(f"job {output.clean(job)} may be tried again: if it was parked, it starts when there is room for it")
