"""`coloc status`: the daemon, its last cycle, GPUs, services and open handovers."""

from typing import Any

import click

from coloc_cli import output
from coloc_cli.app import App, json_option, pass_app, shared_options
from coloc_cli.words import ago, joined, seats, span

GPU_USES = ("serving", "batch", "free", "failed", "other", "unknown")


@click.command()
@json_option
@shared_options
@pass_app
def command(app: App, as_json: bool) -> None:
    """What colocd sees and does now."""
    with app.client() as client:
        status = client.status()
    if as_json:
        output.as_json(status)
        return
    now = app.clock.now()
    _head(status, now)
    if services := status.get("services") or []:
        output.say("")
        show_services(services)
    if handovers := status.get("handovers") or []:
        output.say("")
        _handovers(handovers, now)


def _head(status: dict[str, Any], now: float) -> None:
    mode = {"act": "acting", "advise": "advising only: decides and explains, touches nothing"}.get(
        str(status.get("mode")), status.get("mode")
    )
    if status.get("paused") is not None:
        mode = f"PAUSED: {status['paused'] or 'no reason given'}"
    output.paragraph("colocd", f"{output.clean(status.get('version'))}, {mode}")
    output.paragraph("Slurm", _slurm(status))
    cycle = status.get("cycle")
    if cycle:
        took = cycle.get("seconds")
        spent = "" if took is None else f" in {took:.2g} s"
        output.paragraph(
            "last cycle", f"{ago(cycle.get('at'), now)}{spent}: {cycle.get('sentence') or 'nothing to do'}"
        )
        for problem in cycle.get("problems") or []:
            output.paragraph("problem", problem)
    else:
        output.paragraph("last cycle", "none yet")
    if gpus := status.get("gpus"):
        uses = [f"{output.clean(gpus.get(use))} {use}" for use in GPU_USES if gpus.get(use, 0) != 0]
        output.paragraph("GPUs", f"{output.clean(gpus.get('total'))}: {', '.join(uses)}")


def _slurm(status: dict[str, Any]) -> str | None:
    release, adapter = status.get("slurm"), status.get("adapter")
    return None if not release else f"{release}, by {adapter}" if adapter else str(release)


def show_services(services: list[dict[str, Any]]) -> None:
    """Print services as a table with one line a service."""
    rows = []
    for service in services:
        replicas = "  ".join(_replica(replica) for replica in service.get("replicas") or []) or "-"
        numbers = [service.get(key) for key in ("name", "load", "need", "have", "ready")]
        rows.append([*numbers, *_foreseen(service.get("forecast")), replicas])
    titles = ("SERVICE", "LOAD", "NEED", "HAVE", "READY", "OFF%", "COVERED95%", "REPLICAS")
    output.show(titles, rows, right=" ".join(titles[1:-1]))
    for service in services:
        record = service.get("forecast") or {}
        if record.get("lost"):
            output.paragraph("note", f"{service.get('name')}: {_lost(record)}")


def _foreseen(record: dict[str, Any] | None) -> list[str | None]:
    """How far an hour's forecast was off lately, and how much stayed below its 0.95 quantile."""
    return [None, None] if record is None else [f"{100 * record[key]:.1f}" for key in ("wape", "covered95")]


def _lost(record: dict[str, Any]) -> str:
    return (
        f"the forecast of {span(record['ahead'])} ahead did worse than the last value lately, which is told instead"
        f" ({record['persistence']:.1%} off)"
    )


def _replica(replica: dict[str, Any]) -> str:
    state = replica.get("state")
    where = seats(replica.get("places"))
    return where if state == "ready" else f"{where} {state}"


def _handovers(handovers: list[dict[str, Any]], now: float) -> None:
    rows = []
    for handover in handovers:
        since = handover.get("since")
        rows.append(
            (
                handover.get("id"),
                f"{handover.get('service')}/{handover.get('slot')}",
                seats(handover.get("places")),
                handover.get("state"),
                span(None if since is None else now - since),
                joined(handover.get("victims")),
            )
        )
    output.show(("HANDOVER", "REPLICA", "PLACE", "STATE", "FOR", "VICTIMS"), rows, right="FOR")
