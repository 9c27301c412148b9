"""`coloc plan`: what coloc would do now, from the daemon or from a saved view."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from coloc_cli.words import joined, local, seats
from colocd.errors import BadFile, NotFound

if TYPE_CHECKING:
    from colocd.core.view import View


@click.command()
@click.option(
    "--view", "view_file", metavar="FILE", help="Plan on a saved view (`-`: stdin); asks neither Slurm nor colocd."
)
@click.option(
    "--why", "node", metavar="NODE", help="Why each service's next replica would, or would not, go to this node."
)
@json_option
@shared_options
@pass_app
def command(app: App, view_file: str | None, node: str | None, as_json: bool) -> None:
    """What coloc would do now, and why.

    With --why NODE it prints for each service what its next replica would cost on that node, against the best node, or
    what forbids it there; for a replica on several nodes or a pair also with which other nodes, and how near they are.

    With --view the plan is made here, from a file that `coloc snapshot` wrote: the same view gives the same plan, byte
    for byte, on any machine.
    """
    if node is not None:
        show_why(node, view_file, app, as_json)
        return
    if view_file is not None:
        document = plan_of_view(view_file)
    else:
        with app.client() as client:
            document = client.plan()
    if as_json:
        output.raw(document)
        return
    show_plan(json.loads(document))


def show_why(node: str, view_file: str | None, app: App, as_json: bool) -> None:
    """Print for each service why its next replica goes to the node or not; raises `NotFound` for a node nobody knows."""
    if view_file is not None:
        view = read_view(view_file)
    else:
        from colocd.core.view import decode_view

        with app.client() as client:
            view = decode_view(client.view())
    if all(n.name != node for n in view.nodes):
        raise NotFound(f"there is no node {node}", "name a node as `scontrol show node` does")
    from colocd.core.reclaim import ground
    from colocd.core.why_wide import why_place

    services = sorted(view.services, key=lambda s: (-s.spec.priority, s.spec.name))
    told = {s.spec.name: why_place(s, view, ground(view), node) for s in services}
    if as_json:
        output.as_json({"node": node, "at": view.at, "services": told})
        return
    output.paragraph("node", node)
    output.paragraph("as of", local(view.at))
    if told:
        output.say("")
        output.show(("SERVICE", "ITS NEXT REPLICA"), list(told.items()))


def plan_of_view(path: str) -> bytes:
    """The plan for a view document as canonical JSON; raises `BadFile` when the view cannot be read."""
    from colocd.core.actions import encode_plan
    from colocd.core.plan import plan

    return encode_plan(plan(read_view(path)))


def read_view(path: str) -> "View":
    """The view in a file (`-`: stdin); raises `BadFile` when it cannot be read or is of another release."""
    import msgspec

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
    return view


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
            text = f"{action['service']}/{action['slot']} on {seats(action['places'])} {action['level']}"
            if action.get("closeness") not in (None, "any"):
                text += f", one {action['closeness']} domain"
            if action.get("follows"):
                text += f", after {action['follows']}"
            if action.get("victims"):
                text += f", evicts {joined(action['victims'])}"
            return text
        case "drain":
            return f"{action['service']}/{action['slot']}"
        case "release":
            return f"job {action['job']}" + (f" on {joined(action['nodes'])}" if action.get("nodes") else "")
        case _:
            return f"job {action['job']}" if "job" in action else "-"
