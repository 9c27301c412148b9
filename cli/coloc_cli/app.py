"""What every command is given: clock, environment, global options; and the options all commands share."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from coloc_cli import settings
from colocd.clock import Clock, SystemClock

if TYPE_CHECKING:
    from coloc_cli.client import Client

F = TypeVar("F", bound=Callable[..., Any])


class App:
    """One run of the command line. `config` None: the usual file."""

    def __init__(self, clock: Clock | None = None, environ: Mapping[str, str] | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        self.config: str | None = None
        self.verbose = False

    @property
    def config_path(self) -> str:
        """The configuration file that applies."""
        return settings.config_path(self.config, self.environ)

    def client(self) -> "Client":
        """A client of the running daemon, as a context manager."""
        from coloc_cli.client import Client

        return Client(settings.api_config(self.config, self.environ))


pass_app = click.make_pass_decorator(App)


def _set_config(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(App).config = value


def _set_verbose(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(App).verbose = True


def shared_options(function: F) -> F:
    """--config and --verbose: the same before and after the command's name."""
    function = click.option(
        "--config", metavar="FILE", callback=_set_config, expose_value=False, help="Configuration file of colocd."
    )(function)
    return click.option(
        "-v",
        "--verbose",
        is_flag=True,
        callback=_set_verbose,
        expose_value=False,
        help="Show the traceback of an unexpected error.",
    )(function)


def json_option(function: F) -> F:
    """--json: the answer for programs, as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)
