"""`coloc db`: the database schema."""

from pathlib import Path

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from colocd.errors import SchemaOutdated


@click.group()
def command() -> None:
    """Create, upgrade or check the database."""


@command.command()
@click.option("--url", help="SQLAlchemy URL, instead of the configuration's database.url.")
@json_option
@shared_options
@pass_app
def upgrade(app: App, url: str | None, as_json: bool) -> None:
    """Create the schema or bring it to this release's revision."""
    from colocd.store.schema import upgrade as bring_up

    before, after = bring_up(_url(app, url))
    if as_json:
        output.as_json({"before": before, "after": after})
    elif before == after:
        output.say(f"nothing to do: the schema is at {after}")
    elif before is None:
        output.say(f"schema created at {after}")
    else:
        output.say(f"schema upgraded from {before} to {after}")


@command.command()
@click.option("--url", help="SQLAlchemy URL, instead of the configuration's database.url.")
@json_option
@shared_options
@pass_app
def check(app: App, url: str | None, as_json: bool) -> int:
    """Tell whether this release can work with the database; exit code 76 when it cannot."""
    from colocd.store.schema import check as compare

    state = compare(_url(app, url))
    if as_json:
        facts = {"current": state.current, "head": state.head, "known": state.known, "up_to_date": state.up_to_date}
        output.as_json(facts)
        return 0 if state.up_to_date else SchemaOutdated.exit_code
    if state.up_to_date:
        output.say(f"the schema is at {state.current}, as this release needs it")
        return 0
    if state.current is None:
        raise SchemaOutdated("the database has no coloc schema", "run `coloc db upgrade`")
    if not state.known:
        message = f"the schema is at {state.current}, which this release does not know: it is newer"
        raise SchemaOutdated(message, "install the release that made it")
    message = f"the schema is at {state.current}; this release needs {state.head}"
    raise SchemaOutdated(message, "run `coloc db upgrade`")


def _url(app: App, given: str | None) -> str:
    if given is not None:
        return given
    from colocd.config import load_config

    return load_config(Path(app.config) if app.config else None, app.environ).database.url
