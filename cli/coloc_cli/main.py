"""Entry point of `coloc`: finds the command, and turns every error into a sentence, a next step and an exit code."""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

import click

from coloc_cli import output
from coloc_cli.app import App, shared_options
from colocd.errors import BadRequest, ColocError

COMMANDS = {
    "status": "What colocd sees and does now.",
    "queue": "Batch jobs in coloc's care, like squeue.",
    "plan": "What coloc would do now, and why.",
    "explain": "Why a job, service or handover is where it is.",
    "forecast": "A service's foreseen load; backtest on a recorded one.",
    "valleys": "GPUs that no service will need, by time and island.",
    "history": "The newest decisions and handovers.",
    "report": "GPU-hours that batch jobs used, saved and lost.",
    "reclaim": "Let a service's next reclaim ignore the budgets.",
    "unpark": "Let a parked batch job try again.",
    "pause": "Stop acting until `coloc resume`.",
    "resume": "Act again after `coloc pause`.",
    "topo": "Links between GPUs: show, check, import, dump.",
    "service": "Apply, list, show and remove services.",
    "sbatch": "Submit a batch job; takes all options of sbatch.",
    "presets": "Presets of `coloc sbatch`, by library.",
    "checkpointed": "Inside a job: say that a checkpoint is complete.",
    "snapshot": "Write the last view to a file.",
    "config": "Check the configuration file.",
    "db": "Create, upgrade or check the database.",
    "testcluster": "Private Slurm cluster on this machine, to try things out.",
}
"""Every command with its line in `coloc --help`, so that asking for help imports none of them."""

INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run; module `coloc_cli.commands.NAME` holds `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of a working day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command; None: there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"coloc_cli.commands.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The section of `--help`, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("coloc")
    except PackageNotFoundError:
        number = "(not installed)"
    output.say(f"coloc {number}")
    ctx.exit()


@click.group(cls=LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-V", "--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Show the release."
)
@shared_options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Co-location of online LLM services and batch jobs on Slurm."""
    if ctx.invoked_subcommand is None:
        output.say(ctx.get_help())


def run(argv: Sequence[str], app: App | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code; never raises."""
    app = app or App()
    try:
        try:
            code = _invoke(argv, app)
        finally:
            sys.stdout.flush()
    except click.ClickException as error:
        output.complain(BadRequest(error.format_message(), _usage_hint(error)))
        return BadRequest.exit_code
    except ColocError as error:
        if app.verbose:
            _traceback()
        output.complain(error)
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader is gone (`coloc queue | head`): let the interpreter's last flush go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED
    except Exception as error:
        if app.verbose:
            _traceback()
        told = " ".join(str(error).split()) or "no reason given"
        output.complain(ColocError(f"unexpected {type(error).__name__}: {told}"))
        return ColocError.exit_code
    return code


def _invoke(argv: Sequence[str], app: App) -> int:
    # Not Group.main(): it turns a broken pipe into exit code 1 and prints usage errors in its own way.
    try:
        with cli.make_context("coloc", list(argv), obj=app) as ctx:
            result = cli.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        # A group without a command: click 8.1 shows its help, later releases call that an error.
        if type(error).__name__ != "NoArgsIsHelpError" or error.ctx is None:
            raise
        output.say(error.ctx.get_help())
        return 0
    return result if isinstance(result, int) else 0


def _usage_hint(error: click.ClickException) -> str:
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    return f"see `{ctx.command_path} --help`" if ctx is not None else BadRequest.hint


def _traceback() -> None:
    import traceback

    output.warn(traceback.format_exc().rstrip())


def main() -> NoReturn:
    """Console script `coloc`."""
    if "_COLOC_COMPLETE" in os.environ:
        cli.main(prog_name="coloc")
    output.settle()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
