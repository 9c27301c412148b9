"""`coloc service`: apply, list, show and remove services."""

import os
import sys
from typing import Any

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from coloc_cli.commands.status import show_services
from coloc_cli.words import seats
from colocd.errors import BadFile, NotFound


@click.group()
def command() -> None:
    """Apply, list, show and remove services."""


@command.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@json_option
@shared_options
@pass_app
def apply(app: App, files: tuple[str, ...], as_json: bool) -> None:
    """Apply service files (`-`: stdin).

    All files are read before the first is applied. A file with a mistake changes nothing and ends the command; the files
    before it stay applied.
    """
    from colocd.servicefile import inline_script

    # The daemon may not read the caller's files (and does not want to): a script file travels inside the text.
    texts = [(name, inline_script(_read(name), name)) for name in files]
    answers: list[dict[str, Any]] = []
    try:
        with app.client() as client:
            for name, text in texts:
                answer = client.apply_service(text, "stdin" if name == "-" else os.path.abspath(name))
                answers.append(answer)
                if not as_json:
                    output.say(
                        f"{output.clean(answer.get('name'))} {'applied' if answer.get('changed') else 'unchanged'}"
                    )
    finally:
        if as_json:
            output.as_json(answers)


@command.command("list")
@json_option
@shared_options
@pass_app
def list_(app: App, as_json: bool) -> None:
    """Services with load, need and replicas."""
    with app.client() as client:
        services = client.services()
    if as_json:
        output.as_json(services)
    elif services:
        show_services(services)
    else:
        output.say("no services; `coloc service apply FILE` adds one")


@command.command()
@click.argument("name")
@json_option
@shared_options
@pass_app
def show(app: App, name: str, as_json: bool) -> None:
    """One service with its replicas."""
    with app.client() as client:
        service = next((s for s in client.services() if s.get("name") == name), None)
    if service is None:
        raise NotFound(f"there is no service {name!r}", "`coloc service list` shows all names")
    if as_json:
        output.as_json(service)
        return
    for key, value in service.items():
        if not isinstance(value, list | dict):
            output.paragraph(key, value)
    keys = ("slot", "state", "job")
    rows = [
        (*(r.get(key) for key in keys), seats(r.get("places")), r.get("load"), r.get("level"))
        for r in service.get("replicas") or []
    ]
    if rows:
        output.say("")
        output.show(("SLOT", "STATE", "JOBID", "PLACE", "LOAD", "LEVEL"), rows, right="SLOT JOBID LOAD")


@command.command()
@click.argument("name")
@json_option
@shared_options
@pass_app
def remove(app: App, name: str, as_json: bool) -> None:
    """Remove a service: its replicas are drained."""
    with app.client() as client:
        answer = client.remove_service(name)
    if as_json:
        output.as_json(answer)
        return
    output.say(f"{output.clean(name)} removed; its replicas are drained")


def _read(name: str) -> str:
    try:
        if name == "-":
            return sys.stdin.buffer.read().decode()
        with open(name, "rb") as file:
            return file.read().decode()
    except OSError as error:
        raise BadFile(f"{name} cannot be read: {error.strerror}", "name a service file; nothing was changed") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise BadFile(f"{name}: line {line}: not UTF-8", "save the file as UTF-8; nothing was changed") from None
