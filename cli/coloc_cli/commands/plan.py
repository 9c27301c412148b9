"""`coloc plan`: what coloc would do now, from the daemon or from a saved view."""

import json
import sys
from typing import Any

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from coloc_cli.words import gpu_set, joined, local
from colocd.errors import BadFile


@click.command()
@click.option(
    "--view", "view_file", metavar="FILE", help="Plan on a saved view (`-`: stdin); asks neither Slurm nor colocd."
)
@json_option
@shared_options
@pass_app
def command(app: App, view_file: str | None, as_json: bool) -> None:
    """What coloc would do now, and why.

    With --view the plan is made here, from a file that `coloc snapshot` wrote: the same view gives the same plan, byte
    for byte, on any machine.
    """
    if view_file is not None:
        document = plan_of_view(view_file)
    else:
        with app.client() as client:
            document = client.plan()
    if as_json:
        output.raw(document)
        return
    show_plan(json.loads(document))


def plan_of_view(path: str) -> bytes:
    """The plan for a view document as canonical JSON; raises `BadFile` when the view cannot be read."""
    import msgspec

    from colocd.core.actions import encode_plan
    from colocd.core.view import VIEW_VERSION, decode_view

    try:
        if path == "-":
            data = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                data = file.read()
        view = decode_view(data)
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}", "name a file that `coloc snapshot` wrote") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadFile(f"{path} is not a view: {error}", "name a file that `coloc snapshot` wrote") from None
    if view.version != VIEW_VERSION:
        message = f"{path} is a view of version {view.version}; this release reads version {VIEW_VERSION}"
        raise BadFile(message, "take the snapshot and plan with the same release")
    from colocd.core.plan import plan

    return encode_plan(plan(view))


def show_plan(plan: dict[str, Any]) -> None:
    """Print a plan for people: the sentence, actions with reasons, needs, and what is not done."""
    output.paragraph("plan", plan.get("summary") or "nothing to do")
    output.paragraph("as of", local(plan.get("at")))
    if actions := plan.get("actions") or []:
        output.say("")
        rows = [(i, a.get("type"), _what(a), a.get("why") or "-") for i, a in enumerate(actions, 1)]
        output.show(("#", "ACTION", "WHAT", "WHY"), rows, right="#")
    if needs := plan.get("needs") or []:
        output.say("")
        rows = [(n.get("service"), n.get("now"), n.get("have"), n.get("why") or "-") for n in needs]
        output.show(("SERVICE", "NEEDS", "HAS", "WHY"), rows, right="NEEDS HAS")
    if notes := plan.get("notes") or []:
        output.say("")
        output.show(("NOT DONE FOR", "WHY"), [(n.get("subject"), n.get("text")) for n in notes])


def _what(action: dict[str, Any]) -> str:
    match action.get("type"):
        case "place":
            text = (
                f"{action['service']}/{action['slot']} on {action['node']}:{gpu_set(action['gpus'])} {action['level']}"
            )
            if action.get("victims"):
                text += f", evicts {joined(action['victims'])}"
            return text
        case "drain":
            return f"{action['service']}/{action['slot']}"
        case "release":
            return f"job {action['job']}" + (f" on {joined(action['nodes'])}" if action.get("nodes") else "")
        case _:
            return f"job {action['job']}" if "job" in action else "-"
