"""`coloc explain`: why a job, service or handover is where it is."""

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from coloc_cli.words import local


@click.command()
@click.argument("subject")
@json_option
@shared_options
@pass_app
def command(app: App, subject: str, as_json: bool) -> None:
    """Why a job, service or handover is where it is.

    SUBJECT is a job (17, 17_3), an array (17: all its tasks), a service (chat or service:chat) or a handover (handover:7).
    """
    with app.client() as client:
        facts = client.explain(subject)
    if as_json:
        output.as_json(facts)
        return
    output.paragraph("subject", facts.get("subject", subject))
    now = facts.get("now")
    for label, text in now.items() if isinstance(now, dict) else [("now", now)]:
        output.paragraph(str(label), text if text is not None else "nothing is known of it now")
    decisions = facts.get("decisions") or []
    output.say("")
    if not decisions:
        output.say("no decisions yet")
        return
    rows = [(local(d.get("at")), d.get("kind"), d.get("text")) for d in decisions]
    output.show(("TIME", "DECISION", "BECAUSE"), rows)
